"""Distributions of pixels: they sum to one, stay right at the extremes, and draw what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from genjax.theory import pixels

LEVELS = np.linspace(-1, 1, 256)


def one(x):
    return jnp.asarray(x, jnp.float32).reshape(-1, 1, 1, 1)


def outputs(mean, log_scale, num):
    return jnp.broadcast_to(jnp.array([mean, log_scale], jnp.float32), (num, 1, 1, 2))


@pytest.mark.parametrize("mean", [-1.5, -1.0, -0.3, 0.0, 0.999, 1.0, 3.0])
@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -2.0, 0.0, 3.0])
def test_the_discretised_logistic_is_right_to_the_far_tail_and_sums_to_one(mean, log_scale):
    log_prob = pixels.discretized_logistic().log_prob(outputs(mean, log_scale, 256), one(LEVELS))
    assert abs(np.exp(np.asarray(log_prob, float)).sum() - 1) < 1e-5 and np.isfinite(log_prob).all()
    half, scale = 1 / 255, np.exp(np.float64(np.float32(log_scale)))
    law = scipy.stats.logistic(np.float64(np.float32(mean)), scale)
    # the mass of a bin as a difference on the side where it does not cancel
    low, high = LEVELS - half, LEVELS + half
    below = np.where(LEVELS < law.mean(), law.cdf(high) - law.cdf(low), law.sf(low) - law.sf(high))
    mass = np.where(LEVELS == -1, law.cdf(high), np.where(LEVELS == 1, law.sf(low), below))
    far = mass > 1e-30
    # float32 places the levels to 6e-8, which scales of e^-9 magnify
    assert np.allclose(np.asarray(log_prob)[far], np.log(mass[far]), atol=2e-3 if log_scale < -6 else 1e-3, rtol=1e-4)


@pytest.mark.parametrize("likelihood", [pixels.discretized_logistic(17), pixels.mixture_of_logistics(1, 17)])
def test_pixels_that_were_bytes_are_of_the_levels_they_stand_for(likelihood):
    """Or their bins would overlap: seventeen levels do not fall on bytes."""
    levels = np.linspace(-1, 1, 17)
    as_bytes = np.rint((levels + 1) / 2 * 255) / 127.5 - 1
    assert np.abs(as_bytes - levels).max() > 1e-3
    out = jax.random.normal(jax.random.key(0), (1, 1, 1, likelihood.num_outputs(1)))
    rows = jnp.broadcast_to(out, (17, *out.shape[1:]))
    exact, from_bytes = (np.asarray(likelihood.log_prob(rows, one(x)), float) for x in (levels, as_bytes))
    assert np.allclose(from_bytes, exact, atol=1e-5) and abs(np.exp(from_bytes).sum() - 1) < 1e-5


def test_every_gradient_is_finite():
    for likelihood, size in ((pixels.discretized_logistic(), 2), (pixels.bernoulli(), 1), (pixels.gaussian(0.1), 1)):
        for scale in (1e-3, 1.0, 30.0):
            out = scale * jax.random.normal(jax.random.key(0), (64, 1, 1, size))
            x = one(np.random.default_rng(0).choice(LEVELS[[0, 7, 255]], 64))
            slope = jax.grad(lambda out, x=x, f=likelihood: f.log_prob(out, x).sum())(out)
            assert np.isfinite(slope).all()


@pytest.mark.parametrize("num_levels", [2, 5, 256])
def test_draws_of_the_logistic_follow_its_probabilities(num_levels):
    likelihood = pixels.discretized_logistic(num_levels)
    draws = np.asarray(likelihood.sample(jax.random.key(0), outputs(0.7, -1.0, 20_000)), float).reshape(-1)
    levels = np.linspace(-1, 1, num_levels)
    assert np.abs(draws[:, None] - levels).min(1).max() < 1e-6
    counts = np.bincount(np.abs(draws[:, None] - levels).argmin(1), minlength=num_levels)
    p = np.exp(np.asarray(likelihood.log_prob(outputs(0.7, -1.0, num_levels), one(levels)), float))
    enough = p * 20_000 > 5
    assert scipy.stats.chisquare(counts[enough], p[enough] / p[enough].sum() * counts[enough].sum()).pvalue > 1e-3


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.001, 1.0])
@pytest.mark.parametrize("log_scale", [-12.0, -7.0, 0.0, 4.0])
def test_the_mass_of_a_mixture_is_one_at_the_extremes(mean, log_scale):
    likelihood = pixels.mixture_of_logistics(3)
    with jax.enable_x64(True):
        each = [0.3, -2.0, 40.0], [mean, -mean, 0.5], [log_scale, -log_scale, -9.0]
        out = jnp.broadcast_to(jnp.asarray(each, jnp.float64).reshape(-1), (256, 1, 1, 9))
        p = np.exp(np.asarray(likelihood.log_prob(out, jnp.asarray(LEVELS).reshape(-1, 1, 1, 1))))
    assert p.dtype == np.float64 and abs(p.sum() - 1) < 1e-6


def colours(num, seed=0):
    """Outputs of two components for three channels, the same for ``num`` images; and all the colours there are."""
    out = jax.random.normal(jax.random.key(seed), (20,))
    every = np.stack(np.meshgrid(*[np.linspace(-1, 1, 4)] * 3, indexing="ij"), -1).reshape(-1, 1, 1, 3)
    return jnp.broadcast_to(out, (num, 1, 1, 20)), jnp.asarray(every, jnp.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_mixture_over_all_colours_sums_to_one_and_its_draws_follow_it(seed):
    likelihood = pixels.mixture_of_logistics(2, 4)
    out, every = colours(64, seed)
    p = np.exp(np.asarray(likelihood.log_prob(out, every), float))
    assert abs(p.sum() - 1) < 1e-5
    draws = np.asarray(likelihood.sample(jax.random.key(1), colours(20_000, seed)[0]), float).reshape(-1, 3)
    counts = np.bincount(np.rint((draws + 1) / 2 * 3).astype(int) @ [16, 4, 1], minlength=64)
    enough = p * 20_000 > 5
    assert scipy.stats.chisquare(counts[enough], p[enough] / p[enough].sum() * counts[enough].sum()).pvalue > 1e-3
    joint = p.reshape(4, 4, 4).sum(2)
    assert np.abs(joint - np.outer(joint.sum(1), joint.sum(0))).max() > 1e-3  # channels do depend on each other


def test_a_mixture_is_that_of_the_paper_written_out():
    """Salimans et al. 2017, eq. 2 and 3: by loops, with the logistic of scipy."""
    likelihood = pixels.mixture_of_logistics(2, 4)
    out, every = colours(64)
    o, half = np.asarray(out[0, 0, 0], float), 1 / 3
    pi, mean, scale, a = np.exp(o[:2]) / np.exp(o[:2]).sum(), o[2:8], np.exp(o[8:14]), np.tanh(o[14:20])
    for x, log_p in zip(np.asarray(every, float)[:, 0, 0], likelihood.log_prob(out, every), strict=True):
        total = 0.0
        for k in range(2):
            centre = [mean[k], mean[2 + k] + a[k] * x[0], mean[4 + k] + a[2 + k] * x[0] + a[4 + k] * x[1]]
            laws = [
                scipy.stats.logistic(m, s) for m, s in zip(centre, (scale[k], scale[2 + k], scale[4 + k]), strict=True)
            ]
            upper = [law.cdf(v + half) if v < 0.99 else 1.0 for law, v in zip(laws, x, strict=True)]
            lower = [law.cdf(v - half) if v > -0.99 else 0.0 for law, v in zip(laws, x, strict=True)]
            total += pi[k] * np.prod(np.subtract(upper, lower))
        assert np.isclose(log_p, np.log(total), atol=1e-4)


def test_levels_go_there_and_back_and_others_are_refused():
    for num_levels in (2, 17, 256, 512):
        level = jnp.arange(num_levels)
        assert np.array_equal(pixels.to_level(pixels.from_level(level, num_levels), num_levels), level)
        pixels.check_levels(pixels.from_level(level, num_levels).reshape(-1, 1, 1, 1), num_levels)
    with pytest.raises(ValueError, match="expected pixels at 17 levels .* 238 of 256 are elsewhere"):
        pixels.check_levels(one(LEVELS), 17)


def test_bernoulli_is_that_of_scipy_and_its_draws_are_black_and_white():
    logits = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
    x = jnp.sign(jax.random.normal(jax.random.key(2), logits.shape))
    likelihood = pixels.bernoulli()
    p = 1 / (1 + np.exp(-np.asarray(logits, float)))
    reference = scipy.stats.bernoulli.logpmf((np.asarray(x) > 0), p).sum((1, 2, 3))
    assert np.allclose(likelihood.log_prob(logits, x), reference, rtol=1e-5)
    assert np.allclose(likelihood.mean(logits), 2 * p - 1, atol=1e-6)
    draws = jax.vmap(lambda key: likelihood.sample(key, logits))(jax.random.split(jax.random.key(3), 4000))
    assert set(np.unique(draws)) == {-1.0, 1.0} and np.abs(draws.mean(0) - (2 * p - 1)).max() < 0.08


def test_squared_error_is_a_gaussian_likelihood():
    mean, x = (jax.random.uniform(jax.random.key(i), (2, 3, 3, 1), minval=-1) for i in range(2))
    mse = np.mean((np.asarray(mean) - np.asarray(x)) ** 2, (1, 2, 3))
    for std in (0.1, 1.0):
        nats = 9 * (mse / (2 * std**2) + np.log(std) + 0.5 * np.log(2 * np.pi))
        assert np.allclose(-pixels.gaussian(std).log_prob(mean, x), nats, rtol=1e-5)


def test_image_i_is_drawn_from_its_own_key():
    out = jax.random.normal(jax.random.key(0), (5, 2, 2, 2))
    for likelihood, m in ((pixels.bernoulli(), 1), (pixels.gaussian(0.5), 1), (pixels.discretized_logistic(), 2)):
        whole = likelihood.sample(jax.random.key(7), out[..., :m])
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(jnp.arange(5))
        assert np.array_equal(whole[3:], likelihood.sample(keys[3:], out[3:, ..., :m]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pixels.bernoulli().log_prob(one([0.0]), one([255.0])), r"pixels in \[-1, 1\], got 0 to 255"),
        (lambda: pixels.gaussian(0.0), "std: expected a positive"),
        (lambda: pixels.mixture_of_logistics(0), "num_components: expected at least 1, got 0"),
        (lambda: pixels.discretized_logistic(1), "num_levels: expected at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


LAWS = [pixels.bernoulli(), pixels.categorical(5), pixels.discretized_logistic(17), pixels.mixture_of_logistics(3, 17)]


@pytest.mark.parametrize("likelihood", LAWS)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_mean_is_that_over_the_levels_and_temperature_is_a_power(likelihood, scale):
    """Of one channel; logistics, whose scales are tempered, draw their likeliest levels towards 0 as all do."""
    k = likelihood.num_levels
    out = scale * jax.random.normal(jax.random.key(1), (1, 1, 1, likelihood.num_outputs(1)))
    levels = np.linspace(-1, 1, k)
    of = lambda out: jnp.broadcast_to(out, (k, *out.shape[1:]))
    nats = np.asarray(likelihood.log_prob(of(out), one(levels)), float)
    assert np.isclose(likelihood.mean(out).item(), np.exp(nats) @ levels, atol=1e-6)
    for temperature in (1e-38, 1e-3, 0.5, 3.0):
        cold = likelihood.temper(out, temperature)
        p = np.exp(np.asarray(likelihood.log_prob(of(cold), one(levels)), float))
        assert abs(p.sum() - 1) < 1e-5 and np.isfinite(likelihood.sample(jax.random.key(0), cold)).all()
        if likelihood.num_outputs(1) in (1, k):
            power = np.exp((nats - nats.max()) / temperature)
            assert np.allclose(p, power / power.sum(), atol=1e-5)


def test_the_mean_of_a_logistic_cut_off_at_white():
    assert np.isclose(pixels.discretized_logistic(17).mean(outputs(0.9, 0.0, 1)).item(), 0.395079, atol=1e-6)


def test_the_temperature_of_a_gaussian_acts_on_its_deviation():
    """N(μ, σ²)^(1/T) is N(μ, T σ²) up to its constant."""
    likelihood, mean = pixels.gaussian(0.1), jnp.zeros((20_000, 1, 1, 1))
    cold = likelihood.temper(mean, 0.01)
    draws = np.asarray(likelihood.sample(jax.random.key(0), cold), float)
    assert abs(draws.std() / 0.01 - 1) < 4 / np.sqrt(2 * 20_000)
    assert np.array_equal(likelihood.mean(cold), mean)
    exact = scipy.stats.norm(0, 0.01).logpdf(0.02)
    assert np.isclose(likelihood.log_prob(cold, mean + 0.02)[0], exact, rtol=1e-5)


@pytest.mark.parametrize("likelihood", [*LAWS, pixels.gaussian(0.1)])
def test_odd_images_and_temperatures_are_refused(likelihood):
    out = jnp.zeros((1, 1, 1, likelihood.num_outputs(1)))
    for images in (np.zeros((1, 1, 1, 1), np.uint8), np.full((1, 1, 1, 1), np.nan), np.zeros((1, 1, 1, 2), np.float32)):
        with pytest.raises(ValueError, match="images: expected"):
            likelihood.log_prob(out, images)
    for temperature in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="temperature: expected positive"):
            likelihood.temper(out, temperature)


def test_numbers_that_are_no_levels_are_refused():
    for images in (np.full((1, 1, 1, 1), np.nan), np.full((1, 1, 1, 1), 3.0)):
        with pytest.raises(ValueError, match="1 of 1 are elsewhere"):
            pixels.check_levels(images, 17)
    with pytest.raises(ValueError, match="images: expected floating-point numbers, got uint8"):
        pixels.to_level(np.array([255], np.uint8), 256)
    with pytest.raises(ValueError, match="level: expected whole numbers from 0 to 3, got 4"):
        pixels.from_level(np.array([4]), 4)
