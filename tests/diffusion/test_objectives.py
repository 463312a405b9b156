"""Objectives: one error in three units, the bound as a mean over times, and EDM's unit loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genjax import diffusion, random
from genjax.diffusion import edm, likelihood
from genjax.models import ddpm
from genjax.models import edm as edm_model

KEY = jax.random.key(0)
SCHEDULE = diffusion.linear_schedule(100, 1e-3, 0.2)
T = jnp.array([0, 1, 40, 99])
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def pair(seed=1):
    """A truth, and a guess of the same x_t."""
    images, noise, wrong = (jnp.asarray(np.random.default_rng(seed).normal(size=(4, 2, 2, 1))) for _ in range(3))
    wrong = noise + 0.3 * jnp.asarray(np.random.default_rng(seed + 9).normal(size=(4, 2, 2, 1)))
    x_t = diffusion.diffuse(SCHEDULE, images, T, noise)
    return diffusion.Prediction(images, noise), diffusion.from_noise(SCHEDULE, wrong, x_t, T), x_t


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_counts_the_error_of_the_image_alike_in_every_unit(gamma):
    truth, prediction, x_t = pair()
    error = ((truth.x0 - prediction.x0) ** 2).mean((1, 2, 3))
    expected = np.minimum(SCHEDULE.snr[np.asarray(T)], gamma) * error
    for target in ("noise", "x0", "v"):
        weights = diffusion.min_snr(SCHEDULE, target, gamma)
        assert np.allclose(diffusion.simple(ddpm.l2, target, weights)(SCHEDULE, prediction, truth, x_t, T), expected)
    unweighted = diffusion.simple(ddpm.l2, "v")(SCHEDULE, prediction, truth, x_t, T)
    assert np.allclose(unweighted, (SCHEDULE.snr[np.asarray(T)] + 1) * error)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    st.sampled_from(["noise", "x0", "v", "score"]), st.sampled_from(["noise", "x0", "v", "score"]), st.integers(0, 99)
)
def test_what_is_predicted_can_be_read_as_anything_else(first, second, t):
    read = {
        "noise": diffusion.from_noise,
        "x0": diffusion.from_x0,
        "v": diffusion.from_v,
        "score": diffusion.from_score,
    }
    tell = {
        "noise": lambda p, t: p.noise,
        "x0": lambda p, t: p.x0,
        "v": lambda p, t: diffusion.to_v(SCHEDULE, p, t),
        "score": lambda p, t: diffusion.to_score(SCHEDULE, p, t),
    }
    truth, _, _ = pair(t)
    times = jnp.full(4, t)
    x_t = diffusion.diffuse(SCHEDULE, truth.x0, times, truth.noise)
    once = read[first](SCHEDULE, tell[first](truth, times), x_t, times)
    twice = read[second](SCHEDULE, tell[second](once, times), x_t, times)
    assert np.allclose(twice.x0, truth.x0, atol=1e-9) and np.allclose(twice.noise, truth.noise, atol=1e-9)


def test_the_bound_is_the_mean_of_its_objective_over_times():
    schedule = diffusion.linear_schedule(12, 0.01, 0.4)
    images = jnp.round(jax.random.uniform(KEY, (1, 2, 2, 1)) * 255) / 127.5 - 1
    denoise = lambda x, t: 0.3 * x
    result = likelihood.vlb(denoise, schedule, KEY, images, variance="large", clip=False)
    keys = jax.vmap(lambda t: jax.random.fold_in(jax.random.fold_in(KEY, 0), t))(jnp.arange(12))
    noise, many = random.normal(keys, (2, 2, 1), images.dtype), jnp.repeat(images, 12, 0)
    t = jnp.arange(12)
    x_t = diffusion.diffuse(schedule, many, t, noise)
    prediction = diffusion.from_noise(schedule, denoise(x_t, t), x_t, t)
    nats = diffusion.vlb("large")(schedule, prediction, diffusion.Prediction(many, noise), x_t, t)
    assert np.isclose(4 * nats.mean(), result.steps.sum())


def test_the_hybrid_objective_teaches_the_mean_by_the_simple_part_and_the_variance_by_the_bound():
    truth, prediction, x_t = pair()
    objective = diffusion.hybrid(diffusion.simple(ddpm.l2))

    def loss(noise, fraction, objective):
        described = diffusion.from_noise(SCHEDULE, noise, x_t, T)._replace(variance_interpolation=fraction)
        return objective(SCHEDULE, described, truth, x_t, T).sum()

    fraction = jnp.full(truth.x0.shape, 0.4)
    both = jax.grad(loss, (0, 1))(prediction.noise, fraction, objective)
    mean = jax.grad(loss)(prediction.noise, fraction, diffusion.simple(ddpm.l2))
    bound = jax.grad(loss, 1)(prediction.noise, fraction, diffusion.vlb())
    assert np.allclose(both[0], mean) and np.allclose(both[1], 1e-3 * bound) and np.abs(bound[2]).max() > 0


def test_learned_variances_lie_between_the_two():
    half = diffusion.with_learned_variance(diffusion.from_noise)
    output = jnp.concatenate(
        [jnp.zeros((4, 2, 2, 1)), jnp.broadcast_to(jnp.array([-1.0, 1, 0, 0])[:, None, None, None], (4, 2, 2, 1))], -1
    )
    prediction = half(SCHEDULE, output, jnp.ones((4, 2, 2, 1)), jnp.full(4, 50))
    log_variance = diffusion.process.log_variance(SCHEDULE, prediction.variance_interpolation, jnp.full(4, 50))[
        :, 0, 0, 0
    ]
    small, large = np.log(SCHEDULE.posterior_variance[50]), np.log(SCHEDULE.beta[50])
    assert np.allclose(log_variance, [small, large, (small + large) / 2, (small + large) / 2])
    x = jnp.asarray(RNG.normal(size=(3, 2, 2, 1)))
    fixed = lambda f: (
        lambda x, t: diffusion.from_noise(SCHEDULE, 0.5 * x, x, t)._replace(variance_interpolation=jnp.full(x.shape, f))
    )
    for fraction, name in ((0.0, "small"), (1.0, "large")):
        learned = diffusion.ancestral(fixed(fraction), SCHEDULE)(KEY, x)
        assert np.allclose(learned, diffusion.ancestral(lambda x, t: 0.5 * x, SCHEDULE, variance=name)(KEY, x))


def test_nothing_of_the_image_is_left_at_a_zero_terminal():
    schedule = diffusion.rescale_zero_terminal_snr(SCHEDULE)
    assert schedule.alpha_bar[-1] == 0 and np.isclose(schedule.alpha_bar[0], SCHEDULE.alpha_bar[0])
    assert np.all(np.diff(schedule.alpha_bar) < 0) and np.isclose(schedule.beta[-1], 1)
    denoise = lambda x, t: diffusion.from_v(schedule, -0.7 * x, x, t)  # at the end x_0 = -v
    drawn = diffusion.ancestral(denoise, schedule)(KEY, jnp.ones((2, 3)))
    assert np.isfinite(drawn).all()
    assert np.isfinite(diffusion.ddim(denoise, schedule, num_steps=7)(KEY, jnp.ones((2, 3)))).all()


def test_the_sigmoid_schedule_is_the_papers():
    schedule = diffusion.sigmoid_schedule(50)
    value = 1 / (1 + np.exp(-np.linspace(-3, 3, 51)))
    assert np.allclose(schedule.alpha_bar[:-1], ((value[-1] - value) / (value[-1] - value[0]))[1:-1])
    assert schedule.beta[-1] == 0.999


def test_edms_loss_of_a_network_that_says_nothing_is_one_for_gaussian_data():
    """Then D = c_skip x is the best there is, and λ σ² s²/(σ² + s²) = 1."""
    images = 0.5 * jax.random.normal(jax.random.key(1), (4000, 2, 2, 1))
    nothing = lambda x, c: jnp.zeros_like(x)
    result = edm_model.losses(nothing, random.example_keys(KEY, 4000), images)
    assert abs(result.mean() - 1) < 4 * result.std() / np.sqrt(4000)
    worse = edm_model.losses(lambda x, c: 0.2 * x, random.example_keys(KEY, 4000), images)
    assert worse.mean() > result.mean() + 0.02
    drawn = diffusion.heun(edm.precondition(nothing, 0.5), diffusion.karras(60), clip=False)(
        KEY, 80 * images[:500] / 0.5
    )
    assert np.isclose(np.std(drawn), 0.5 * np.std(images[:500]) / 0.5, rtol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diffusion.min_snr(SCHEDULE, "noise", 0.0), "gamma: expected a positive ratio"),
        (lambda: diffusion.rescale_zero_terminal_snr(diffusion.linear_schedule(1)), "expected at least 2 steps"),
        (lambda: diffusion.sigmoid_schedule(10, 3.0, -3.0), "expected start < end"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
