"""What each entrance of diffusion does with bad numbers: one table, and the values that are right at the edges."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import diffusion
from genjax.diffusion import edm, grids, guidance, likelihood, optimal

KEY = jax.random.key(0)
SCHEDULE = diffusion.linear_schedule(10, 0.01, 0.9)
ZERO = diffusion.rescale_zero_terminal_snr(SCHEDULE)
GRID = grids.on_times(SCHEDULE, np.array([9, 5, 0]))
X, ONE = jnp.full((2, 2, 2, 1), 0.5), jnp.zeros(2, jnp.int32)
BYTES, NAN = jnp.ones((2, 2, 2, 1), jnp.uint8), jnp.full((2, 2, 2, 1), jnp.nan)
nan, inf = math.nan, math.inf


def scaled(x, t):
    return 0.1 * x


def fill(images, known, **more):
    return diffusion.repaint(scaled, GRID, images, known, **more)


IMAGES = {  # every entrance that takes images or noise
    "diffuse": lambda x: diffusion.diffuse(SCHEDULE, x, 3, X),
    "diffuse noise": lambda x: diffusion.diffuse(SCHEDULE, X, 3, x),
    "q_step": lambda x: diffusion.q_step(SCHEDULE, x, 3, X),
    "posterior": lambda x: diffusion.posterior(SCHEDULE, x, X, 3),
    "posterior x_t": lambda x: diffusion.posterior(SCHEDULE, X, x, 3),
    "repaint": lambda x: fill(x, jnp.array(True)),
    "slerp": lambda x: diffusion.slerp(x, X, 0.5),
    "slerp end": lambda x: diffusion.slerp(X, x, 0.5),
    "vlb": lambda x: likelihood.vlb(scaled, SCHEDULE, KEY, x),
    "prior": lambda x: likelihood.prior(SCHEDULE, x),
    "ode_log_likelihood": lambda x: likelihood.ode_log_likelihood(scaled, SCHEDULE, KEY, x),
    "dequantise": lambda x: likelihood.dequantise(KEY, x),
    "ancestral": lambda x: diffusion.ancestral(scaled, SCHEDULE)(KEY, x),
    "ddim_on_grid": lambda x: diffusion.ddim_on_grid(scaled, GRID)(KEY, x),
    "heun": lambda x: diffusion.heun(scaled, GRID)(KEY, x),
    "dpm_solver": lambda x: diffusion.dpm_solver(scaled, GRID)(KEY, x),
    "dpm_solver_sde": lambda x: diffusion.dpm_solver_sde(scaled, GRID)(KEY, x),
    "pndm": lambda x: diffusion.pndm(scaled, SCHEDULE, num_steps=4)(KEY, x),
    "invert": lambda x: diffusion.invert(scaled, GRID)(KEY, x),
    "sdedit": lambda x: diffusion.sdedit(lambda grid: diffusion.ddim_on_grid(scaled, grid), GRID, 0.5)(KEY, x),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_bytes_and_of_no_number_are_refused(name):
    for wrong, message in ((BYTES, "expected floating-point numbers, got uint8"), (NAN, "expected finite numbers")):
        with pytest.raises(ValueError, match=message):
            IMAGES[name](wrong)


REFUSED = {  # message: calls
    "t: expected whole numbers from 0 to 9": [
        lambda t=t, read=read: read(t)
        for t in (-1, 10, jnp.array([0, 10]), jnp.array([0.5, 1.0]))
        for read in (
            lambda t: diffusion.diffuse(SCHEDULE, X, t, X),
            lambda t: diffusion.q_step(SCHEDULE, X, t, X),
            lambda t: diffusion.posterior(SCHEDULE, X, X, t),
            lambda t: diffusion.from_noise(SCHEDULE, X, X, t),
            lambda t: diffusion.from_x0(SCHEDULE, X, X, t),
            lambda t: diffusion.from_v(SCHEDULE, X, X, t),
            lambda t: diffusion.to_score(SCHEDULE, diffusion.Prediction(X, X), t),
            lambda t: diffusion.at(SCHEDULE.beta, t, X),
        )
    ],
    "nothing of the image is left at time 9": [
        lambda: diffusion.from_noise(ZERO, X, X, jnp.array([3, 9])),
        lambda: diffusion.from_score(ZERO, X, X, 9),
        lambda: jax.jit(lambda t: diffusion.from_noise(ZERO, X, X, t))(3),
        lambda: likelihood.vlb(scaled, ZERO, KEY, X),
        lambda: likelihood.ode_log_likelihood(scaled, ZERO, KEY, X),
        lambda: likelihood.optimal_variance(ZERO, np.ones(10)),
    ],
    "beta: expected": [
        lambda beta=beta: diffusion.from_beta(beta) for beta in ([], [0.0], [1.5], [nan], [-0.1, 0.2], ["a"], np.eye(2))
    ],
    "nothing of the image is left at time": [
        lambda: diffusion.from_beta([0.1, 1.0, 0.1]),
        lambda: diffusion.linear_schedule(100_000),
        lambda: diffusion.linear_schedule(1000, 0.5, 0.99),
    ],
    "num_steps: expected": [
        *(lambda n=n: diffusion.linear_schedule(n) for n in (0, -1, 10**12, 2.5, True)),
        *(lambda n=n: diffusion.cosine_schedule(n) for n in (0, 10**12)),
        lambda: diffusion.sigmoid_schedule(0),
        *(lambda n=n: grids.timesteps(10, n, "trailing") for n in (0, 11, 2.5, nan)),
        *(lambda n=n: grids.karras(n) for n in (0, 1.5)),
        lambda: grids.karras_times(SCHEDULE, 0),
        lambda: likelihood.optimal_timesteps(SCHEDULE, np.ones(10), 11),
        *(lambda n=n: diffusion.pndm(scaled, SCHEDULE, num_steps=n) for n in (3, 11)),
    ],
    "first, last|expected offset|expected start|start, end, temperature": [
        *(lambda a=a: diffusion.linear_schedule(5, *a) for a in ((nan, 0.1), (0.1, nan), (0.1, 1.0), (0.2, 0.1))),
        *(lambda a=a: diffusion.cosine_schedule(5, *a) for a in ((nan,), (inf,), (-1.0,), (0.0, 1.0), (0.0, nan))),
        *(
            lambda a=a: diffusion.sigmoid_schedule(5, *a)
            for a in ((nan,), (3.0, 3.0), (-inf,), (-3.0, 3.0, 0.0), (-3.0, 3.0, inf), (-3.0, 3.0, 1e-3))
        ),
    ],
    "sigma_min, sigma_max: expected|rho: expected": [
        lambda a=a: grids.karras(5, *a) for a in ((0.0,), (3.0, 2.0), (2.0, 2.0), (1.0, inf), (nan,), (1.0, 2.0, 0.0))
    ],
    "times: expected falling times": [
        lambda times=times: grids.on_times(SCHEDULE, times)
        for times in ([], [1, 5], [5, 5], [10, 2], [3, -1], [3.5, 1.0], [nan], [[3, 1]])
    ],
    "grid": [
        lambda table=table: diffusion.heun(scaled, grids.Grid(*map(np.array, table)))
        for table in (
            ([1.0], [1.0], [0.0]),
            ([1.0, 0.0], [1.0, 1.0], [1.0]),
            ([1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]),
            ([2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, nan, 0.0]),
            ([2.0, 1.0, 0.0], [1.0, -1.0, 1.0], [2.0, 1.0, 0.0]),
            ([2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [2.0, 0.0, 0.0]),
        )
    ],
    "known: expected": [
        lambda known=known: fill(X, known)
        for known in (jnp.array(1.5), jnp.array(-0.1), jnp.array(nan), jnp.array([2, 0]), jnp.ones((3, 1, 1, 1)))
    ],
    "resample|jump": [
        lambda: fill(X, jnp.array(True), resample=0),
        lambda: fill(X, jnp.array(True), jump=4),
        lambda: fill(X, jnp.array(True), jump=1.5),
    ],
    "strength: ": [
        lambda s=s: diffusion.sdedit(lambda grid: diffusion.ddim_on_grid(scaled, grid), GRID, s)
        for s in (-0.1, 1.1, nan, 0.1)
    ],
    "fraction: expected": [lambda s=s: diffusion.slerp(X, X, s) for s in (nan, -0.5, 2.0)],
    "guidance_scale: expected finite": [
        lambda w=w: guidance.classifier_free(scaled, scaled, w) for w in (nan, inf, -inf, jnp.array(nan))
    ],
    "rescale|interval|channels": [
        *(
            lambda a=a: guidance.classifier_free(scaled, scaled, 2.0, **a)
            for a in ({"rescale": nan}, {"rescale": -0.1})
        ),
        *(
            lambda a=a: guidance.classifier_free(scaled, scaled, 2.0, **a)
            for a in ({"interval": (3, nan)}, {"channels": 0})
        ),
        lambda: guidance.classifier_free(scaled, scaled, 2.0, channels=5)(X, ONE),
    ],
    "labels: expected whole": [
        lambda labels=labels: guidance.classifier_free_batched(lambda x, t, labels: x, labels, 3, 2.0)
        for labels in (jnp.array([-1, 0]), jnp.array([0.5, 1.0]))
    ],
    "percentile": [lambda a=a: guidance.threshold(*a) for a in ((nan,), (0.0,), (101.0,), (50.0, nan), (50.0, 0.0))],
    "eta|s_churn|s_tmin|iterations": [
        *(lambda e=e: diffusion.ddim_on_grid(scaled, GRID, eta=e) for e in (nan, -0.1, 1.1)),
        *(
            lambda a=a: diffusion.heun(lambda x, s: x, grids.karras(5), **a)
            for a in ({"s_churn": nan}, {"s_tmin": 2.0, "s_tmax": 1.0}, {"s_tmin": nan}, {"s_noise": -1.0})
        ),
        *(lambda n=n: diffusion.invert(scaled, GRID, iterations=n) for n in (0, 1.5)),
    ],
    "variance: expected|variances; got": [
        *(
            lambda v=v: diffusion.ancestral(scaled, SCHEDULE, variance=v)
            for v in (np.ones(3), np.full(10, nan), -np.ones(10))
        ),
        *(lambda v=v: likelihood.vlb(scaled, SCHEDULE, KEY, X, variance=v) for v in (np.ones(3), np.zeros(10))),
    ],
    "images: expected numbers from -1 to 1": [
        lambda: likelihood.vlb(scaled, SCHEDULE, KEY, 3 * X),
        lambda: likelihood.dequantise(KEY, 3 * X),
    ],
    "num_levels: expected": [
        *(lambda n=n: likelihood.vlb(scaled, SCHEDULE, KEY, X, num_levels=n) for n in (1, -1, 2.5)),
        *(lambda n=n: likelihood.dequantise(KEY, X, n) for n in (0, 1)),
        lambda: likelihood.log_decoder(X, X, X, 1),
        lambda: diffusion.vlb(num_levels=1),
    ],
    "squared_error|noise_squared": [
        *(
            lambda e=e: likelihood.optimal_timesteps(SCHEDULE, e, 3)
            for e in (np.full(10, nan), -np.ones(10), np.ones(3))
        ),
        *(
            lambda e=e: optimal.optimal_variance(SCHEDULE, e)
            for e in (np.full(10, nan), -np.ones(10), np.ones(3), None)
        ),
        lambda: optimal.optimal_variance(SCHEDULE, np.ones(10), squared_error=np.ones(10)),
    ],
    "expected at least 2 steps": [
        lambda: diffusion.rescale_zero_terminal_snr(diffusion.linear_schedule(1)),
        lambda: likelihood.ode_log_likelihood(scaled, diffusion.linear_schedule(1), KEY, X),
    ],
    "gamma|weights|scale": [
        *(lambda g=g: diffusion.min_snr(SCHEDULE, gamma=g) for g in (0.0, -1.0, nan)),
        *(lambda w=w: diffusion.simple(lambda a, b: a - b, weights=w) for w in (np.full(10, nan), -np.ones(10))),
        *(lambda s=s: diffusion.hybrid(diffusion.vlb(), scale=s) for s in (nan, -1.0)),
    ],
    "sigma_data: expected positive|sigma: expected positive": [
        *(lambda s=s: edm.precondition(scaled, s) for s in (0.0, -1.0, nan, inf)),
        *(lambda s=s: edm.weight(jnp.array(s), 0.5) for s in ([0.0], [nan])),
    ],
    "keep: expected": [
        lambda keep=keep: diffusion.ddim_on_grid(scaled, GRID)(KEY, X, keep) for keep in ((4,), (-1,), (1, 1), (0.5,))
    ],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused(message):
    for call in REFUSED[message]:
        try:
            result = call()
        except ValueError as error:
            assert re.search(message, str(error)), error
        except TypeError as error:  # what the tests' type checker finds before
            assert "Type-check error" in str(error), error
        else:
            raise AssertionError(f"expected {message!r}, got {result}")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_a_chain_of_a_thousand_steps_draws_the_law_from_half_precision(dtype):
    """Of N(.4, .5²), x_T and the network's output in half precision; carried in it, .252 and .486 came out."""
    schedule = diffusion.linear_schedule(1000)
    table = jnp.asarray(schedule.alpha_bar, jnp.float32)

    def denoise(x, t):
        a = table[t][:, None]
        return (jnp.sqrt(1 - a) * (x - 0.4 * jnp.sqrt(a)) / (0.25 * a + 1 - a)).astype(dtype)

    x_T = jax.random.normal(KEY, (4096, 1), dtype)
    drawn = jax.jit(diffusion.ancestral(denoise, schedule, clip=False))(jax.random.key(1), jnp.concatenate([x_T, -x_T]))
    assert drawn.dtype == jnp.float32
    assert abs(drawn.mean() - 0.4) < 4 * 0.5 / np.sqrt(8192) and abs(drawn.std() - 0.496) < 4 * 0.5 / np.sqrt(16_384)
    network = lambda x, t: 0.1 * x.astype(dtype)
    for make in (
        diffusion.ddim_on_grid,
        diffusion.heun,
        diffusion.dpm_solver,
        diffusion.dpm_solver_sde,
        diffusion.invert,
    ):
        assert jax.eval_shape(make(network, GRID), KEY, X.astype(dtype)).dtype == jnp.float32
    shape = jax.eval_shape(diffusion.pndm(network, SCHEDULE, num_steps=4), KEY, X.astype(dtype))
    mixed = jax.eval_shape(diffusion.repaint(network, GRID, X.astype(dtype), jnp.array(0.5)), KEY, X.astype(dtype))
    assert shape.dtype == mixed.dtype == jnp.float32


def test_rescaled_guidance_of_nothing_is_nothing_with_finite_slopes():
    def guided(scale, like):
        mix = guidance.classifier_free(lambda x, t: scale * like, lambda x, t: 0 * x, 3.0, rescale=0.7)
        return mix(X, ONE)

    like = jnp.linspace(-1, 1, 8).reshape(X.shape)
    assert np.array_equal(guided(0.0, like), jnp.zeros(X.shape))
    assert np.isfinite(jax.grad(lambda s: guided(s, like).sum())(0.0))
    assert np.isfinite(guided(1e-30, like)).all()
    # Of 3 ε_c the deviation is 3 times that of ε_c: .7 back to ε_c, .3 of it left.
    assert np.allclose(guided(1.0, like), (0.7 + 0.3 * 3) * like, rtol=1e-5)


def test_negative_guidance_leads_away():
    away = guidance.classifier_free(lambda x, t: x + 1, lambda x, t: x, -2.0)(X, ONE)
    assert np.allclose(away, X - 2)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (1, 0), (0, 0), (1, 1), (1, -1)])
def test_slerp_without_one_arc_is_a_straight_line_with_finite_slopes(start, end):
    v = jnp.array([[3.0, -4.0]])
    mixed = lambda a, b: diffusion.slerp(a, b, 0.25)
    assert np.allclose(mixed(start * v, end * v), (0.75 * start + 0.25 * end) * v, atol=1e-6)
    slopes = jax.jit(jax.grad(lambda *ends: mixed(*ends).sum(), (0, 1)))(start * v, end * v)
    assert np.isfinite(slopes).all()
    assert np.isfinite(mixed(1e30 * v, 1e-30 * v[:, ::-1])).all()


def test_a_soft_mask_blends_and_what_is_unknown_is_not_looked_at():
    """A point at .3: at the end x̂_0 = .3 and no noise is left, so a share m of .8 makes .3 + .5 m."""
    schedule = diffusion.linear_schedule(100, 0.001, 0.2)
    grid = grids.on_times(schedule, grids.timesteps(100, 5, "trailing"))
    denoise = lambda x, t: diffusion.from_x0(schedule, jnp.full_like(x, 0.3), x, t)
    known = jnp.array([0.0, 0.3, 1.0])
    images = jnp.array([[jnp.nan, 0.8, 0.8]])
    drawn = diffusion.repaint(denoise, grid, images, known)(KEY, jnp.ones((1, 3)))
    assert np.allclose(drawn, 0.3 + 0.5 * known, atol=1e-6)


def test_the_optimal_variance_where_nothing_is_left_is_that_of_the_errors():
    """σ² = β̃ + c_0² E|x_0 - x̂_0|²; at β = 1, β̃ = 1 - ᾱ_{t-1} and c_0² = ᾱ_{t-1}. Both forms agree elsewhere."""
    errors = 0.25 * (1 - ZERO.alpha_bar) / (0.25 * ZERO.alpha_bar + 1 - ZERO.alpha_bar)
    table = likelihood.optimal_variance(ZERO, squared_error=errors)
    before = ZERO.alpha_bar[-2]
    assert np.isclose(table[-1], 1 - before + before * 0.25, rtol=1e-12) and np.isfinite(table).all()
    errors = 0.25 * (1 - SCHEDULE.alpha_bar) / (0.25 * SCHEDULE.alpha_bar + 1 - SCHEDULE.alpha_bar)
    by_noise = likelihood.optimal_variance(SCHEDULE, 1 - SCHEDULE.snr * errors)
    assert np.allclose(by_noise, likelihood.optimal_variance(SCHEDULE, squared_error=errors), rtol=1e-12)
    assert likelihood.optimal_timesteps(diffusion.linear_schedule(1), [0.1], 1).tolist() == [0]


def exact(schedule):
    """E[x_0|x_t] of N(.4, .5²)."""

    def denoise(x, t):
        signal, noise = (
            diffusion.at(schedule.sqrt_alpha_bar, t, x),
            diffusion.at(schedule.sqrt_one_minus_alpha_bar, t, x),
        )
        x0 = 0.4 + 0.25 * signal / (0.25 * signal**2 + noise**2) * (x - 0.4 * signal)
        return diffusion.from_x0(schedule, x0, x, t)

    return denoise


def test_likelihoods_where_nothing_of_the_image_is_left():
    """The prior tells nothing apart; the flow ends at N(0, 1) exactly, so it has the density of the data with the noise
    of time 0; the bound of the last step is ½ SNR E|x_0 - .4|² with the posterior's variance."""
    schedule = diffusion.rescale_zero_terminal_snr(diffusion.cosine_schedule(400))
    x = jnp.array([[[[-0.5], [0.1]]], [[[0.9], [0.4]]]])
    assert np.array_equal(likelihood.prior(schedule, x), [0, 0])
    result = jax.jit(lambda x: likelihood.ode_log_likelihood(exact(schedule), schedule, KEY, x))(x)
    spread = np.hypot(0.5, schedule.sqrt_one_minus_alpha_bar[0] / schedule.sqrt_alpha_bar[0])
    density = -0.5 * ((np.asarray(x) - 0.4) / spread) ** 2 - np.log(spread * np.sqrt(2 * np.pi))
    assert np.allclose(result, density.sum((1, 2, 3)), atol=2e-3)
    bound = jax.jit(lambda x: likelihood.vlb(exact(ZERO), ZERO, KEY, x, num_levels=0, clip=False))(x)
    last = 0.5 * ZERO.snr[-2] * ((np.asarray(x) - 0.4) ** 2).sum((1, 2, 3))
    assert np.allclose(bound.steps[:, -1], last, rtol=1e-4) and np.isfinite(bound.total).all()
    half = lambda x, t: exact(ZERO)(x, t)._replace(variance_interpolation=jnp.full_like(x, 0.5))
    learned = likelihood.vlb(half, ZERO, KEY, x, num_levels=0, clip=False)
    assert np.isfinite(learned.total).all()


def test_one_step_has_a_bound_of_a_prior_and_a_decoder():
    """T = 1: D(N(√ᾱ x_0, β)‖N(0, 1)) and -log N(x_0; x̂_0, β)."""
    schedule, x0 = diffusion.linear_schedule(1, 0.5, 0.5), jnp.full((1, 1, 1, 1), 0.7)
    result = likelihood.vlb(exact(schedule), schedule, KEY, x0, num_levels=0, clip=False)
    assert np.isclose(result.prior[0], 0.5 * (0.5 * 0.49 - 0.5 - np.log(0.5)), rtol=1e-6)
    decoder = 0.5 * (result.squared_error[0, 0] / 0.5 + np.log(2 * np.pi * 0.5))
    assert np.isclose(result.steps[0, 0], decoder, rtol=1e-5)


def test_the_order_is_lowered_before_a_long_last_step():
    """Of leading and linspace times λ jumps at the end; extrapolated there, deviations were .53 to .76."""
    schedule = diffusion.linear_schedule(1000)
    for spacing in ("leading", "linspace", "trailing"):
        grid = grids.on_times(schedule, grids.timesteps(1000, 20, spacing))
        sample = jax.jit(diffusion.dpm_solver(exact(schedule), grid, clip=False))
        low, high = sample(KEY, jnp.array([[-1.0], [1.0]]))[:, 0]
        assert 0.44 < (high - low) / 2 < 0.51, (spacing, (high - low) / 2)
