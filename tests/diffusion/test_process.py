"""Closed forms of the forward process: schedules, q(x_t|x_0), its posterior, predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genjax import diffusion

SCHEDULES = [diffusion.linear_schedule(1000), diffusion.linear_schedule(300), diffusion.cosine_schedule(100)]


@pytest.mark.parametrize("num_steps", [1, 2, 10, 1000, 100_000])
def test_tables_are_exact_in_float64_and_lose_half_an_ulp_in_float32(num_steps):
    schedule = diffusion.linear_schedule(num_steps, 1e-4, min(0.02, 20 / num_steps))
    exact = np.cumsum(np.log1p(-schedule.beta.astype(np.longdouble)))
    assert np.allclose(schedule.sqrt_one_minus_alpha_bar**2, -np.expm1(exact).astype(float), rtol=1e-11, atol=0)
    single = diffusion.at(schedule.sqrt_one_minus_alpha_bar, jnp.arange(num_steps), jnp.zeros(num_steps, jnp.float32))
    assert np.max(np.abs(np.asarray(single, float) / schedule.sqrt_one_minus_alpha_bar - 1)) <= 6.0e-8


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(1, 400), st.floats(1e-5, 0.3), st.floats(1e-5, 0.3))
def test_schedule_invariants(num_steps, a, b):
    schedule = diffusion.linear_schedule(num_steps, min(a, b), max(a, b))
    assert np.all(np.diff(schedule.alpha_bar) < 0) and 0 < schedule.alpha_bar[-1] and schedule.alpha_bar[0] < 1
    assert np.all(schedule.posterior_variance <= schedule.beta) and schedule.posterior_variance[0] == 0
    assert np.allclose(schedule.sqrt_alpha_bar**2 + schedule.sqrt_one_minus_alpha_bar**2, 1, rtol=1e-15)
    t = jnp.arange(num_steps)
    with jax.enable_x64(True):  # a noiseless path x_t = √ᾱ_t x_0 stays on itself: c_0 + c_t √ᾱ_t = √ᾱ_{t-1}
        back = diffusion.posterior(schedule, jnp.ones(num_steps), jnp.asarray(schedule.sqrt_alpha_bar), t).mean
        assert np.allclose(back, np.sqrt(schedule.alpha_bar_prev), rtol=1e-12)


def test_linear_schedule_is_that_of_ho():
    schedule = diffusion.linear_schedule(1000)
    assert schedule.alpha_bar[-1] == pytest.approx(4.035830e-05, rel=1e-6)  # Ho et al. 2020, §4: β from 1e-4 to 0.02
    assert diffusion.linear_schedule(300).alpha_bar[-1] == pytest.approx(0.048, abs=5e-4)


def test_cosine_schedule_equals_its_definition():
    f = lambda t: np.cos((t / 100 + 0.008) / 1.008 * np.pi / 2) ** 2  # Nichol & Dhariwal 2021, eq. 17
    schedule = diffusion.cosine_schedule(100)
    assert np.allclose(schedule.alpha_bar[:-1], [f(t + 1) / f(0) for t in range(99)], rtol=1e-12)
    assert schedule.beta[-1] == 0.999


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_chain_of_single_steps_has_the_moments_of_the_jump(schedule):
    with jax.enable_x64(True):
        t = jnp.arange(schedule.num_steps)
        one, zero = jnp.ones(schedule.num_steps), jnp.zeros(schedule.num_steps)
        keeps = np.asarray(diffusion.q_step(schedule, one, t, zero))
        adds = np.asarray(diffusion.q_step(schedule, zero, t, one)) ** 2
        mean, variance = 1.0, 0.0
        for i in range(schedule.num_steps):
            mean, variance = keeps[i] * mean, keeps[i] ** 2 * variance + adds[i]
            assert (
                abs(mean - schedule.sqrt_alpha_bar[i]) <= 1e-12
                and abs(variance - schedule.sqrt_one_minus_alpha_bar[i] ** 2) <= 1e-12
            )
        assert np.allclose(diffusion.diffuse(schedule, one, t, zero), schedule.sqrt_alpha_bar, atol=1e-15)
        assert np.allclose(diffusion.diffuse(schedule, zero, t, one), schedule.sqrt_one_minus_alpha_bar, atol=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_posterior_is_bayes_rule(schedule):
    """q(x_{t-1}|x_t, x_0) ∝ N(x_t; √(1-β) x_{t-1}, β) · N(x_{t-1}; √ᾱ_{t-1} x_0, 1-ᾱ_{t-1}): precisions add."""
    with jax.enable_x64(True):
        x0, x_t, t = 0.3, -1.2, np.arange(1, schedule.num_steps)
        beta, prior = schedule.beta[t], 1 - schedule.alpha_bar_prev[t]
        precision = (1 - beta) / beta + 1 / prior
        mean = (np.sqrt(1 - beta) * x_t / beta + np.sqrt(schedule.alpha_bar_prev[t]) * x0 / prior) / precision
        got = diffusion.posterior(schedule, jnp.full(t.shape, x0), jnp.full(t.shape, x_t), jnp.asarray(t))
        assert np.max(np.abs(got.mean - mean)) <= 1e-12 and np.max(np.abs(got.variance - 1 / precision)) <= 1e-12
        last = diffusion.posterior(schedule, jnp.array([x0]), jnp.array([x_t]), 0)
        assert last.variance == 0 and abs(last.mean[0] - x0) <= 1e-12


def test_noise_x0_v_and_score_tell_the_same():
    with jax.enable_x64(True):
        schedule = diffusion.linear_schedule(1000)
        keys = jax.random.split(jax.random.key(0), 3)
        x0, noise = (jax.random.normal(k, (64, 2, 2, 1)) for k in keys[:2])
        t = jax.random.randint(keys[2], (64,), 0, 600)
        x_t = diffusion.diffuse(schedule, x0, t, noise)
        target = diffusion.Prediction(x0, noise)
        readings = [
            diffusion.from_noise(schedule, noise, x_t, t),
            diffusion.from_x0(schedule, x0, x_t, t),
            diffusion.from_v(schedule, diffusion.to_v(schedule, target, t), x_t, t),
            diffusion.from_score(schedule, diffusion.to_score(schedule, target, t), x_t, t),
        ]
        for reading in readings:
            assert np.allclose(reading.x0, x0, atol=1e-10) and np.allclose(reading.noise, noise, atol=1e-10)


def test_v_is_the_velocity_along_the_circle():
    """x = cos φ x_0 + sin φ ε has dx/dφ = cos φ ε - sin φ x_0 (Salimans & Ho 2022, §4)."""
    with jax.enable_x64(True):
        schedule = diffusion.linear_schedule(50)
        x0, noise, t = jnp.array([0.7]), jnp.array([-0.4]), jnp.array([31])
        angle = jnp.arctan2(schedule.sqrt_one_minus_alpha_bar[31], schedule.sqrt_alpha_bar[31])
        _, velocity = jax.jvp(lambda a: jnp.cos(a) * x0 + jnp.sin(a) * noise, (angle,), (jnp.ones_like(angle),))
        assert np.allclose(diffusion.to_v(schedule, diffusion.Prediction(x0, noise), t), velocity, atol=1e-14)


def test_dtype_follows_the_input_and_a_time_that_is_none_is_nan_under_jit():
    schedule = diffusion.linear_schedule(10)
    images = jnp.ones((4, 2, 2, 1), jnp.bfloat16)
    t = jnp.array([0, 9, 10, -1])
    x_t = jax.jit(lambda t: diffusion.diffuse(schedule, images, t, images))(t)
    assert x_t.dtype == jnp.bfloat16
    assert np.isnan(np.asarray(x_t, np.float32)).any(axis=(1, 2, 3)).tolist() == [False, False, True, True]
    for wrong in (t, -1, 10, jnp.array([0.0]), True):
        with pytest.raises(ValueError, match="t: expected whole numbers from 0 to 9"):
            diffusion.diffuse(schedule, images, wrong, images)


def test_a_traced_schedule_is_differentiable():
    def spread(beta):
        alpha_bar = jnp.cumprod(1 - beta)
        schedule = diffusion.Schedule(beta, alpha_bar, jnp.concatenate([jnp.ones(1), alpha_bar[:-1]]))
        return diffusion.diffuse(schedule, jnp.ones((1, 1)), jnp.array([4]), jnp.zeros((1, 1))).sum()

    gradient = jax.jit(jax.grad(spread))(jnp.full(10, 0.1))
    assert np.all(gradient[:5] < 0) and np.all(gradient[5:] == 0)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: diffusion.linear_schedule(0), "num_steps"),
        (lambda: diffusion.linear_schedule(10, 0.0, 0.02), "first"),
        (lambda: diffusion.linear_schedule(10, 0.02, 1e-4), "first"),
        (lambda: diffusion.linear_schedule(10, 1e-4, 1.0), "last"),
        (lambda: diffusion.cosine_schedule(-1), "num_steps"),
        (lambda: diffusion.cosine_schedule(10, max_beta=1.0), "max_beta"),
        (lambda: diffusion.from_beta(np.array([0.1, np.nan])), "beta"),
    ],
)
def test_impossible_schedules_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
