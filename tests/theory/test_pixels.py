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
    seen = np.bincount(np.abs(draws[:, None] - levels).argmin(1), minlength=num_levels)
    p = np.exp(np.asarray(likelihood.log_prob(outputs(0.7, -1.0, num_levels), one(levels)), float))
    enough = p * 20_000 > 5
    assert scipy.stats.chisquare(seen[enough], p[enough] / p[enough].sum() * seen[enough].sum()).pvalue > 1e-3


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
        (lambda: pixels.discretized_logistic(1), "num_levels: expected at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
