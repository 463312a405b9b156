"""The networks have the published sizes, equal independent ones, and treat every example for itself."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import random
from genjax.nn import dropout, embedding, normalization
from genjax.nn.unet import SimpleUNet, UNet

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})  # compiles faster
DIGITS = UNet(
    channels=8, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(4,), groups=4, image_channels=1
)


def inputs(num, size=8, channels=1, dtype=jnp.float32):
    x = np.random.default_rng(0).normal(size=(num, size, size, channels))
    return jnp.asarray(x, dtype), jnp.arange(num) * 37 % 100


def parameters(network, channels, size=32):
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs(1, size, channels))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def awake(network, *args):
    """Parameters none of which is zero: after training, so to say."""
    source = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *args)
    return jax.tree.map(lambda p: jnp.asarray(0.3 * source.normal(size=p.shape), p.dtype), shapes)


@pytest.fixture(scope="module")
def digits():
    return awake(DIGITS, *inputs(1))


def test_sizes_are_the_published_ones():
    assert parameters(SimpleUNet(), 3) == parameters(SimpleUNet(norm="group"), 3) == 62_438_883  # the lecture notes
    assert parameters(UNet(), 3) == 35_746_307  # Ho et al. 2020, App. B: 35.7 million


def test_waves_are_channels_beside_the_image():
    x, t = inputs(2)
    waved = DIGITS.clone(fourier=(3, 5))
    params = awake(waved, x, t)
    with_waves = jnp.concatenate([x, *(wave(2**n * np.pi * x) for n in (3, 5) for wave in (jnp.sin, jnp.cos))], -1)
    assert np.allclose(jit(waved.apply)(params, x, t), jit(DIGITS.apply)(params, with_waves, t), atol=1e-5)


def test_embeddings_equal_their_definitions():
    t = jnp.array([0, 1, 7, 999])
    for i in range(4):
        ho, nichol = 10000 ** (-i / 3), 10000 ** (-i / 4)
        notes, later = embedding.sinusoidal(t, 8), embedding.sinusoidal_cosine_first(t, 8)
        assert np.allclose(notes[:, [i, i + 4]].T, [np.sin(t * ho), np.cos(t * ho)], atol=1e-4)
        assert np.allclose(later[:, [i, i + 4]].T, [np.cos(t * nichol), np.sin(t * nichol)], atol=1e-4)
    many = np.asarray(embedding.sinusoidal(jnp.arange(100_000), 32))
    assert len(np.unique(many, axis=0)) == 100_000
    with pytest.raises(ValueError, match="features: expected an even number"):
        embedding.sinusoidal(t, 7)


def test_dropout_of_an_example_depends_on_its_key_alone():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, keys=None):
            return dropout.Dropout(0.25, name="a")(x, keys), dropout.Dropout(0.25, name="b")(x, keys)

    x, keys = jnp.ones((64, 30, 30, 1)), random.example_keys(jax.random.key(0), 64)
    first, second = Two().apply({}, x, keys)
    assert np.array_equal(first[5:7], Two().apply({}, x[5:7], keys[5:7])[0])
    assert not np.array_equal(first, second) and not np.array_equal(first[0], first[1])
    assert set(np.unique(first)) == {0, np.float32(1 / 0.75)}
    assert abs(first.mean() - 1) < 4 * math.sqrt(0.25 / 0.75 / first.size)  # 4 standard errors
    assert np.array_equal(Two().apply({}, x)[0], x)
    with pytest.raises(ValueError, match="keys: expected 64, one per example"):
        Two().apply({}, x, keys[:3])
    with pytest.raises(ValueError, match="rate: expected"):
        dropout.Dropout(1.0).apply({}, x, keys)


def test_normalisations_equal_those_of_flax():
    x = 100 + 3 * inputs(4, 6, 8)[0]
    params = {"params": {"scale": jnp.arange(8.0), "bias": jnp.arange(8.0) - 3}}
    state = {"batch_stats": {"mean": jnp.zeros(8), "var": jnp.ones(8)}}
    for ours, theirs in (
        (normalization.GroupNorm(4), nn.GroupNorm(4, use_fast_variance=False)),
        (normalization.BatchNorm(), nn.BatchNorm(False, epsilon=1e-5, use_fast_variance=False)),
    ):
        expected = theirs.apply(params | state, x, mutable=True)[0]
        assert np.allclose(ours.apply(params, x), expected, atol=1e-4)
    with pytest.raises(ValueError, match="groups: expected a divisor of the 8 channels, got 3"):
        normalization.GroupNorm(3).apply(params, x)


def test_unet_predicts_zero_at_the_start():
    (x, t), network = (
        inputs(2),
        UNet(channels=4, channel_mults=(1,), num_res_blocks=1, attention_resolutions=(), groups=2, image_channels=1),
    )
    y, params = jit(network.init_with_output)(jax.random.key(0), x, t)
    assert np.all(y == 0)
    zero = {path[-2].key for path, p in jax.tree_util.tree_leaves_with_path(params) if p.ndim > 1 and not np.any(p)}
    assert zero == {"conv_2", "conv_out", "out"}  # the last of every residual, of attention and of the network


def test_every_parameter_of_the_unet_is_used(digits):
    x, t = inputs(3)
    run = jit(DIGITS.apply)
    gradients = jit(jax.grad(lambda p: jnp.mean(DIGITS.apply(p, x, t) ** 2)))(digits)
    dead = [path for path, g in jax.tree_util.tree_leaves_with_path(gradients) if not np.any(np.abs(g) > 1e-12)]
    names = ["/".join(str(part.key) for part in path[1:]) for path in dead]
    assert all(name.endswith("attention/key/bias") for name in names)  # softmax does not see it
    assert np.any(run(digits, x, t + 1) != run(digits, x, t))


def test_an_example_is_the_same_in_any_batch_and_under_vmap(digits):
    """Dropout included: the mask is the example's own."""
    (x, t), keys = inputs(6), random.example_keys(jax.random.key(3), 6)
    run = jit(DIGITS.apply)
    batched = run(digits, x, t, keys)
    assert np.allclose(run(digits, x[2:4], t[2:4], keys[2:4]), batched[2:4], atol=1e-5)
    single = lambda x, t, key: DIGITS.apply(digits, x[None], t[None], key[None])[0]
    assert np.allclose(jit(jax.vmap(single))(x, t, keys), batched, atol=1e-5)
    assert not np.allclose(run(digits, x, t), batched, atol=1e-3)


def test_many_networks_run_in_one_vmap():
    (x, t), network = inputs(2), SimpleUNet((4, 8), 1)
    params = jax.tree.map(lambda p: jnp.stack([p, -p]), awake(network, x, t))
    together = jit(jax.vmap(network.apply, (0, None, None)))(params, x, t)
    alone = jit(network.apply)(jax.tree.map(lambda p: p[1], params), x, t)
    assert np.allclose(together[1], alone, atol=1e-4)


@pytest.mark.parametrize("make", [DIGITS.clone, functools.partial(SimpleUNet, (8, 16), 1)])
def test_bfloat16_computes_coarsely_and_answers_in_float32(make):
    (x, t), coarse = inputs(4), make(dtype=jnp.bfloat16)
    params = awake(coarse, x, t)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))
    exact, rough = jit(make().apply)(params, x, t), jit(coarse.apply)(params, x, t)
    assert rough.dtype == exact.dtype == jnp.float32
    error = np.sqrt(np.mean((rough - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 5e-2
    with jax.enable_x64(True):
        shape = jax.eval_shape(make().apply, params, x.astype(jnp.float64), t)
    assert shape.dtype == jnp.float64


def test_batch_statistics_are_those_of_the_batch_and_group_statistics_of_the_image():
    x, t = inputs(4)
    for norm, alone in (("batch", False), ("group", True)):
        network = SimpleUNet((8, 16), 1, norm=norm)
        params = awake(network, x, t)
        run = jit(network.apply)
        assert np.allclose(run(params, x[:2], t[:2]), run(params, x, t)[:2], atol=1e-5) == alone


@pytest.mark.parametrize(
    ("network", "size", "message"),
    [
        (SimpleUNet((8, 16, 32), 1), 10, r"x_t: expected height and width divisible by 4, got \(10, 10\); .* \(8, 8\)"),
        (UNet(8, (1, 1, 1, 1), groups=4), 30, r"divisible by 8, got \(30, 30\); .* \(32, 32\)"),
        (UNet(24), 32, r"groups: expected a divisor of channels=24, got 32; use groups=8"),
        (SimpleUNet((12, 24), 1, norm="group"), 8, "channels: expected multiples of 8"),
    ],
)
def test_errors_name_the_fix(network, size, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), *inputs(1, size, network.image_channels))


def notes_network(torch, channels, image_channels):
    """The U-Net of the lecture notes in PyTorch, written from its description."""

    class Block(torch.nn.Module):
        def __init__(self, cin, cout, up):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(2 * cin if up else cin, cout, 3, padding=1)
            self.conv2 = torch.nn.Conv2d(cout, cout, 3, padding=1)
            self.time = torch.nn.Linear(32, cout)
            self.norm1, self.norm2 = torch.nn.BatchNorm2d(cout), torch.nn.BatchNorm2d(cout)
            make = torch.nn.ConvTranspose2d if up else torch.nn.Conv2d
            self.transform = make(cout, cout, 4, 2, 1)

        def forward(self, x, time):
            h = self.norm1(torch.relu(self.conv1(x))) + torch.relu(self.time(time))[:, :, None, None]
            return self.transform(self.norm2(torch.relu(self.conv2(h))))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            pairs = list(zip(channels, channels[1:], strict=False))
            self.time = torch.nn.Linear(32, 32)
            self.first = torch.nn.Conv2d(image_channels, channels[0], 3, padding=1)
            self.downs = torch.nn.ModuleList(Block(a, b, False) for a, b in pairs)
            self.ups = torch.nn.ModuleList(Block(b, a, True) for a, b in reversed(pairs))
            self.last = torch.nn.Conv2d(channels[0], image_channels, 1)

        def forward(self, x, t):
            waves = t[:, None] * torch.exp(torch.arange(16) * -(math.log(10000) / 15))
            time = torch.relu(self.time(torch.cat([waves.sin(), waves.cos()], dim=1)))
            h, skips = self.first(x), []
            for down in self.downs:
                h = down(h, time)
                skips.append(h)
            for up in self.ups:
                h = up(torch.cat([h, skips.pop()], dim=1), time)
            return self.last(h)

    return Net()


def from_torch(net):
    """PyTorch's parameters under our names: OIHW → HWIO; transposed kernels IOHW → HWIO, flipped in space."""
    array = lambda tensor: jnp.asarray(tensor.detach().numpy())
    dense = lambda m: {"kernel": array(m.weight).T, "bias": array(m.bias)}
    conv = lambda m: {"kernel": array(m.weight).transpose(2, 3, 1, 0), "bias": array(m.bias)}
    norm = lambda m: {"scale": array(m.weight), "bias": array(m.bias)}
    back = lambda m: {"kernel": array(m.weight).transpose(2, 3, 0, 1)[::-1, ::-1], "bias": array(m.bias)}
    params = {"time": dense(net.time), "conv_in": conv(net.first), "conv_out": conv(net.last)}
    for name, blocks, transform in (("down", net.downs, conv), ("up", net.ups, back)):
        for i, m in enumerate(blocks):
            params[f"{name}_{i}_transform"] = transform(m.transform)
            params[f"{name}_{i}"] = {"conv_1": conv(m.conv1), "conv_2": conv(m.conv2), "time": dense(m.time)}
            params[f"{name}_{i}"] |= {"norm_1": norm(m.norm1), "norm_2": norm(m.norm2)}
    return {"params": params}


def test_simple_unet_equals_the_network_of_the_notes_in_pytorch():
    """BatchNorm in training mode, as there; the output and its gradient by the image."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    channels = (8, 16, 32, 64)
    theirs, ours = notes_network(torch, channels, 3).train(), SimpleUNet(channels)
    with torch.no_grad():
        for m in theirs.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.weight.normal_(1, 0.3), m.bias.normal_(0, 0.3)
    x, t = inputs(4, 16, 3)
    image = torch.tensor(np.array(x).transpose(0, 3, 1, 2), requires_grad=True)
    expected = theirs(image, torch.tensor(np.array(t)))
    expected.square().sum().backward()
    params = from_torch(theirs)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(ours.init, jax.random.key(0), x, t))
    assert jax.tree.map(jnp.shape, params) == shapes
    energy = lambda x: (jnp.sum((y := ours.apply(params, x, t)) ** 2), y)
    gradient, y = jit(jax.grad(energy, has_aux=True))(x)
    assert np.allclose(y.transpose(0, 3, 1, 2), expected.detach().numpy(), atol=1e-4)
    gradient, target = gradient.transpose(0, 3, 1, 2), image.grad.numpy()
    assert np.max(np.abs(gradient - target)) <= 1e-4 * max(1, np.max(np.abs(target)))
