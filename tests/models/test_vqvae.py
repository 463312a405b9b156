"""The VQ-VAE: its three gradients, its codebook's recursion, and what becomes of entries nobody uses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import data
from genjax.models import vqvae
from genjax.nn import convnet, quantizer
from genjax.theory import information, pixels
from genjax.training import state, steps

KEY = jax.random.key(0)
SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)


def build(codebook, **more):
    return vqvae.build(
        convnet.MapEncoder(4, (8,), 1), convnet.MapDecoder(1, (8,), 1), codebook, pixels.gaussian(0.5), SHAPE, **more
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("size", "d"), [(1, 1), (2, 5), (40, 3), (33, 8)])
def test_the_nearest_entry_is_that_of_brute_force(size, d, scale):
    rng = np.random.default_rng(size * 10 + d)
    codebook, z = scale * rng.standard_normal((size, d)), scale * rng.standard_normal((25, d))
    distance = ((z[:, None].astype(np.float32).astype(float) - codebook.astype(np.float32).astype(float)) ** 2).sum(-1)
    index = np.asarray(quantizer.nearest(jnp.asarray(codebook, jnp.float32), jnp.asarray(z, jnp.float32)))
    chosen = np.take_along_axis(distance, index[:, None], 1)[:, 0]
    assert np.all(chosen <= distance.min(1) + 1e-5 * scale**2)
    assert (index == distance.argmin(1)).mean() > 0.95


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e3, 1e-2), (-3e5, 1.0), (1e-3, 1e-6)])
def test_the_nearest_is_that_of_float64_where_entries_lie_close_together_far_from_0(offset, scale):
    """|z|² - 2 z·e + |e|² in float32 resolves 6e-8 |z|²: nothing of the distances here."""
    rng = np.random.default_rng(5)
    numbers = lambda n: (offset + scale * rng.standard_normal((n, 8))).astype(np.float32)
    entries, z = np.concatenate([numbers(40), 30 * numbers(5)]), numbers(300)
    distance = ((z[:, None].astype(float) - entries.astype(float)) ** 2).sum(-1)
    assert np.array_equal(quantizer.nearest(jnp.asarray(entries), jnp.asarray(z)), distance.argmin(1))


def test_the_gradient_passes_straight_through_bit_for_bit():
    z, e = (jnp.asarray(RNG.standard_normal((3, 4)), jnp.float32) for _ in range(2))
    loss = lambda x: jnp.sum(jnp.sin(3 * x) * jnp.arange(4))
    assert np.array_equal(quantizer.straight_through(z, e), e)
    through_z, through_e = jax.grad(lambda z, e: loss(quantizer.straight_through(z, e)), (0, 1))(z, e)
    assert np.array_equal(through_z, jax.grad(loss)(e)) and not through_e.any()


def test_each_term_moves_what_it_should():
    """Entries by |sg(z) - e|² alone; the encoder's commitment is 2 β (z - e) / N; nothing else reaches the entries."""
    model = build(vqvae.gradient_codebook(6), commitment=0.0)
    params = jax.jit(model.init)(KEY)
    images = jax.random.uniform(KEY, (5, *SHAPE), minval=-1)
    gradient = jax.jit(jax.grad(lambda p: model.loss(KEY, p, {"image": images})[0]))(params)
    features = convnet.MapEncoder(4, (8,), 1).apply({"params": params["encoder"]}, images).reshape(-1, 4)
    entries = np.asarray(params["codebook"], float)
    nearest = ((np.asarray(features, float)[:, None] - entries) ** 2).sum(-1).argmin(1)
    by_hand = np.zeros_like(entries)
    np.add.at(by_hand, nearest, -2 * (np.asarray(features, float) - entries[nearest]) / len(nearest))
    assert np.allclose(gradient["codebook"], by_hand, atol=1e-6)

    with_beta = build(vqvae.gradient_codebook(6), commitment=0.7)
    more = jax.jit(jax.grad(lambda p: with_beta.loss(KEY, p, {"image": images})[0]))(params)
    assert np.array_equal(more["codebook"], gradient["codebook"])
    encode = lambda p: convnet.MapEncoder(4, (8,), 1).apply({"params": p}, images)
    z, pullback = jax.vjp(jax.jit(encode), params["encoder"])
    cotangent = 0.7 * 2 * (z - entries[nearest].reshape(z.shape)) / len(nearest)
    (commit,) = pullback(cotangent.astype(z.dtype))
    difference = jax.tree.map(lambda a, b: a - b, more["encoder"], gradient["encoder"])
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(*map(jax.tree.leaves, (difference, commit)), strict=True))


def test_descent_is_the_recursion_of_the_paper():
    """N ← γ N + (1 - γ) n, m ← γ m + (1 - γ) Σ z, over twenty batches, in plain numpy."""
    size, decay = 5, 0.9
    codebook = vqvae.ema_codebook(size, decay=decay)
    params = codebook.init(KEY, 3)
    optimizer = optax.sgd(1 - decay)
    share, total = (np.asarray(params[name], float) for name in ("share", "sum"))
    for _ in range(20):
        z = RNG.standard_normal((64, 3)).astype(np.float32)
        indices = np.asarray(quantizer.nearest(codebook.vectors(params), jnp.asarray(z)))
        value, gradient = jax.value_and_grad(codebook.loss)(params, jnp.asarray(z), jnp.asarray(indices))
        assert value == 0
        params = optax.apply_updates(params, optimizer.update(gradient, optimizer.init(params))[0])
        share = decay * share + (1 - decay) * np.bincount(indices, minlength=size) / 64
        sums = np.zeros((size, 3))
        np.add.at(sums, indices, z / 64)
        total = decay * total + (1 - decay) * sums
    assert np.allclose(params["share"], share, atol=1e-6) and np.allclose(params["sum"], total, atol=1e-6)
    assert np.allclose(codebook.vectors(params), total / share[:, None], rtol=1e-3)


def test_the_smoothing_is_that_of_the_paper_in_vectors():
    """A.1 in counts: N ← γ N + (1 - γ) n and e = m / ((N + ε) / (n + k ε) n), with n = Σ N; most entries are rare.

    An ε on shares would pull an entry with one vector in 4096 to a part 1 / (1 + 4096 ε) of itself.
    """
    size, num, decay, epsilon = 512, 4096, 0.9, 1e-3
    codebook = vqvae.ema_codebook(size, decay=decay, epsilon=epsilon, num_vectors=num)
    params = codebook.init(KEY, 3)
    count, total = num * np.asarray(params["share"], float), num * np.asarray(params["sum"], float)
    slope = jax.jit(jax.grad(codebook.loss))
    for _ in range(30):
        indices = np.minimum(RNG.geometric(0.01, num) - 1, size - 1)
        z = RNG.standard_normal((num, 3)).astype(np.float32)
        params = jax.tree.map(
            lambda p, g: p - (1 - decay) * g, params, slope(params, jnp.asarray(z), jnp.asarray(indices))
        )
        sums = np.zeros((size, 3))
        np.add.at(sums, indices, z)
        count = decay * count + (1 - decay) * np.bincount(indices, minlength=size)
        total = decay * total + (1 - decay) * sums
    smooth = (count + epsilon) / (count.sum() + size * epsilon) * count.sum()
    assert count.min() < 1 and np.allclose(codebook.vectors(params), total / smooth[:, None], rtol=1e-3, atol=1e-5)
    assert np.abs(total / smooth[:, None] - total / count[:, None]).max() > 1e-3  # ε shows
    default = vqvae.ema_codebook(size).vectors(params)  # 1e-5 vectors: ε does not show
    assert np.allclose(default, total / count[:, None], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dead_code_threshold", [0.0, 0.1])
def test_two_devices_average_to_the_recursion_of_the_whole_batch(dead_code_threshold):
    codebook = vqvae.ema_codebook(5, dead_code_threshold=dead_code_threshold)
    params = codebook.init(KEY, 3)
    params = params | {"share": jnp.array([0.4, 0.3, 0.299, 0.001, 0.0])}
    z = jnp.asarray(RNG.standard_normal((64, 3)), jnp.float32)
    indices = quantizer.nearest(codebook.vectors(params), z)
    gradient = jax.grad(codebook.loss)
    halves = [gradient(params, z[i : i + 32], indices[i : i + 32]) for i in (0, 32)]
    whole, mean = gradient(params, z, indices), jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    assert all(
        np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(*map(jax.tree.leaves, (whole, mean)), strict=True)
    )


def test_a_dead_entry_begins_anew_beside_a_much_used_one():
    decay = 0.99
    codebook = vqvae.ema_codebook(4, decay=decay, dead_code_threshold=0.1)
    entries = jnp.array([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0], [-9.0, 9.0]])
    share = jnp.array([0.6, 0.395, 0.004, 0.001])
    params = {"share": share, "sum": entries * share[:, None]}
    z = jnp.asarray(np.repeat(np.asarray(entries[:2]), 50, 0))
    indices = quantizer.nearest(codebook.vectors(params), z)
    gradient = jax.grad(codebook.loss)(params, z, indices)
    after = jax.tree.map(lambda p, g: p - (1 - decay) * g, params, gradient)
    assert np.allclose(after["share"], [0.3, 0.1975, 0.1975, 0.3], atol=1e-5)
    moved = np.asarray(codebook.vectors(after))
    assert np.allclose(moved, np.asarray(entries)[[0, 1, 1, 0]], atol=0.1) and len(np.unique(moved, axis=0)) == 4
    left_alone = vqvae.ema_codebook(4, decay=decay)
    gradient = jax.grad(left_alone.loss)(params, z, indices)
    assert np.allclose(
        codebook.vectors(jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient))[2:], entries[2:], rtol=0.02
    )


def trained(codebook, num_steps=300):
    model = build(codebook)
    optimizer = model.optimizer(optax.adam(3e-3))
    run = jax.jit(steps.repeat(steps.gradient_step(model.loss, optimizer), steps.rows(64), num_steps))
    images = data.scale(data.digits().train["image"])
    return model, *run(KEY, state.create(model.init(KEY), optimizer), {"image": images})


@pytest.mark.parametrize("codebook_update", ["ema", pytest.param("gradient", marks=pytest.mark.slow)])
def test_it_learns_digits_through_its_codes(codebook_update):
    codebook = (
        vqvae.ema_codebook(16, dead_code_threshold=0.1) if codebook_update == "ema" else vqvae.gradient_codebook(16)
    )
    model, end, metrics = trained(codebook)
    images = data.scale(data.digits().heldout["image"])
    indices = model.encode(end.params, images)
    assert indices.shape == (len(images), 4, 4) and 0 <= indices.min() and indices.max() < 16
    again = model.decode(end.params, indices)
    assert np.array_equal(again, model.reconstruct(end.params, images))
    assert np.mean((again - images) ** 2) < 0.5 * np.var(np.asarray(images))
    assert np.allclose(
        model.log_prob(end.params, images, indices), pixels.gaussian(0.5).log_prob(again, images), rtol=1e-5
    )
    other = jax.random.permutation(KEY, indices)
    assert model.log_prob(end.params, images, other).mean() < model.log_prob(end.params, images, indices).mean() - 10
    if codebook_update == "ema":
        assert metrics["perplexity"][-20:].mean() > 8


def test_perplexity_is_the_exponential_of_the_entropy_of_use():
    assert np.isclose(np.exp(information.entropy(quantizer.usage(jnp.arange(12) % 4, 4))), 4)
    model = build(vqvae.gradient_codebook(8))
    images = jax.random.uniform(KEY, (6, *SHAPE), minval=-1)
    params = model.init(KEY)
    share = np.bincount(np.ravel(model.encode(params, images)), minlength=8)
    share = share[share > 0] / share.sum()
    perplexity = model.loss(KEY, params, {"image": images})[1]["perplexity"]
    assert len(share) > 1 and np.isclose(perplexity, np.exp(-(share * np.log(share)).sum()))


SMALL = build(vqvae.gradient_codebook(4))
PARAMS = jax.jit(SMALL.init)(KEY)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vqvae.ema_codebook(0), "size: expected a codebook of at least 1 entry, got 0"),
        (lambda: vqvae.ema_codebook(4, decay=1.0), r"decay: expected a number in \(0, 1\)"),
        (lambda: vqvae.ema_codebook(4, dead_code_threshold=-1.0), "dead_code_threshold: expected 0"),
        (lambda: vqvae.ema_codebook(4, decay=float("nan")), "decay: expected"),
        (lambda: vqvae.ema_codebook(4, epsilon=-1e-5), "epsilon: expected finite numbers of at least 0, got -1e-05"),
        (lambda: vqvae.ema_codebook(4, num_vectors=0), "num_vectors: expected at least 1, got 0"),
        (lambda: build(vqvae.gradient_codebook(4), commitment=-0.1), "commitment: expected finite numbers"),
        (lambda: SMALL.encode(PARAMS, jnp.zeros((2, *SHAPE), jnp.uint8)), "got uint8; genjax.data.scale"),
        (lambda: SMALL.encode(PARAMS, jnp.full((2, *SHAPE), jnp.nan)), r"images: expected finite numbers, got nan"),
        (lambda: SMALL.encode(PARAMS, jnp.zeros((0, *SHAPE))), "images: expected at least 1"),
        (lambda: SMALL.loss(KEY, PARAMS, {"image": 255 * jnp.ones((2, *SHAPE))}), r"pixels in \[-1, 1\], got 255"),
        (lambda: SMALL.decode(PARAMS, jnp.full((1, 4, 4), 4)), "indices: expected whole numbers from 0 to 3, got 4"),
        (lambda: SMALL.decode(PARAMS, jnp.zeros((1, 3, 4), int)), r"indices: expected maps of shape \(4, 4\)"),
        (lambda: quantizer.nearest(jnp.zeros((4, 3)), jnp.zeros((2, 1))), "z: expected vectors of 3 numbers"),
        (lambda: quantizer.usage(jnp.zeros((0,), int), 4), "indices: expected at least 1"),
        (lambda: vqvae.build(convnet.MapEncoder(4, (8,)), convnet.MapDecoder(2, (8,)), vqvae.gradient_codebook(4),
                             pixels.gaussian(1.0), SHAPE), r"decoder: expected outputs of shape \(8, 8, 1\)"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
