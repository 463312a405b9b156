"""Samplers × grids × schedules × predictions with exact denoisers: the right law, or it says why not.

In float32, as chains run. Data at a point .3: every chain ends there, whatever its steps. Data N(.4, .5²): a chain is
affine in what it starts from and in its noise, so two starts give the law of a deterministic one exactly, and pairs of
opposite draws the mean of a random one exactly and its deviation within a standard error of .5/√(2 · 4096) = .0055.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import diffusion
from genjax.diffusion import chains, editing, grids, likelihood

KEY = jax.random.key(0)
MEAN, DEVIATION, PAIRS = 0.4, 0.5, 4096


def ho(num_steps):
    """Ho's β for another T (0.1/T to 20/T), where they are below 1."""
    return diffusion.linear_schedule(num_steps, 0.1 / num_steps, min(20 / num_steps, 0.999))


PLAIN = {"linear": ho, "cosine": diffusion.cosine_schedule, "sigmoid": diffusion.sigmoid_schedule}
SCHEDULES = PLAIN | {
    f"{name} to zero": lambda num_steps, make=make: diffusion.rescale_zero_terminal_snr(make(num_steps))
    for name, make in PLAIN.items()
}


def time_denoiser(schedule, predict="v", mean=MEAN, deviation=DEVIATION):
    """The exact denoiser of N(mean, deviation²) for a network that predicts so."""

    def denoise(x, t):
        signal, noise = (
            diffusion.at(schedule.sqrt_alpha_bar, t, x),
            diffusion.at(schedule.sqrt_one_minus_alpha_bar, t, x),
        )
        total = (signal * deviation) ** 2 + noise**2
        x0 = mean + signal * deviation**2 / total * (x - signal * mean)
        noise = noise * (x - signal * mean) / total
        target = diffusion.Prediction(x0, noise)
        output, read = {
            "noise": (noise, diffusion.from_noise),
            "x0": (x0, diffusion.from_x0),
            "v": (diffusion.to_v(schedule, target, t), diffusion.from_v),
            "score": (diffusion.to_score(schedule, target, t), diffusion.from_score),
            "fraction": (
                jnp.concatenate([noise, 0 * noise - 1], -1),
                diffusion.with_learned_variance(diffusion.from_noise),
            ),
        }[predict]
        return read(schedule, output, x, t)

    return denoise


def sigma_denoiser(mean=MEAN, deviation=DEVIATION):
    def denoise(x, sigma):
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        return sigma * (x - mean) / (deviation**2 + sigma**2)

    return denoise


def squared_errors(schedule):
    """E(x_0 - E[x_0|x_t])² of N(., .5²)."""
    return DEVIATION**2 * (1 - schedule.alpha_bar) / (schedule.alpha_bar * DEVIATION**2 + 1 - schedule.alpha_bar)


def even(spacing):
    return lambda schedule, count: grids.timesteps(schedule.num_steps, count, spacing)


TIMES = {
    "trailing": even("trailing"),
    "leading": even("leading"),
    "linspace": even("linspace"),
    "karras": grids.karras_times,
    "best": lambda schedule, count: likelihood.optimal_timesteps(schedule, squared_errors(schedule), count),
    "own": lambda schedule, count: np.unique(
        ((np.arange(1, count + 1) / count) ** 1.5 * (schedule.num_steps - 1)).astype(int)
    )[::-1],
}


def on_grid(make, **options):
    def build(schedule, times, **target):
        return make(time_denoiser(schedule, **target), grids.on_times(schedule, times), clip=False, **options)

    return build


def ancestral(variance):
    def build(schedule, times, **target):
        denoise, few = diffusion.respace(time_denoiser(schedule, **target), schedule, times)
        errors = squared_errors(schedule) if target.get("deviation", 1) else 0 * schedule.alpha_bar
        table = likelihood.optimal_variance(few, squared_error=errors[times[::-1]])
        return diffusion.ancestral(denoise, few, variance=table if variance == "optimal" else variance, clip=False)

    return build


def unknown(denoise, grid, clip):
    return editing.repaint(denoise, grid, jnp.zeros((1,)), jnp.array([False]), clip=clip)


def and_back(schedule, times, **target):
    """From the noise that DDIM draws an image from, found again."""
    grid, denoise = grids.on_times(schedule, times), time_denoiser(schedule, **target)
    there = diffusion.ddim_on_grid(denoise, grid, clip=False)
    back = diffusion.invert(denoise, grid, iterations=40)
    return lambda key, x: there(key, back(key, there(key, x)))


EXACT = {
    "ddim": on_grid(diffusion.ddim_on_grid),
    "heun": on_grid(diffusion.heun),
    "dpm_solver": on_grid(diffusion.dpm_solver),
    "invert": and_back,
}
RANDOM = {
    "ddim .5": on_grid(diffusion.ddim_on_grid, eta=0.5),
    "ddim 1": on_grid(diffusion.ddim_on_grid, eta=1.0),
    "dpm_solver_sde": on_grid(diffusion.dpm_solver_sde),
    "ancestral small": ancestral("small"),
    "ancestral large": ancestral("large"),
    "ancestral optimal": ancestral("optimal"),
    "repaint": on_grid(unknown),
}
SAMPLERS = EXACT | RANDOM


def pndm(spacing, start):
    def build(schedule, count, **target):
        options = {"num_steps": count, "spacing": spacing, "start": start}
        return diffusion.pndm(time_denoiser(schedule, **target), schedule, **options)

    return build


def pairs(keys, shape, dtype):
    """Draws and their opposites."""
    half = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys[: len(keys) // 2])
    return jnp.concatenate([half, -half])


def law(sample, random, scale=1.0):
    """Mean and deviation of what is drawn."""
    if not random:
        low, high = np.asarray(jax.jit(sample)(KEY, scale * jnp.array([[-1.0], [1.0]])), np.float64)[:, 0]
        return (low + high) / 2, abs(high - low) / 2
    keys = jax.random.split(jax.random.key(1), 2 * PAIRS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains.random, "normal", pairs)
        drawn = jax.jit(sample)(jax.random.split(KEY, 2 * PAIRS), scale * pairs(keys, (1,), jnp.float32))
    drawn = np.asarray(drawn, np.float64)
    return drawn.mean(), drawn.std()


def check_law(name, schedule, count, times):
    """The law of N(.4, .5²) from enough steps."""
    mean, deviation = law(SAMPLERS[name](schedule, times), name in RANDOM)
    assert abs(mean - MEAN) < 0.01, (mean, deviation)  # √ᾱ where a grid begins is at most .01 here
    assert abs(deviation - DEVIATION) < (0.03 if name in RANDOM else 0.02), (mean, deviation)


# Of 100 to 130 steps those of first order are .006 to .018 short in deviation (DDIM of 130 trailing times: .489).
LAWS = [  # each sampler, grid and schedule at least once; K that divide T and that do not
    ("ddim", "linear", 1000, 130, "trailing"),
    ("ddim", "sigmoid to zero", 4000, 120, "own"),
    ("heun", "cosine", 1000, 130, "trailing"),
    ("heun", "linear to zero", 1000, 100, "linspace"),
    ("dpm_solver", "linear", 1000, 130, "leading"),
    ("dpm_solver", "cosine to zero", 300, 130, "best"),
    ("invert", "cosine to zero", 1000, 130, "trailing"),
    ("ddim .5", "sigmoid", 500, 120, "linspace"),
    ("ddim 1", "cosine", 1000, 130, "own"),
    ("heun", "linear", 1000, 30, "karras"),
    ("dpm_solver_sde", "cosine", 1000, 130, "linspace"),
    ("ancestral small", "linear to zero", 130, 130, "trailing"),
    ("ancestral large", "sigmoid", 150, 150, "trailing"),
    ("ancestral optimal", "cosine to zero", 1000, 130, "trailing"),
    ("repaint", "linear to zero", 1000, 120, "trailing"),
]


@pytest.mark.parametrize(("name", "noise", "total", "count", "places"), LAWS)
def test_the_law_of_gaussian_data_is_drawn(name, noise, total, count, places):
    schedule = SCHEDULES[noise](total)
    check_law(name, schedule, count, TIMES[places](schedule, count))


@pytest.mark.slow
@pytest.mark.parametrize("noise", SCHEDULES)
@pytest.mark.parametrize(
    ("name", "total", "count"),
    [(name, *steps) for name in EXACT for steps in ((130, 100), (1000, 130), (4000, 130))]
    + [(name, 1000, 130) for name in RANDOM],
)
def test_the_law_of_gaussian_data_is_drawn_everywhere(name, total, count, noise):
    """Noise in every step costs accuracy: of 130 steps .024 in deviation, on trailing times of the linear schedule."""
    if total == 4000 and noise not in ("linear", "cosine to zero"):
        pytest.skip("two schedules are enough of the longest chain")
    schedule = SCHEDULES[noise](total)
    for places, make in TIMES.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                times = make(schedule, count)
            except ValueError as error:
                assert places == "karras" and "even" in str(error), error
                continue
            mean, deviation = law(SAMPLERS[name](schedule, times), name in RANDOM)
        if caught:
            assert places == "leading" and all(issubclass(w.category, diffusion.StartWarning) for w in caught), places
            continue
        near = 0.04 if name in RANDOM else 0.03  # DDIM on the best of 4000 times of the cosine: .026 short
        assert abs(mean - MEAN) < 0.012 and abs(deviation - DEVIATION) < near, (places, mean, deviation)


@pytest.mark.parametrize(("noise", "total", "count"), [("linear", 1000, 100), ("cosine to zero", 1000, 130)])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("start", ["runge_kutta", "linear"])
def test_the_law_of_pndm(noise, total, count, spacing, start):
    mean, deviation = law(pndm(spacing, start)(SCHEDULES[noise](total), count), False)
    assert abs(mean - MEAN) < 0.01 and abs(deviation - DEVIATION) < 0.01, (mean, deviation)


@pytest.mark.parametrize(("churn", "random"), [(0.0, False), (20.0, True)])
def test_the_law_of_heun_on_karras_grid(churn, random):
    """Which begins at N(0, 80²), so that the mean keeps .4 σ_d/80 of where it begins."""
    sample = diffusion.heun(sigma_denoiser(), diffusion.karras(40), s_churn=churn, clip=False)
    mean, deviation = law(sample, random, 80.0)
    assert abs(mean - MEAN) < 0.01 and abs(deviation - DEVIATION) < (0.03 if random else 0.005), (mean, deviation)


@pytest.mark.parametrize("noise", ["linear", "cosine to zero"])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_law_of_redrawn_images(noise, strength):
    """Images of the law, noised and drawn again, have it still."""
    schedule = SCHEDULES[noise](1000)
    grid = grids.on_times(schedule, grids.timesteps(1000, 130, "trailing"))
    edit = editing.sdedit(lambda rest: diffusion.heun(time_denoiser(schedule), rest, clip=False), grid, strength)
    mean, deviation = law(lambda key, x: edit(key, MEAN + DEVIATION * x), True)
    assert abs(mean - MEAN) < 0.01 and abs(deviation - DEVIATION) < 0.02, (mean, deviation)


SHORT = [
    ("cosine", 1, 1, "trailing"),
    ("linear to zero", 30, 7, "linspace"),
    ("sigmoid", 2, 1, "linspace"),
    ("linear", 4000, 13, "leading"),
    ("cosine to zero", 2, 2, "trailing"),
    ("sigmoid to zero", 1000, 3, "trailing"),
    ("cosine", 4000, 5, "best"),
    ("linear", 1000, 6, "karras"),
]
SHORT_OF = {"ddim": 0, "heun": 0, "dpm_solver": 1, "dpm_solver_sde": 1, "ancestral small": 2, "ancestral large": 0}


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "invert"])  # a point is drawn from any noise
def test_every_chain_of_a_point_ends_there(name):
    """x̂_0 = .3 at every place, so a chain of any length ends there, one step included."""
    run = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", diffusion.StartWarning)
        for noise, total, count, places in SHORT[SHORT_OF.get(name, 3) :: 4]:
            schedule = SCHEDULES[noise](total)
            sample = SAMPLERS[name](schedule, TIMES[places](schedule, count), mean=0.3, deviation=0.0)
            run.append(jax.jit(sample)(KEY, jnp.array([[-1.5], [0.2], [1.0]])))
    assert np.allclose(run, 0.3, atol=2e-3), run


@pytest.mark.parametrize("predict", ["noise", "x0", "v", "score", "fraction"])
def test_every_prediction_draws_the_law_and_noise_alone_is_refused_at_a_zero_terminal(predict):
    schedule = SCHEDULES["linear"](1000)
    times = grids.timesteps(1000, 110, "trailing")
    mean, deviation = law(SAMPLERS["heun"](schedule, times, predict=predict), False)
    assert abs(mean - MEAN) < 0.01 and abs(deviation - DEVIATION) < 0.01, (mean, deviation)
    zero = diffusion.rescale_zero_terminal_snr(schedule)
    for name in ("ddim", "ancestral small"):
        sample = SAMPLERS[name](zero, times, predict=predict)
        if predict in ("x0", "v"):
            assert np.isfinite(jax.eval_shape(sample, KEY, jnp.ones((2, 1))).size)
        else:
            with pytest.raises(ValueError, match="nothing of the image is left at time 999.*predict v or x_0"):
                jax.eval_shape(sample, KEY, jnp.ones((2, 1)))


def test_a_grid_with_nothing_of_the_image_wants_a_prediction_of_it():
    zero = diffusion.rescale_zero_terminal_snr(ho(100))
    grid = grids.on_times(zero, grids.timesteps(100, 10, "trailing"))
    for make in (
        diffusion.ddim_on_grid,
        diffusion.heun,
        diffusion.dpm_solver,
        diffusion.dpm_solver_sde,
        diffusion.invert,
    ):
        with pytest.raises(ValueError, match="give a Prediction, as from_v and from_x0 make it, or times that leave"):
            make(lambda x, t: x, grid)(KEY, jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="a place between the image and where nothing of it is left"):
        diffusion.invert(lambda x, t: x, grids.on_times(zero, np.array([99])))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SAMPLERS["ancestral small"](diffusion.linear_schedule(100), np.arange(100)[::-1]),
        lambda: SAMPLERS["ancestral small"](diffusion.linear_schedule(1), np.array([0])),
        lambda: SAMPLERS["ddim"](diffusion.linear_schedule(300), np.arange(300)[::-1]),
        lambda: SAMPLERS["heun"](ho(1000), grids.timesteps(1000, 501, "leading")),
        lambda: SAMPLERS["dpm_solver"](ho(1000), grids.timesteps(1000, 1, "leading")),
        lambda: SAMPLERS["dpm_solver_sde"](ho(1000), np.array([500, 2])),
        lambda: SAMPLERS["repaint"](ho(1000), np.array([500, 2])),
        lambda: pndm("leading", "linear")(ho(1000), 501),
        lambda: diffusion.heun(sigma_denoiser(), grids.karras(5, sigma_max=3.0)),
    ],
)
def test_a_chain_that_begins_where_the_law_is_another_says_by_how_much(make):
    with pytest.warns(diffusion.StartWarning, match="up to .* nats of each number"):
        make()


def test_how_far_a_chain_begins_from_noise():
    """½ log(1 + SNR) bounds D(q(x_T)‖N(0, 1)) of data of second moment 1: here of x_0 = ±1, by quadrature."""
    signal, noise = (
        diffusion.linear_schedule(100).sqrt_alpha_bar[-1],
        diffusion.linear_schedule(100).sqrt_one_minus_alpha_bar[-1],
    )
    with pytest.warns(diffusion.StartWarning, match=r"begins at 99, where a share ᾱ = 0.364 .* up to 0.23 nats"):
        grids.check_start(signal, noise, 99)
    x = np.linspace(-8, 8, 20_001)
    normal = lambda x, mean, std: np.exp(-0.5 * ((x - mean) / std) ** 2) / std / np.sqrt(2 * np.pi)
    mixed = 0.5 * (normal(x, signal, noise) + normal(x, -signal, noise))
    divergence = np.sum(mixed * np.log(mixed / normal(x, 0, 1))) * (x[1] - x[0])
    assert 0 < divergence < 0.5 * np.log1p((signal / noise) ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diffusion.ancestral(lambda x, t: x, ho(100))  # 0.1/T to 20/T
        diffusion.ddim_on_grid(
            lambda x, t: x, grids.PartialGrid(*grids.on_times(diffusion.linear_schedule(100), np.array([5, 2])))
        )
