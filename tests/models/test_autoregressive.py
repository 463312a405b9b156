"""Autoregressive models: probabilities that sum to one, networks that cannot see ahead, and one fast sampler."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from genjax.models import autoregressive
from genjax.nn.pixelcnn import GatedPixelCNN, PixelCNN
from genjax.nn.pixelrnn import PixelRNN
from genjax.theory import pixels

KEY = jax.random.key(0)
TINY = {"features": 4, "head_features": 8}
NETWORKS = {
    "plain": functools.partial(PixelCNN, num_blocks=2, **TINY),
    "gated": functools.partial(GatedPixelCNN, num_layers=3, **TINY),
    "row": functools.partial(PixelRNN, kind="row", num_layers=2, **TINY),
    "diagonal": functools.partial(PixelRNN, kind="diagonal", num_layers=2, **TINY),
}


def awake(model, scale=0.7):
    """Parameters none of which is zero."""
    source = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, KEY)
    return jax.tree.map(
        lambda p: jnp.asarray(
            scale * source.normal(size=p.shape) / max(p.shape[-2] if p.ndim > 1 else 1, 1) ** 0.5, p.dtype
        ),
        shapes,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_of_all_small_images_sum_to_one(name):
    model = autoregressive.build(NETWORKS[name](1), pixels.bernoulli(), (3, 3, 1))
    images = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=9))).reshape(-1, 3, 3, 1)
    p = np.exp(np.asarray(jax.jit(model.log_prob)(awake(model), images), float))
    assert abs(p.sum() - 1) < 1e-5 and p.max() / p.min() > 3


def jacobian(network, shape, params):
    """Whether output o of pixel i depends on number j of the image: [h w m, h w c]."""
    x = jax.random.uniform(KEY, (1, *shape), minval=-1)
    f = lambda x: network.apply({"params": params}, x)[0]
    derivative = jax.jit(jax.jacobian(f))(x)[..., 0, :, :, :]
    return np.abs(np.asarray(derivative))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("colours", [1, 3])
def test_no_output_sees_ahead(name, colours):
    shape = (5, 6, colours)
    network = NETWORKS[name](2 * colours, colours=colours)
    likelihood = pixels.discretized_logistic()
    model = autoregressive.build(network, likelihood, shape)
    sees = jacobian(network, shape, awake(model)) > 0
    n = 5 * 6
    for i, j in itertools.product(range(n), range(n)):
        block = sees[i // 6, i % 6][:, j // 6, j % 6]  # [m c]
        if j > i:
            assert not block.any()
        elif j == i:
            for o, colour in itertools.product(range(2 * colours), range(colours)):
                assert block[o, colour] == (colour < o % colours)
    first = sees[..., 0, :, :, 0].reshape(n, n)
    missing = [(i, j) for i in range(n) for j in range(i) if not first[i, j]]
    # Masked convolutions have a blind spot, and the Row LSTM sees a triangle. Diagonals miss the last pixel of the row
    # before, which only the first layer's cone reaches; not its first colours, which its own features hold.
    assert bool(missing) == (name in ("plain", "row") or (name == "diagonal" and colours == 1))
    if name == "diagonal":
        assert all(j % 6 == 5 and i // 6 == j // 6 + 1 and i % 6 < 2 for i, j in missing)


def naive(model, network, likelihood, params, keys, shape, labels=None):
    h, w, c = shape
    x = jnp.zeros((len(keys), *shape))
    whole = jax.jit(lambda x: network.apply({"params": params}, x, labels))
    for i, j, colour in itertools.product(range(h), range(w), range(c if network.colours > 1 else 1)):
        out = whole(x)[:, i : i + 1, j : j + 1]
        draw_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, (i * w + j) * c + colour)
        drawn = likelihood.sample(draw_keys, out)[:, 0, 0]
        x = x.at[:, i, j, colour].set(drawn[:, colour]) if network.colours > 1 else x.at[:, i, j].set(drawn)
    return x


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("channels", "likelihood"),
    [(1, pixels.bernoulli()), (3, pixels.categorical(5)), (3, pixels.mixture_of_logistics(2, 5))],
)
def test_the_cached_sampler_is_the_naive_one(name, channels, likelihood):
    shape = (5, 6, channels)
    more = {"num_classes": 3} if name == "gated" else {}
    more |= {"num_levels": 5} if likelihood.num_levels == 5 else {}
    network = NETWORKS[name](
        likelihood.num_outputs(channels), colours=1 if likelihood.joint else channels, channels=channels, **more
    )
    model = autoregressive.build(network, likelihood, shape)
    params, labels = awake(model, 2.0), jnp.array([0, 1, 2, 0]) if "num_classes" in more else None
    drawn = jax.jit(model.sample, static_argnums=2)(KEY, params, 4, labels)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(4))
    assert np.array_equal(drawn, naive(model, network, likelihood, params, keys, shape, labels))
    assert len(np.unique(drawn)) >= min(likelihood.num_levels, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pixel_leaves_outputs_at_and_before_it_bit_for_bit(name):
    network = NETWORKS[name](1)
    model = autoregressive.build(network, pixels.bernoulli(), (6, 7, 1))
    params = awake(model)
    outputs = jax.jit(lambda x: network.apply({"params": params}, x).reshape(-1))
    x = jnp.sign(jax.random.normal(KEY, (1, 6, 7, 1)))
    before = np.asarray(outputs(x))
    for j in range(42):
        after = np.asarray(outputs(x.at[0, j // 7, j % 7, 0].multiply(-1)))
        assert np.array_equal(after[: j + 1], before[: j + 1])
        assert j == 41 or not np.array_equal(after, before)


@pytest.mark.parametrize("name", NETWORKS)
def test_single_precision_is_enough(name):
    network = NETWORKS[name](1)
    model = autoregressive.build(network, pixels.bernoulli(), (8, 8, 1))
    params, x = awake(model), jnp.sign(jax.random.normal(KEY, (4, 8, 8, 1)))
    single = np.asarray(jax.jit(model.log_prob)(params, x))
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), tree)
        double = np.asarray(jax.jit(model.log_prob)(wide(params), wide(x)))
    assert double.dtype == np.float64 and np.abs(single - double).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_pixel_at_once_sums_to_one_too(channels):
    likelihood = pixels.mixture_of_logistics(2, 2)
    network = NETWORKS["gated"](likelihood.num_outputs(channels), channels=channels, num_levels=2)
    model = autoregressive.build(network, likelihood, (1, 3, channels))
    images = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=3 * channels))).reshape(-1, 1, 3, channels)
    p = np.exp(np.asarray(jax.jit(model.log_prob)(awake(model), images), float))
    assert abs(p.sum() - 1) < 1e-5 and p.max() / p.min() > 3


def test_cold_samples_are_more_typical():
    build = lambda t: autoregressive.build(NETWORKS["gated"](1), pixels.bernoulli(), (6, 6, 1), temperature=t)
    params = awake(build(1.0), 2.0)
    nats = {t: float(build(1.0).log_prob(params, build(t).sample(KEY, params, 200)).mean()) for t in (0.3, 1.0, 3.0)}
    assert nats[0.3] > nats[1.0] > nats[3.0]


def mixed(**more):
    return autoregressive.build(NETWORKS["gated"](20, **more), pixels.mixture_of_logistics(2), (4, 4, 3))


BINARY = autoregressive.build(NETWORKS["gated"](1), pixels.bernoulli(), (4, 4, 1))
CLASSES = autoregressive.build(NETWORKS["gated"](1, num_classes=3), pixels.bernoulli(), (4, 4, 1))
PARAMS, NONE = awake(BINARY), jnp.zeros((4, 4), bool)
ZEROS, TALL = jnp.zeros((2, 4, 4, 1)), jnp.ones((2, 5, 4, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BINARY.log_prob(PARAMS, ZEROS), "images: expected pixels at 2 levels .* 32 of 32 are elsewhere"),
        (lambda: BINARY.log_prob(PARAMS, TALL), r"expected the shape \(4, 4, 1\) .* \(5, 4, 1\)"),
        (lambda: BINARY.complete(KEY, PARAMS, TALL, NONE), r"expected the shape \(4, 4, 1\) .* \(5, 4, 1\)"),
        (lambda: BINARY.complete(KEY, PARAMS, ZEROS + 1, NONE[:3]), r"known: expected the shape \(4, 4\)"),
        (lambda: autoregressive.build(NETWORKS["gated"](2), pixels.bernoulli(), (4, 4, 1)), "expected 1 outputs a"),
        (lambda: BINARY.log_prob(PARAMS, jnp.zeros((0, 4, 4, 1))), "images: expected at least 1"),
        (lambda: BINARY.sample(KEY, PARAMS, 0), "num: expected at least 1, got 0"),
        (lambda: BINARY.log_prob(PARAMS, ZEROS.astype(jnp.uint8)), "got uint8; genjax.data.scale"),
        (lambda: BINARY.log_prob(PARAMS, ZEROS / 0), "images: expected finite numbers, got nan"),
        (lambda: BINARY.log_prob(PARAMS, ZEROS - 1, [0, 0]), "labels: expected none; got labels"),
        (lambda: CLASSES.log_prob(PARAMS, ZEROS - 1, [0, 3]), "labels: expected whole numbers from 0 to 2, got 3 at 1"),
        (lambda: CLASSES.sample(KEY, PARAMS, 2, [-1, 0]), "labels: expected whole numbers from 0 to 2, got -1 at 0"),
        (lambda: CLASSES.complete(KEY, PARAMS, ZEROS - 1, NONE, [3, 0]), "from 0 to 2, got 3 at 0"),
        (lambda: BINARY.complete(KEY, PARAMS, ZEROS - 1, NONE * 0.3), "known: expected truth values, got float32"),
        (lambda: autoregressive.build(NETWORKS["gated"](1), pixels.bernoulli(), (4, 4, 1), temperature=float("nan")),
         "temperature: expected a?.*positive"),
        (lambda: mixed(colours=3), "expected colours 1, as the likelihood gives a whole pixel; got 3"),
        (lambda: autoregressive.build(NETWORKS["gated"](1), pixels.bernoulli(), (4, 4, 1), temperature=0.0),
         "temperature: expected positive"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", NETWORKS)
def test_draws_are_as_frequent_as_they_are_probable(name):
    model = autoregressive.build(NETWORKS[name](1), pixels.bernoulli(), (2, 2, 1))
    params = awake(model)
    images = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(-1, 2, 2, 1)
    p = np.exp(np.asarray(model.log_prob(params, images), float))
    draws = np.asarray(jax.jit(model.sample, static_argnums=2)(KEY, params, 20_000)).reshape(-1, 4) > 0
    counts = np.bincount(draws @ [8, 4, 2, 1], minlength=16)
    assert scipy.stats.chisquare(counts, p / p.sum() * 20_000).pvalue > 1e-3


def test_an_image_is_completed_from_its_beginning():
    model = autoregressive.build(NETWORKS["gated"](1), pixels.bernoulli(), (4, 4, 1))
    params = awake(model)
    given = jnp.sign(jax.random.normal(KEY, (3, 4, 4, 1)))
    known = jnp.arange(16).reshape(4, 4) < 9
    done = jax.jit(model.complete)(KEY, params, given, known)
    assert np.array_equal(done[:, known], given[:, known]) and not np.array_equal(done, given)
    assert np.array_equal(model.complete(KEY, params, given, jnp.zeros((4, 4), bool)), model.sample(KEY, params, 3))
    with pytest.raises(ValueError, match=r"known: pixel \(2, 0\) is known after one that is not"):
        model.complete(KEY, params, given, jnp.arange(16).reshape(4, 4) >= 8)
