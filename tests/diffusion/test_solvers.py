"""Solvers: their orders on flows that are known, step by step against diffusers, and laws of mixtures."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import diffusion
from genjax.diffusion import editing, grids, likelihood, samplers, solvers

KEY = jax.random.key(0)
LINEAR = diffusion.linear_schedule(1000)
WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.0, 0.8]), np.array([0.2, 0.3])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mixture(x, signal, noise, weights=WEIGHTS, means=MEANS, stds=STDS):
    """E[x_0|x] of a mixture of Gaussians, where x = α x_0 + σ ε."""
    signal, noise = jnp.asarray(signal)[..., None], jnp.asarray(noise)[..., None]
    total = (signal * stds) ** 2 + noise**2
    offset = x[..., None] - signal * means
    share = jax.nn.softmax(jnp.log(weights) - 0.5 * jnp.log(total) - 0.5 * offset**2 / total, -1)
    return jnp.sum(share * (means + signal * stds**2 / total * offset), -1)


def sigma_denoiser(mean=mixture):
    """A denoiser that is told σ, as on Karras' grid."""

    def denoise(x, time):
        noise = time.reshape(-1, *[1] * (x.ndim - 1))
        return (x - mean(x, 1.0, noise)) / noise

    return denoise


def time_denoiser(schedule=LINEAR, mean=mixture):
    def denoise(x, time):
        signal, noise = (
            diffusion.at(schedule.sqrt_alpha_bar, time, x),
            diffusion.at(schedule.sqrt_one_minus_alpha_bar, time, x),
        )
        return (x - signal * mean(x, signal, noise)) / noise

    return denoise


one_gaussian = functools.partial(mixture, weights=np.array([1.0]), means=np.array([0.4]), stds=np.array([0.5]))


def gaussian_end(x, high=80.0):
    """Where the flow of N(0.4, 0.5²) brings x from σ = high."""
    return 0.4 + (x - 0.4) * 0.5 / np.hypot(0.5, high)


def orders(make, end, start, counts):
    errors = [np.abs(jax.jit(make(n))(KEY, start) - end).max() for n in counts]
    return np.log2(np.divide(errors[:-1], errors[1:]))


EULER = lambda denoise, grid: samplers.ddim_on_grid(denoise, grid, clip=False)
HEUN = lambda denoise, grid: solvers.heun(denoise, grid, clip=False)
DPM = lambda denoise, grid: solvers.dpm_solver(denoise, grid, clip=False)


@pytest.mark.parametrize(("solver", "order"), [(EULER, 1), (HEUN, 2), (DPM, 2)])
def test_orders_on_gaussian_data(solver, order):
    """The error of the last step, to no noise at all, is left out: grids end at σ = 0.5 here."""
    start = 80 * jnp.array([-1.3, -0.2, 0.4, 1.1])

    def make(n):
        noise = grids.karras(n + 1, 0.5, 80.0).sigma[:-1]
        return solver(sigma_denoiser(one_gaussian), grids.Grid(noise, np.ones(n + 1), noise))

    end = 0.4 + (start - 0.4) * np.hypot(0.5, 0.5) / np.hypot(0.5, 80)
    result = orders(make, end, start, (80, 160, 320, 640))
    assert np.all(np.abs(result - order) < 0.15), result


@pytest.mark.parametrize(("solver", "order"), [(EULER, 1), (HEUN, 2), (DPM, 2)])
def test_orders_on_a_mixture(solver, order):
    start = jnp.array([-40.0, 10.0, 60.0])

    def make(n):
        noise = grids.karras(n + 1, 0.1, 80.0).sigma[:-1]
        return solver(sigma_denoiser(), grids.Grid(noise, np.ones(n + 1), noise))

    end = jax.jit(make(5120))(KEY, start)
    result = orders(make, end, start, (160, 320, 640))
    assert np.all(np.abs(result - order) < 0.2), result


def test_a_wrong_solver_has_another_order(monkeypatch):
    right = solvers._multistep
    monkeypatch.setattr(
        solvers, "_multistep", lambda g, p: right(g, p)._replace(extrapolation=2 * right(g, p).extrapolation)
    )
    noise = lambda n: grids.karras(n + 1, 0.5, 80.0).sigma[:-1]
    make = lambda n: DPM(sigma_denoiser(one_gaussian), grids.Grid(noise(n), np.ones(n + 1), noise(n)))
    start = jnp.array([50.0])
    end = 0.4 + (start - 0.4) * np.hypot(0.5, 0.5) / np.hypot(0.5, 80)
    assert orders(make, end, start, (160, 320))[0] < 1.2


def test_deterministic_solvers_end_where_the_flow_does():
    start = 80 * jnp.linspace(-1.5, 1.5, 7)
    grid = grids.karras(60)
    for solver in (HEUN, DPM):
        assert np.allclose(solver(sigma_denoiser(one_gaussian), grid)(KEY, start), gaussian_end(start), atol=5e-3)
    x = jnp.linspace(-1.5, 1.5, 7)
    exact = 0.4 + (x - LINEAR.sqrt_alpha_bar[-1] * 0.4) * 0.5 / np.sqrt(
        LINEAR.alpha_bar[-1] * 0.25 + 1 - LINEAR.alpha_bar[-1]
    )
    for start_with in ("runge_kutta", "linear"):
        sample = solvers.pndm(
            time_denoiser(mean=one_gaussian), LINEAR, num_steps=100, spacing="trailing", start=start_with
        )
        assert np.allclose(sample(KEY, x), exact, atol=5e-3)


@pytest.mark.parametrize("churn", [3.0, 30.0])
def test_heun_with_churn_is_the_papers_algorithm(churn, monkeypatch):
    """Algorithm 2 in numpy, on the same noise; with much churn √2 - 1 is all that a step takes."""
    draws = np.random.default_rng(0).normal(size=(40, 3))
    count = iter(range(40))
    grid, low, high, scale = grids.karras(12), 0.05, 50.0, 1.007
    noise = lambda keys, shape, dtype: jnp.asarray(draws[next(count)])
    monkeypatch.setattr(solvers.random, "normal", noise)
    with jax.disable_jit():
        ours = solvers.heun(sigma_denoiser(), grid, s_churn=churn, s_tmin=low, s_tmax=high, s_noise=scale, clip=False)(
            KEY, 80 * jnp.array([-0.5, 0.1, 0.9])
        )
    slope = lambda x, s: (x - np.asarray(mixture(jnp.asarray(x), 1.0, s))) / s
    x, sigma = 80 * np.array([-0.5, 0.1, 0.9]), grid.sigma
    for i in range(12):
        gamma = min(churn / 12, math.sqrt(2) - 1) if low <= sigma[i] <= high else 0
        raised = sigma[i] * (1 + gamma)
        x = x + math.sqrt(raised**2 - sigma[i] ** 2) * scale * draws[i]
        first = slope(x, raised)
        moved = x + (sigma[i + 1] - raised) * first
        x = moved if not sigma[i + 1] else x + (sigma[i + 1] - raised) * 0.5 * (first + slope(moved, sigma[i + 1]))
    assert np.allclose(ours, x, atol=1e-10)


@pytest.mark.parametrize("sampler", [
    lambda d: samplers.ddim_on_grid(d, grids.karras(120), eta=1.0, clip=False),
    lambda d: solvers.dpm_solver_sde(d, grids.karras(60), clip=False),
    lambda d: solvers.heun(d, grids.karras(30), s_churn=20.0, clip=False),
    lambda d: solvers.heun(d, grids.karras(30), clip=False),
])  # fmt: skip
def test_the_law_of_a_mixture_is_drawn(sampler):
    start = 80 * jax.random.normal(KEY, (4000,))
    drawn = np.asarray(jax.jit(sampler(sigma_denoiser()))(jax.random.key(1), start))
    cdf = lambda x: sum(w * stats.norm.cdf(x, m, s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True))
    assert stats.kstest(drawn, cdf).pvalue > 1e-3
    assert abs(np.mean(drawn < -0.1) - cdf(-0.1)) < 4 * np.sqrt(0.21 / 4000)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_on_some_times_is_ddim_with_full_noise_there(variance):
    times = diffusion.timesteps(1000, 20, "trailing")
    x = jnp.array([-0.7, 0.2, 1.4])
    some = diffusion.ancestral(*samplers.respace(time_denoiser(), LINEAR, times), variance=variance, clip=False)(KEY, x)
    same = diffusion.ddim(time_denoiser(), LINEAR, num_steps=20, eta=1.0, clip=False)(KEY, x)
    assert np.allclose(some, same, atol=1e-10) == (variance == "small")


def test_a_grid_of_sigma_is_a_process_of_as_many_steps():
    """With α² + σ² = 1: the same draws, step by step; and the flow carries x_T ~ N(0, 1) to where it should."""
    grid = grids.karras(400)
    described = functools.partial(sigma_denoiser, one_gaussian)
    denoise, schedule = diffusion.variance_preserving(described(), grid)
    x_T = jnp.array([-1.1, 0.3])
    same = diffusion.ancestral(denoise, schedule, variance="small", clip=False)(KEY, x_T)
    size = np.hypot(1, 80)
    assert np.allclose(samplers.ddim_on_grid(described(), grid, eta=1.0, clip=False)(KEY, size * x_T), same, atol=1e-9)
    x = jnp.array([[0.1], [0.9], [-0.7]])
    density = jax.jit(lambda x: likelihood.ode_log_likelihood(denoise, schedule, KEY, x))(x)
    deviations = np.asarray(x)[:, 0] / 0.5 - 0.8  # the same at both ends of the flow
    end = schedule.sqrt_alpha_bar[-1] * 0.4 + deviations * np.sqrt(1 - 0.75 * schedule.alpha_bar[-1])
    assert np.allclose(density, stats.norm.logpdf(end) + np.log(2), atol=1e-4)
    traced = jax.jit(lambda noise: diffusion.variance_preserving(described(), grid._replace(sigma=noise))[1].alpha_bar)
    assert np.allclose(traced(jnp.asarray(grid.sigma)), schedule.alpha_bar, rtol=1e-12)


def test_inversion_and_sampling_meet():
    grid = grids.on_times(LINEAR, diffusion.timesteps(1000, 50, "trailing"))
    x = jnp.array([-1.1, 0.3, 0.9])
    gaps = []
    for iterations in (1, 5, 30):
        noise = jax.jit(solvers.invert(time_denoiser(), grid, iterations=iterations))(KEY, x)
        gaps.append(np.abs(samplers.ddim_on_grid(time_denoiser(), grid, clip=False)(KEY, noise) - x).max())
    assert gaps[2] < 1e-4 < gaps[0] and gaps[2] < gaps[1] < gaps[0], gaps
    start = jnp.array([-0.4, 0.9])
    image = samplers.ddim_on_grid(time_denoiser(), grid, clip=False)(KEY, start)
    again = solvers.invert(time_denoiser(), grid, iterations=30)(KEY, image)
    assert np.allclose(again, start, atol=1e-3)


FEW = grids.on_times(LINEAR, np.array([900, 400, 100, 0]))
MAKERS = {  # name: sampler, its steps and evaluations; scans, of which an inversion has one more for its iterations
    "ancestral": (lambda d: diffusion.ancestral(d, diffusion.linear_schedule(5, 0.1, 0.9)), 5, 5, 1),
    "ddim": (lambda d: diffusion.ddim_on_grid(d, FEW, eta=0.5), 4, 4, 1),
    "dpm_solver": (lambda d: solvers.dpm_solver(d, FEW), 4, 4, 1),
    "dpm_solver_sde": (lambda d: solvers.dpm_solver_sde(d, FEW), 4, 4, 1),
    "heun": (lambda d: solvers.heun(d, FEW), 4, 2 * 4 - 1, 1),
    "pndm": (lambda d: solvers.pndm(d, LINEAR, num_steps=5, spacing="leading"), 5, 5 + 9, 1),
    "pndm, linear": (lambda d: solvers.pndm(d, LINEAR, num_steps=5, spacing="leading", start="linear"), 5, 5 + 1, 1),
    "invert": (lambda d: solvers.invert(d, FEW, iterations=2), 4, 2 * 4, 2),
    "repaint": (lambda d: editing.repaint(d, FEW, jnp.array([0.1, 0.2]), jnp.array([1, 0]), resample=2), 7, 7, 1),
}


@pytest.mark.filterwarnings("ignore::genjax.diffusion.StartWarning")
@pytest.mark.parametrize("name", MAKERS)
def test_each_is_one_scan_that_gradients_pass_and_images_are_apart(name):
    make, _, _, scans = MAKERS[name]

    def end(shift, x):
        return make(lambda x, t: time_denoiser()(x, t) + shift)(KEY, x)

    x = jnp.array([0.2, -0.3])
    assert str(jax.make_jaxpr(end)(0.1, x)).count(" scan[") == scans
    slope = jax.grad(lambda s: end(s, x).sum())(0.01)
    finite = (end(0.01 + 1e-5, x) - end(0.01 - 1e-5, x)).sum() / 2e-5
    assert np.isclose(slope, finite, rtol=1e-4)
    if name != "repaint":  # whose images are as many as those to fill in
        assert np.allclose(end(0.0, x)[:1], end(0.0, x[:1]), atol=1e-12)


@pytest.mark.filterwarnings("ignore::genjax.diffusion.StartWarning")
@pytest.mark.parametrize("name", MAKERS)
def test_steps_taken_one_by_one_are_those_of_the_scan(name):
    """Also from the outside of a compiled program, with a stop on the way and a count of the evaluations."""
    make, num_steps, evaluations, _ = MAKERS[name]
    sampler, x_T, seen = make(time_denoiser()), jnp.array([0.2, -0.3]), []
    end, frames = jax.jit(lambda x: sampler(KEY, x, keep=(0, 2)))(x_T)
    assert sampler.num_steps == num_steps and isinstance(sampler, diffusion.Sample)

    def counting(x, t):
        seen.append(t)
        return time_denoiser()(x, t)

    by_hand = make(counting)
    state = by_hand.init(x_T)
    assert np.allclose(by_hand.output(state), frames[0], atol=1e-12)
    with jax.disable_jit():
        for k, (keys, place) in enumerate(by_hand.steps(KEY, x_T)):
            state = by_hand.step(keys, state, place)
            if k == 1:  # where a caller may stop
                assert np.allclose(by_hand.output(state), frames[1], atol=1e-12)
    assert np.allclose(by_hand.output(state), end, atol=1e-12) and len(seen) == evaluations


PLACES = grids.on_times(LINEAR, np.array([900, 700, 400, 100, 0]))
NOISY_END = PLACES._replace(alpha=np.append(PLACES.alpha[:-1], 0.97), sigma=np.append(PLACES.sigma[:-1], 0.009))


@pytest.mark.parametrize(
    ("make", "grid"),
    [
        (samplers.ddim_on_grid, PLACES),
        (solvers.dpm_solver, PLACES),
        (solvers.heun, PLACES),
        (solvers.heun, NOISY_END),
        (solvers.heun, grids.karras(5)),
        (
            lambda d, grid, clip: solvers.pndm(d, LINEAR, num_steps=5, spacing="leading"),
            grids.on_times(LINEAR, np.arange(5)[::-1] * 200),
        ),
        (lambda d, grid, clip: solvers.invert(d, PLACES), grids.Grid(*(table[::-1] for table in PLACES))),
    ],
)
def test_kept_frames_are_x_after_each_step(make, grid):
    """Where ε is the same everywhere x̄ moves along a line, which every solver follows exactly."""
    noise, image = jnp.array([-1.1, 0.4]), jnp.array([0.3, -0.5])
    sample = make(lambda x, t: noise, grid, clip=False)
    end, frames = sample(KEY, grid.alpha[0] * image + grid.sigma[0] * noise, keep=(0, 1, 2, 3, 5))
    expected = [grid.alpha[k] * image + grid.sigma[k] * noise for k in (0, 1, 2, 3, 5)]
    assert np.allclose(frames, expected, atol=1e-10) and np.allclose(end, expected[-1], atol=1e-10)
    with pytest.raises(ValueError, match="numbers of steps from 0 to 5, got"):
        sample(KEY, image, keep=(6,))


LEADING, BETWEEN = grids.timesteps(1000, 10, "leading"), np.linspace(0, 999, 11).round()[:0:-1].astype(int)
STEEP = diffusion.linear_schedule(1000, 0.01, 0.02)


@pytest.mark.parametrize(
    ("make", "measure", "expected"),
    [
        (lambda d: DPM(d, grids.on_times(LINEAR, BETWEEN, final="first")), np.mean, 0.3301),
        (lambda d: solvers.pndm(d, LINEAR, num_steps=10, spacing="leading", final="first"), np.sum, 198.1318),
        (lambda d: samplers.ddim_on_grid(d, grids.on_times(STEEP, LEADING)), np.sum, 149.8295),
        (lambda d: samplers.ddim_on_grid(d, grids.on_times(STEEP, LEADING, final="first")), np.sum, 149.0784),
    ],
)
def test_the_values_that_diffusers_tests_itself_with(make, measure, expected, monkeypatch):
    """huggingface/diffusers, tests/schedulers: ten steps on a dummy sample and model, with lower_order_final off."""
    monkeypatch.setattr(solvers, "MAX_STEP_RATIO", np.inf)
    x = jnp.moveaxis(jnp.arange(768.0).reshape(3, 8, 8, 4) / 768, -1, 0)
    end = jax.jit(make(lambda x, t: x * (t / (t + 1)).reshape(-1, 1, 1, 1)))(KEY, x)
    assert measure(np.abs(end)) == pytest.approx(expected, rel=2e-6, abs=5e-5 if expected < 1 else 0)


def test_times_of_karras_lie_in_the_schedule():
    times = grids.karras_times(LINEAR, 20)
    assert times[0] == 999 and times[-1] == 0 and np.all(np.diff(times) < 0)
    spread = (LINEAR.sqrt_one_minus_alpha_bar / LINEAR.sqrt_alpha_bar)[times] ** (1 / 7)
    assert np.allclose(np.diff(spread), np.diff(spread).mean(), atol=0.02)  # even, but for rounding


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grids.on_times(LINEAR, np.array([1, 5])), "times: expected falling times"),
        (lambda: grids.on_times(LINEAR, np.array([1000, 5])), r"times: expected falling times in \[0, 1000\)"),
        (lambda: grids.karras(0), "num_steps: expected at least 1"),
        (lambda: grids.karras_times(diffusion.linear_schedule(20), 19), "use at most .* steps, or even spacing"),
        (lambda: grids.karras_times(diffusion.rescale_zero_terminal_snr(LINEAR), 10), "the last ᾱ is 0"),
        (lambda: solvers.heun(sigma_denoiser(), grids.karras(5), s_churn=-1.0), "s_churn: expected 0"),
        (
            lambda: solvers.heun(time_denoiser(), grids.on_times(LINEAR, np.array([5, 2])), s_churn=1.0),
            "s_churn: expected a grid whose network is told σ",
        ),
        (lambda: solvers.pndm(time_denoiser(), LINEAR, num_steps=3), "num_steps: expected at least 4"),
        (lambda: solvers.invert(time_denoiser(), grids.karras(3), iterations=0), "iterations: expected at least 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "make",
    [
        EULER,
        HEUN,
        DPM,
        lambda denoise, grid: samplers.ddim_on_grid(denoise, grid, eta=0.5, clip=False),
        lambda denoise, grid: solvers.dpm_solver_sde(denoise, grid, clip=False),
    ],
)
def test_a_grid_is_tuned_by_gradient(make):
    """Of places that are traced, to no noise at all: the slope is that of finite differences."""
    start = 80 * jnp.array([-0.5, 0.1, 0.9])

    def error(shift):
        noise = jnp.asarray(grids.karras(5).sigma) * jnp.exp(shift * jnp.array([0, 1, -1, 0.5, 0, 0]))
        grid = grids.Grid(noise, jnp.ones(6), noise)
        return (make(sigma_denoiser(), grid)(KEY, start) ** 2).sum()

    slope = jax.grad(error)(0.1)
    assert np.isclose(slope, (error(0.1 + 1e-6) - error(0.1 - 1e-6)) / 2e-6, rtol=1e-5)


def test_inversion_of_a_traced_grid_is_that_of_its_numbers():
    grid, images = grids.on_times(LINEAR, np.array([900, 400, 100, 0])), jnp.array([0.2, -0.3])
    end = lambda grid: solvers.invert(time_denoiser(), grid)(KEY, images)
    traced = jax.jit(lambda noise, signal: end(grids.Grid(grid.cond, signal, noise)))(grid.sigma, grid.alpha)
    assert np.allclose(end(grid), traced, atol=1e-12)
