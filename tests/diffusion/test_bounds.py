"""Likelihoods of diffusion against the entropy of the data, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import diffusion, random
from genjax.diffusion import likelihood

MEAN, STD = 0.4, 0.5
SCHEDULE = diffusion.linear_schedule(1000)
ENTROPY = 0.5 * np.log(2 * np.pi * np.e * STD**2)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def exact(schedule):
    """E[ε|x_t] of data N(0.4, 0.5²)."""

    def denoise(x, t):
        signal, noise = (
            diffusion.at(schedule.sqrt_alpha_bar, t, x),
            diffusion.at(schedule.sqrt_one_minus_alpha_bar, t, x),
        )
        return noise * (x - signal * MEAN) / (signal**2 * STD**2 + noise**2)

    return denoise


def squared_errors(schedule):
    """E(x_0 - E[x_0|x_t])²."""
    return STD**2 * (1 - schedule.alpha_bar) / (schedule.alpha_bar * STD**2 + 1 - schedule.alpha_bar)


def best(schedule):
    noise_squared = 1 - schedule.alpha_bar * STD**2 / (schedule.alpha_bar * STD**2 + 1 - schedule.alpha_bar)
    return likelihood.optimal_variance(schedule, noise_squared)


def expected_terms(schedule, variance, denoise=None):
    """E of every term over x_0 and ε, by quadrature that is exact for squares."""
    grid = np.array(list(itertools.product(NODES, NODES)))
    weight = np.array([a * b for a, b in itertools.product(WEIGHTS, WEIGHTS)]) / (2 * np.pi)
    x0, noise = jnp.asarray(MEAN + STD * grid[:, :1]), jnp.asarray(grid[:, 1:])
    guess_noise = denoise or exact(schedule)

    def one(t):
        times = jnp.broadcast_to(t, (25,))
        x_t = diffusion.diffuse(schedule, x0, times, noise)
        prediction = diffusion.from_noise(schedule, guess_noise(x_t, times), x_t, times)
        nats = likelihood.vlb_term(schedule, prediction, x0, x_t, times, variance=variance, num_levels=0)
        return jnp.sum(weight * nats)

    prior = float(jnp.sum(weight * likelihood.prior(schedule, x0)))
    return prior, np.asarray(jax.jit(lambda: jax.lax.map(one, jnp.arange(schedule.num_steps)))())


def test_the_bound_of_the_best_denoiser_is_the_entropy_and_what_the_prior_misses():
    prior, steps = expected_terms(SCHEDULE, best(SCHEDULE))
    last = SCHEDULE.alpha_bar[-1]
    total = last * STD**2 + 1 - last
    missed = 0.5 * (total + last * MEAN**2 - 1 - np.log(total))
    assert np.isclose(missed, 3.22889e-6, rtol=1e-5)
    assert abs(prior + steps.sum() - ENTROPY - missed) < 2e-11
    assert np.isclose(ENTROPY, 0.725791352645, atol=1e-12)


@pytest.mark.parametrize(("scale", "denoise"), [
    (1.1, exact(SCHEDULE)),
    (1, lambda x, t: exact(SCHEDULE)(x, jnp.minimum(t + 1, 999))),
    (1, lambda x, t: 1.01 * exact(SCHEDULE)(x, t)),
])  # fmt: skip
def test_anything_else_costs_more(scale, denoise):
    prior, steps = expected_terms(SCHEDULE, scale * best(SCHEDULE), denoise)
    assert prior + steps.sum() > ENTROPY + 1e-5


def by_log_snr(values):
    alpha_bar = 1 / (1 + np.exp(-values))
    return diffusion.from_beta(1 - alpha_bar / np.concatenate([[1], alpha_bar[:-1]]))


@pytest.mark.parametrize("path", [lambda u: u, lambda u: u**2, lambda u: np.sin(np.pi * u / 2)])
def test_the_bound_of_fine_steps_depends_on_the_ends_of_the_schedule_only(path):
    """½ ∫ mmse dSNR = ½ log((1 + SNR_0 s²) / (1 + SNR_T s²)) (Guo et al. 2005; Kingma et al. 2021, eq. 18)."""
    schedule = by_log_snr(9 - 17 * path(np.linspace(0, 1, 3001)[1:]))
    _, steps = expected_terms(schedule, "small")
    ends = np.log1p(schedule.snr[[0, -1]] * STD**2)
    assert np.isclose(steps[1:].sum(), 0.5 * (ends[0] - ends[1]), rtol=6e-3)
    prices = 0.5 * -np.diff(schedule.snr) * squared_errors(schedule)[1:]
    assert np.allclose(steps[1:], prices, rtol=1e-6)  # (SNR_s - SNR_t) is c_0²/β̃


@pytest.mark.parametrize(("snr", "nats"), [(1, 0.111571775657), (10, 0.626381484248)])
def test_the_steps_cost_what_the_noisy_image_tells(snr, nats):
    """½ ∫_0^snr mmse = ½ log(1 + snr s²) = I(x_0; x_t) (Guo et al. 2005, eq. 3), from where next to nothing is told."""
    schedule = by_log_snr(np.linspace(np.log(snr), -14, 4000))
    _, steps = expected_terms(schedule, "small")
    assert np.isclose(steps[1:].sum(), nats, rtol=3e-3)


def test_the_bound_of_images_is_the_sum_of_its_terms_and_each_image_its_own():
    schedule, images = diffusion.linear_schedule(20), jnp.round(jax.random.uniform(KEY, (4, 2, 2, 1)) * 255) / 127.5 - 1
    run = jax.jit(lambda key, images: likelihood.vlb(exact(schedule), schedule, key, images))
    result = run(KEY, images)
    assert result.steps.shape == result.squared_error.shape == (4, 20) and result.steps.min() > 0
    part = likelihood.vlb(exact(schedule), schedule, random.example_keys(KEY, 2, 1), images[1:3])
    assert np.allclose(part.total, result.total[1:3], rtol=1e-12)
    prices = 0.5 * -np.diff(schedule.snr) * result.squared_error[:, 1:]
    assert np.allclose(result.steps[:, 1:], prices, rtol=1e-6)
    scans = str(jax.make_jaxpr(lambda: likelihood.vlb(exact(schedule), schedule, KEY, images))()).count(" scan[")
    assert scans == 1


@pytest.mark.parametrize("far", [5.0, -5.0])
def test_the_bound_clips_where_samplers_do(far):
    schedule, images = diffusion.linear_schedule(5), jnp.round(jax.random.uniform(KEY, (2, 2, 2, 1)) * 255) / 127.5 - 1
    scaled = lambda x, t: diffusion.from_x0(schedule, jnp.full_like(x, far), x, t)
    for clip, x0 in ((True, np.sign(far)), (False, far)):
        result = likelihood.vlb(scaled, schedule, KEY, images, clip=clip).squared_error
        assert np.allclose(result, jnp.sum((images - x0) ** 2, (1, 2, 3))[:, None], rtol=1e-12)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.97, 0.01), (-1.4, 0.002), (0.5, 1e-4), (0.2, 20.0)])
def test_the_decoder_has_mass_one_and_right_tails(mean, std):
    levels = jnp.linspace(-1, 1, 256)
    log_p = likelihood.log_decoder(levels, jnp.full(256, mean), jnp.full(256, np.log(std)), 256)
    assert np.isclose(np.exp(log_p).sum(), 1, atol=1e-9)
    low, high = (np.asarray(levels) + side / 255 for side in (-1, 1))
    low[0], high[-1] = -np.inf, np.inf
    a, b = (low - mean) / std, (high - mean) / std
    mirrored = a > 0
    a, b = np.where(mirrored, -b, a), np.where(mirrored, -a, b)
    top, bottom = stats.norm.logcdf(b), stats.norm.logcdf(a)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.log(stats.norm.cdf(b) - stats.norm.cdf(a))
    expected = np.where(a * b < 0, inner, top + np.log1p(-np.exp(bottom - top)))
    sure = (expected > -1e4) & (expected < -1e-8)
    assert np.allclose(log_p[sure], expected[sure], rtol=1e-6) and np.isfinite(log_p).all()
    single = likelihood.log_decoder(
        levels.astype(jnp.float32), jnp.full(256, mean, jnp.float32), jnp.full(256, np.log(std), jnp.float32), 256
    )
    near = expected > -20
    assert np.abs(np.asarray(single, float) - expected)[near].max(initial=0) < 1e-2
    slope = jax.grad(lambda m: likelihood.log_decoder(levels, m, jnp.log(jnp.full(256, std)), 256).sum())
    assert np.isfinite(slope(jnp.full(256, mean))).all()


def test_the_flow_gives_the_density_of_gaussian_data():
    """Its error falls with the square of the steps; what N(0, 1) for q(x_T) changes is known, as the flow is affine."""
    x, errors = np.array([[[[-0.5], [0.1]]], [[[0.9], [1.7]]]]), []
    for num_steps in (100, 200, 400):
        schedule = diffusion.linear_schedule(num_steps, 0.1 / num_steps, 20 / num_steps)
        result = jax.jit(lambda x, s=schedule: likelihood.ode_log_likelihood(exact(s), s, KEY, x))(jnp.asarray(x))
        spread = np.hypot(STD, schedule.sqrt_one_minus_alpha_bar[0] / schedule.sqrt_alpha_bar[0])
        end = np.hypot(STD * schedule.sqrt_alpha_bar[-1], schedule.sqrt_one_minus_alpha_bar[-1])
        x_last = MEAN * schedule.sqrt_alpha_bar[-1] + end * (x - MEAN) / spread
        missed = stats.norm.logpdf(x_last) - stats.norm.logpdf(x_last, MEAN * schedule.sqrt_alpha_bar[-1], end)
        errors.append(result - (stats.norm.logpdf(x, MEAN, spread) + missed).sum((1, 2, 3)))
    assert np.abs(errors[-1]).max() < 2e-3
    assert np.all(np.abs(np.divide(errors[0], errors[1])) > 3) and np.all(np.abs(np.divide(errors[1], errors[2])) > 3)


def test_dequantised_pixels_stay_in_their_bins():
    levels = jnp.linspace(-1, 1, 16).reshape(1, 4, 4, 1)
    spread, log_width = likelihood.dequantise(KEY, jnp.repeat(levels, 200, 0), 16)
    assert np.abs(spread - levels).max() <= 1 / 15 and np.isclose(log_width, 16 * np.log(2 / 15))
    assert np.isclose(np.std(spread - levels), 2 / 15 / np.sqrt(12), rtol=0.02)


def test_the_best_sub_schedule_is_that_of_brute_force():
    schedule = diffusion.linear_schedule(9, 0.01, 0.5)
    errors = squared_errors(schedule) * np.linspace(1, 3, 9)

    def cost(times):
        return sum(0.5 * (schedule.snr[s] - schedule.snr[t]) * errors[t] for t, s in itertools.pairwise(times))

    for num in (2, 3, 5, 9):
        chains = [(8, *sorted(inner, reverse=True), 0) for inner in itertools.combinations(range(1, 8), num - 2)]
        result = likelihood.optimal_timesteps(schedule, errors, num)
        assert len(result) == num and np.isclose(cost(result), min(map(cost, chains)))
    assert cost(likelihood.optimal_timesteps(schedule, errors, 5)) < cost((8, 6, 4, 2, 0))


def test_the_optimal_variance_gives_the_data_back():
    """The chain is affine: its law follows from the gain and the variance of each step."""
    signal, variance = SCHEDULE.sqrt_alpha_bar[-1], SCHEDULE.alpha_bar[-1] * STD**2 + 1 - SCHEDULE.alpha_bar[-1]
    table, mean = best(SCHEDULE), signal * MEAN
    errors = squared_errors(SCHEDULE)
    for t in reversed(range(1000)):
        marginal = SCHEDULE.alpha_bar[t] * STD**2 + 1 - SCHEDULE.alpha_bar[t]
        gain = SCHEDULE.sqrt_alpha_bar[t] * STD**2 / marginal
        c0 = np.sqrt(SCHEDULE.alpha_bar_prev[t]) * SCHEDULE.beta[t] / (1 - SCHEDULE.alpha_bar[t])
        ct = np.sqrt(1 - SCHEDULE.beta[t]) * (1 - SCHEDULE.alpha_bar_prev[t]) / (1 - SCHEDULE.alpha_bar[t])
        mean = c0 * (MEAN + gain * (mean - SCHEDULE.sqrt_alpha_bar[t] * MEAN)) + ct * mean
        variance = (c0 * gain + ct) ** 2 * variance + table[t]
    assert np.allclose([mean, variance], [MEAN, STD**2], atol=1e-11)
    assert np.isclose(table[0], errors[0])  # the last step draws x_0 given x_t


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: likelihood.optimal_timesteps(SCHEDULE, np.ones(1000), 1), "num_steps: expected 2 to 1000.* got 1"),
        (
            lambda: likelihood.optimal_timesteps(SCHEDULE, np.ones(7), 4),
            r"squared_error: expected one for each of 1000",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
