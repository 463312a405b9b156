"""The autoencoder: its loss, an independent build of it, and what it learns."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import data
from genjax.models import autoencoder
from genjax.nn import convnet, mlp
from genjax.training import state, steps

KEY = jax.random.key(0)
SHAPE = (28, 28, 1)
IMAGES = jax.random.uniform(jax.random.key(1), (5, *SHAPE), minval=-1)


def notes():
    """784-256-20-256-784, with ReLU also on the code."""
    return autoencoder.build(mlp.Encoder(20, activation=nn.relu), mlp.Decoder(SHAPE), SHAPE)


def test_the_notes_network_equals_pytorchs():
    torch = pytest.importorskip("torch")
    model = notes()
    params = model.init(KEY)
    layers = [params[part][f"Dense_{i}"] for part in ("encoder", "decoder") for i in range(2)]
    assert [layer["kernel"].shape for layer in layers] == [(784, 256), (256, 20), (20, 256), (256, 784)]
    parts: list = [torch.nn.Flatten()]
    for layer in layers:
        linear = torch.nn.Linear(*layer["kernel"].shape)
        linear.weight.data = torch.tensor(np.asarray(layer["kernel"]).T)
        linear.bias.data = torch.tensor(np.asarray(layer["bias"]))
        parts += [linear, torch.nn.ReLU()]
    parts[-1] = torch.nn.Sigmoid()
    grey = (np.asarray(IMAGES) + 1) / 2
    expected = torch.nn.Sequential(*parts)(torch.tensor(grey)).detach().numpy().reshape(grey.shape)
    assert np.allclose((model.reconstruct(params, IMAGES) + 1) / 2, expected, atol=1e-5)
    loss = torch.nn.functional.mse_loss(torch.tensor(expected), torch.tensor(grey))
    assert np.isclose(model.loss(KEY, params, {"image": IMAGES})[0], float(loss), rtol=1e-5)


def test_a_relu_code_is_not_negative_and_a_linear_one_is():
    codes = notes().encode(notes().init(KEY), IMAGES)
    assert codes.shape == (5, 20) and codes.min() == 0 and (codes == 0).mean() > 0.2
    linear = autoencoder.build(mlp.Encoder(20), mlp.Decoder(SHAPE), SHAPE)
    assert linear.encode(linear.init(KEY), IMAGES).min() < 0


def test_a_linear_autoencoder_finds_what_principal_components_leave():
    """With one linear layer each way and little sigmoid, the best error is that of PCA (Baldi & Hornik 1989)."""
    rng = np.random.default_rng(0)
    x = 0.05 * rng.standard_normal((256, 3)) @ rng.standard_normal((3, 12))
    x += 0.01 * rng.standard_normal(x.shape)
    images = jnp.asarray(x.reshape(256, 2, 6, 1), jnp.float32)
    model = autoencoder.build(mlp.Encoder(2, hidden=()), mlp.Decoder((2, 6, 1), hidden=()), (2, 6, 1))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 3000))
    run = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), steps.rows(256), 3000))
    end, _ = run(KEY, state.create(model.init(KEY), optimizer), {"image": images})
    centred = x - x.mean(0)
    left = np.linalg.svd(centred, compute_uv=False)[2:] @ np.linalg.svd(centred, compute_uv=False)[2:]
    assert np.isclose(model.loss(KEY, end.params, {"image": images})[0], left / x.size / 4, rtol=0.05)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 64, 3), (8, 12, 1)])
def test_the_convolutional_networks_fit_every_size(shape):
    model = autoencoder.build(convnet.Encoder(4, (8, 8)), convnet.Decoder(shape, (8, 8)), shape)
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    assert jax.eval_shape(lambda x: model.reconstruct(model.init(KEY), x), images).shape == images.shape


def test_the_convolutional_networks_equal_pytorchs():
    torch = pytest.importorskip("torch")
    images = jax.random.uniform(KEY, (2, 8, 8, 3), minval=-1)
    model = autoencoder.build(convnet.Encoder(5, (4, 6), (7,)), convnet.Decoder((8, 8, 3), (4, 6), (7,)), (8, 8, 3))
    params = jax.jit(model.init)(KEY)
    tensor = lambda array: torch.tensor(np.array(array))
    dense = lambda layer, x: torch.nn.functional.linear(x, tensor(layer["kernel"]).T, tensor(layer["bias"]))
    x = tensor((images + 1) / 2).permute(0, 3, 1, 2)
    encoder, decoder = params["encoder"], params["decoder"]
    for i in range(2):
        layer = encoder["down"][f"conv_{i}"]
        kernel = tensor(layer["kernel"]).permute(3, 2, 0, 1)
        x = torch.nn.functional.conv2d(x, kernel, tensor(layer["bias"]), stride=2, padding=1).relu()
    x = x.permute(0, 2, 3, 1).flatten(1)
    code = dense(encoder["Dense_1"], dense(encoder["Dense_0"], x).relu())
    assert np.allclose(jax.jit(model.encode)(params, images), code, atol=1e-5)
    x = dense(decoder["Dense_1"], dense(decoder["Dense_0"], code).relu()).relu()
    x = x.reshape(-1, 2, 2, 6).permute(0, 3, 1, 2)
    for i in range(2):
        layer = decoder["up"][f"conv_{i}"]
        kernel = tensor(layer["kernel"]).flip(0, 1).permute(2, 3, 0, 1)
        x = torch.nn.functional.conv_transpose2d(x, kernel, tensor(layer["bias"]), stride=2, padding=1)
        x = x.relu() if i == 0 else 2 * x.sigmoid() - 1
    assert np.allclose(jax.jit(model.reconstruct)(params, images), x.permute(0, 2, 3, 1), atol=1e-5)


def test_what_was_never_seen_comes_back_worse():
    """Trained on ones and sevens, zeros have the larger error."""
    digits = data.digits()
    label, image = digits.train["label"], digits.train["image"]
    model = autoencoder.build(mlp.Encoder(4, (64,)), mlp.Decoder((8, 8, 1), (64,)), (8, 8, 1))
    optimizer = optax.adam(3e-3)
    run = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), steps.rows(64), 500))
    familiar = data.scale(image[(label == 1) | (label == 7)])
    end, _ = run(KEY, state.create(model.init(KEY), optimizer), {"image": familiar})
    strange = data.scale(image[label == 0])
    error = lambda x: np.asarray(autoencoder.reconstruction_error(x, model.reconstruct(end.params, x)))
    assert np.median(error(strange)) > 2 * np.quantile(error(familiar), 0.9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: m.encode(p, jnp.zeros((2, 8, 8, 1), jnp.uint8)), "got uint8; genjax.data.scale"),
        (lambda m, p: m.reconstruct(p, jnp.full((2, 8, 8, 1), jnp.nan)), "images: expected finite numbers"),
        (lambda m, p: m.loss(jax.random.key(0), p, {"image": jnp.zeros((0, 8, 8, 1))}), "images: expected at least 1"),
        (lambda m, p: m.encode(p, 127.0 * jnp.ones((2, 8, 8, 1))), r"pixels in \[-1, 1\], got 127 to 127"),
        (lambda m, p: m.decode(p, jnp.zeros((2, 5))), r"codes: expected vectors of shape \[b, 4\]"),
        (lambda m, p: m.decode(p, jnp.full((2, 4), jnp.inf)), "codes: expected finite numbers"),
        (lambda m, p: autoencoder.reconstruction_error(jnp.zeros((2, 8, 8, 1)), jnp.zeros((1, 8, 8, 1))), "the shape"),
    ],
)
def test_what_is_no_image_is_refused(call, message):
    model = autoencoder.build(mlp.Encoder(4, ()), mlp.Decoder((8, 8, 1), ()), (8, 8, 1))
    with pytest.raises(ValueError, match=message):
        call(model, model.init(jax.random.key(0)))


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"decoder: expected images of shape \(28, 28, 1\) back, got \(8, 8, 1\)"):
        autoencoder.build(mlp.Encoder(20), mlp.Decoder((8, 8, 1)), SHAPE)
    with pytest.raises(ValueError, match="use fewer channels, or images of"):
        autoencoder.build(convnet.Encoder(4, (8, 8, 8)), convnet.Decoder(SHAPE, (8, 8)), SHAPE)
