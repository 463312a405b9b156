"""Samplers step by step against diffusers' schedulers on the same times; diffusers computes its tables in float32."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")

from genjax import diffusion
from genjax.diffusion import grids, samplers, solvers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
LINEAR = diffusion.linear_schedule(1000)
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(2, 3, 4, 4))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def ours_denoise(x, t):
    """A curved field that depends on time."""
    t = t.reshape(-1, 1, 1, 1)
    return jnp.tanh(0.7 * x + 0.2) * (0.4 + t / 2000) + 0.1 * x


def theirs_denoise(x, t):
    return torch.tanh(0.7 * x + 0.2) * (0.4 + float(t) / 2000) + 0.1 * x


def theirs(scheduler, num_steps, scaled=False, **extra):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.set_timesteps(num_steps)
        if hasattr(scheduler, "alphas_cumprod"):
            scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        x = torch.tensor(X)
        if scaled:
            x = x * float(scheduler.sigmas[0] ** 2 + 1) ** 0.5
        for t in scheduler.timesteps:
            seen = scheduler.scale_model_input(x, t) if scaled else x
            x = scheduler.step(theirs_denoise(seen, t), t, x, **extra).prev_sample.double()
    return x.numpy(), [int(t) for t in scheduler.timesteps]


def close(ours, theirs, tolerance=2e-5):
    """Within the rounding of float32 tables."""
    return np.abs(np.asarray(ours) - theirs).max() < tolerance * np.abs(theirs).max()


CONFIG = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("num_steps", [10, 13])
def test_ddim(spacing, num_steps):
    scheduler = diffusers.DDIMScheduler(**CONFIG, timestep_spacing=spacing, clip_sample=True)
    end, times = theirs(scheduler, num_steps, use_clipped_model_output=True)
    ours = lambda grid: samplers.ddim_on_grid(ours_denoise, grid)(KEY, jnp.asarray(X))
    assert times == diffusion.timesteps(1000, num_steps, spacing).tolist()
    if spacing == "leading" or 1000 % num_steps == 0:  # elsewhere diffusers takes T // K for the step before
        assert close(ours(grids.on_times(LINEAR, np.array(times))), end)
        assert not close(ours(grids.on_times(LINEAR, np.array([t - 1 for t in times[:-1]] + [times[-1]]))), end)


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_dpm_solver(algorithm, monkeypatch):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **CONFIG, algorithm_type=algorithm, timestep_spacing="trailing", solver_order=2, final_sigmas_type="zero"
    )
    draws = np.random.default_rng(1).normal(size=(12, *X.shape))
    scheduler.set_timesteps(12)
    x, times = torch.tensor(X), scheduler.timesteps
    for i, t in enumerate(times):
        noise = torch.tensor(draws[i]) if algorithm.startswith("sde") else None
        x = scheduler.step(theirs_denoise(x, t), t, x, variance_noise=noise).prev_sample.double()
    count = iter(range(12))
    monkeypatch.setattr(solvers.random, "normal", lambda keys, shape, dtype: jnp.asarray(draws[next(count)]))
    make = solvers.dpm_solver_sde if algorithm.startswith("sde") else solvers.dpm_solver
    with jax.disable_jit():
        grid = grids.on_times(LINEAR, np.array([int(t) for t in times]))
        ours = make(ours_denoise, grid, clip=False)(KEY, jnp.asarray(X))
    assert close(ours, x.numpy(), 1e-4)


@pytest.mark.parametrize("start", ["runge_kutta", "linear"])
def test_pndm(start):
    scheduler = diffusers.PNDMScheduler(
        **CONFIG, skip_prk_steps=start == "linear", set_alpha_to_one=True, timestep_spacing="leading"
    )
    end, times = theirs(scheduler, 10)
    sampler = solvers.pndm(ours_denoise, LINEAR, num_steps=10, spacing="leading", start=start)
    ours = sampler(KEY, jnp.asarray(X))
    assert close(ours, end, 1e-4), (np.abs(np.asarray(ours) - end).max(), times)


@pytest.mark.parametrize(("name", "make"), [
    ("EulerDiscreteScheduler", lambda grid: samplers.ddim_on_grid(ours_denoise, grid, clip=False)),
    ("HeunDiscreteScheduler", lambda grid: solvers.heun(ours_denoise, grid, clip=False)),
])  # fmt: skip
def test_euler_and_heun(name, make):
    scheduler = getattr(diffusers, name)(**CONFIG, timestep_spacing="trailing")
    end, times = theirs(scheduler, 10, scaled=True)
    ours = make(grids.on_times(LINEAR, np.array(list(dict.fromkeys(times)))))(KEY, jnp.asarray(X))
    assert close(ours, end, 1e-4)


def test_ddpm(monkeypatch):
    scheduler = diffusers.DDPMScheduler(**CONFIG, variance_type="fixed_small", clip_sample=True)
    draws = np.random.default_rng(2).normal(size=(1000, *X.shape))
    scheduler.set_timesteps(1000)
    count = iter(range(1000))
    take = lambda *args, **kwargs: torch.tensor(draws[next(count)])
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", take)
    x = torch.tensor(X)
    for t in scheduler.timesteps:
        x = scheduler.step(theirs_denoise(x, t), t, x).prev_sample.double()

    def noise(keys, shape, dtype):
        return jnp.asarray(draws)[999 - seen[0]]

    seen = []

    def denoise(x, t):
        seen[:] = [t[0]]
        return ours_denoise(x, t)

    monkeypatch.setattr(samplers.random, "normal", noise)
    ours = diffusion.ancestral(denoise, LINEAR)(KEY, jnp.asarray(X))
    assert close(ours, x.numpy(), 1e-4)
