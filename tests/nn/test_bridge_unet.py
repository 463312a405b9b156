"""Networks of diffusers, read as ours, compute the same: output and gradients; what cannot be read is refused."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import diffusers_unet

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})

CIFAR = {
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "attention_head_dim": None,
}  # fmt: skip
CELEBA = CIFAR | {
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
}
SMALL = CIFAR | {"block_out_channels": [8, 16, 16, 16], "layers_per_block": 1, "norm_num_groups": 4}
DEEP = CELEBA | {"block_out_channels": [8, 8, 16, 16, 24, 24], "layers_per_block": 1, "norm_num_groups": 4}
LATER = SMALL | {"downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "attention_head_dim": 4}
SCALED = LATER | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4, "norm_eps": 1e-5}
BARE = SMALL | {"add_attention": False}


def shapes(config, size=32):
    x, t = jnp.zeros((1, size, size, 3)), jnp.zeros(1, jnp.int32)
    return jax.eval_shape(diffusers_unet.network(config).init, jax.random.key(0), x, t)["params"]


def awake(config):
    source = np.random.default_rng(0)
    return jax.tree.map(lambda p: (0.2 * source.normal(size=p.shape)).astype(np.float32), shapes(config))


@pytest.mark.parametrize(("config", "size"), [(CIFAR, 35_746_307), (CELEBA, 113_673_219)])
def test_published_networks_have_their_sizes(config, size):
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(config))) == size


@pytest.mark.parametrize("config", [SMALL, DEEP, SCALED, BARE])
def test_there_and_back_is_bitwise_the_same(config):
    params, levels = awake(config), len(config["block_out_channels"])
    theirs = diffusers_unet.tensors(params, levels)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, diffusers_unet.params(theirs, shapes(config), levels)))


def test_wrong_tensors_are_all_listed():
    theirs = diffusers_unet.tensors(awake(SMALL), 4)
    theirs["other"] = theirs.pop("conv_in.bias")
    theirs["conv_out.bias"] = np.zeros(7)
    with pytest.raises(ValueError, match=r"(?s)missing conv_in.bias.*unexpected other.*shape of conv_out.bias"):
        diffusers_unet.params(theirs, shapes(SMALL), 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [("class_embed_type", "timestep"), ("downsample_type", "resnet"), ("freq_shift", 3), ("act_fn", "relu")],
)
def test_what_is_not_covered_is_named(field, value):
    with pytest.raises(ValueError, match=rf"{field}: expected .*{value}"):
        diffusers_unet.network(SMALL | {field: value})


@pytest.mark.parametrize(("field", "value"), [("fourier", (7,)), ("num_classes", 10)])
def test_what_diffusers_cannot_express_is_named(field, value):
    with pytest.raises(ValueError, match=rf"{field}: expected"):
        diffusers_unet.config(diffusers_unet.network(SMALL).clone(**{field: value}), 32)


@pytest.mark.parametrize("config", [SMALL, DEEP, LATER, SCALED, BARE])
def test_output_and_gradients_equal_those_of_diffusers(config):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(**config).double()
    levels = len(config["block_out_channels"])
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_((0.2 * torch.randn(p.shape)).float())
    state = {name: p.detach().numpy() for name, p in theirs.named_parameters()}
    params = diffusers_unet.params(state, shapes(config), levels)
    x, t = np.random.default_rng(1).normal(size=(2, 3, 32, 32)), np.array([3, 700])
    image = torch.tensor(x, requires_grad=True)
    expected = theirs(image, torch.tensor(t)).sample
    expected.square().mean().backward()
    with jax.enable_x64(True):
        ours = diffusers_unet.network(config)
        wide = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
        energy = lambda p, x: (jnp.mean((y := ours.apply({"params": p}, x, jnp.asarray(t))) ** 2), y)
        (by_params, by_image), y = jit(jax.grad(energy, (0, 1), has_aux=True))(
            wide, jnp.asarray(x.transpose(0, 2, 3, 1))
        )
        result = diffusers_unet.tensors(by_params, levels)
    close = lambda a, b: np.max(np.abs(a - b)) <= 1e-5 * max(1e-3, np.max(np.abs(b)))
    assert close(np.asarray(y).transpose(0, 3, 1, 2), expected.detach().numpy())
    assert close(np.asarray(by_image).transpose(0, 3, 1, 2), image.grad.numpy())
    wrong = [n for n, p in theirs.named_parameters() if not close(result[n], p.grad.numpy())]
    assert not wrong
