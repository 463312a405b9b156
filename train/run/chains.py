"""Reverse chains of diffusion models by the options of ``train.sample``."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from genjax import diffusion
from genjax.diffusion import likelihood
from genjax.types import Images, Key, Params
from train.run import conditions, config, documents, usage
from train.run.recipe import SampleOptions, Sampler, Spacing

Chain = Callable[[diffusion.Denoise, diffusion.Grid], diffusion.Sample]
"""A sampler on a grid, ``(denoise, grid) -> sample``."""

Clip = bool | Callable[[jax.Array], jax.Array]
"""The clipping of x̂_0, as the samplers of ``genjax.diffusion`` take it."""

FixedVariance = Literal["small", "large"]
"""The variance of a reverse step: β̃_t or β_t."""

OPTIONS: dict[str, conditions.Conditions] = {"sampler": (), "steps": (), "eta": conditions.needs(sampler="ddim")}
"""The options of ``train.sample`` that every diffusion model reads."""

PROCESS_OPTIONS: dict[str, conditions.Conditions] = {
    **OPTIONS,
    "spacing": (
        conditions.Condition(
            lambda options: bool(options.steps) or options.sampler not in ("", "ancestral"),
            "with --steps, or with a --sampler other than ancestral",
        ),
    ),
    "terms": (
        conditions.Condition(
            lambda options: options.spacing == "best" or options.sampler in ("", "ancestral"),
            "with --sampler ancestral or --spacing best",
        ),
        conditions.Condition(
            lambda options: options.spacing == "best" or options.variance != "learned",
            "of a run whose network does not say the variances itself, or with --spacing best",
        ),
    ),
}
"""The options of ``train.sample`` that a process of T steps reads."""


def on_grid(options: SampleOptions, default: str, clip: Clip = True) -> Chain:
    """Make the chain on a grid that the options name.

    Args:
      options: options of ``train.sample``.
      default: name of the sampler where the options name none.
      clip: clipping of x̂_0.

    Raises:
      UsageError: the sampler is not one on a grid.
    """
    samplers: dict[str, Callable[..., diffusion.Sample]] = {
        "ancestral": functools.partial(diffusion.ddim_on_grid, eta=1.0),
        "ddim": functools.partial(diffusion.ddim_on_grid, eta=options.eta),
        "euler": diffusion.ddim_on_grid,
        "heun": diffusion.heun,
        "dpm_solver": diffusion.dpm_solver,
        "dpm_solver_sde": diffusion.dpm_solver_sde,
    }
    name = options.sampler or default
    if name not in samplers:
        raise config.UsageError(f"sampler: {name} wants a process of T steps; expected {', '.join(samplers)}")
    return functools.partial(samplers[name], clip=clip)


def sampler(options: SampleOptions, default: str, timesteps: int, build: Callable[[Chain, int], Any]) -> Sampler:
    """Make the sampler of a model that draws on a grid, for ``train.sample``.

    Args:
      options: options of ``train.sample``.
      default: name of the sampler where the options name none.
      timesteps: steps of the default sampler, where the options name no number; another sampler takes 50.
      build: maker of the model, ``(chain, num_steps) -> model``.

    Raises:
      UsageError: the sampler is not one on a grid.
    """
    num_steps = options.steps or (timesteps if options.sampler in ("", default) else 50)
    model = build(on_grid(options, default), num_steps)

    def draw(keys: Key, params: Params, num: int, first: jax.Array) -> Images:
        return model.sample(keys, params, num)

    return Sampler(model.init, draw)


def of_process(
    options: SampleOptions, timesteps: int, variance: FixedVariance, clip: Clip
) -> Callable[[diffusion.Denoise, diffusion.Schedule], diffusion.Sample]:
    """Make the reverse chain of a process of T steps that the options name, ``(denoise, schedule) -> sample``.

    Args:
      options: options of ``train.sample``.
      timesteps: T.
      variance: variance of the ancestral steps, where ``terms`` names no optimal ones.
      clip: clipping of x̂_0.

    Raises:
      UsageError: options that do not fit each other or the process.
    """
    errors = _squared_error(options, timesteps)
    if options.spacing == "best" and errors is None:
        raise config.UsageError("spacing: best wants --terms FILE, which train.evaluate --out FILE writes")
    ancestral = functools.partial(_ancestral, errors, variance, clip)
    name = options.sampler or "ancestral"
    if name == "ancestral" and not options.steps:
        return lambda denoise, schedule: ancestral(denoise, schedule, slice(None))
    count = options.steps or min(50, timesteps)
    if not count <= timesteps:
        raise config.UsageError(f"steps: expected 1 to {timesteps}, the steps of the run's process; got {count}")
    if name == "pndm":
        return _pndm(options.spacing, count)
    times = functools.partial(_times, options.spacing, errors, count)

    def sampler(denoise: diffusion.Denoise, schedule: diffusion.Schedule) -> diffusion.Sample:
        chosen = times(schedule)
        if name == "ancestral":
            return ancestral(*diffusion.respace(denoise, schedule, chosen), chosen[::-1])
        return on_grid(options, name, clip)(denoise, diffusion.on_times(schedule, chosen))

    return sampler


def _ancestral(
    errors: np.ndarray | None,
    variance: FixedVariance,
    clip: Clip,
    denoise: diffusion.Denoise,
    schedule: diffusion.Schedule,
    times: Any,
) -> diffusion.Sample:
    """Make the ancestral chain at some times of the process, with the optimal variances where errors are known."""
    if errors is None:
        return diffusion.ancestral(denoise, schedule, variance=variance, clip=clip)
    table = likelihood.optimal_variance(schedule, squared_error=errors[times])
    return diffusion.ancestral(denoise, schedule, variance=table, clip=clip)


def _pndm(spacing: Spacing, count: int) -> Callable[..., diffusion.Sample]:
    if spacing == "karras" or spacing == "best":
        raise config.UsageError("spacing: pndm wants even steps; expected trailing, leading or linspace")
    return functools.partial(diffusion.pndm, num_steps=count, spacing=spacing or "trailing")


def _times(spacing: Spacing, errors: np.ndarray | None, count: int, schedule: diffusion.Schedule) -> Any:
    """Choose the times of the process that a shorter chain visits, from the last one down."""
    if spacing == "karras":
        return diffusion.karras_times(schedule, count)
    if spacing == "best":
        assert errors is not None
        return likelihood.optimal_timesteps(schedule, errors, count)
    return diffusion.timesteps(schedule.num_steps, count, spacing or "trailing")


def _squared_error(options: SampleOptions, timesteps: int) -> np.ndarray | None:
    """Read E|x_0 - x̂_0|² per dimension at each time from the file ``terms``; None where there is none.

    Raises:
      UsageError: the file is something else, or of another process.
    """
    if not options.terms:
        return None
    path = pathlib.Path(options.terms)
    try:
        by_time = documents.json_object(path).get("by_time")
        values = by_time.get("squared_error") if isinstance(by_time, dict) else None
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"by_time.squared_error: expected a list of numbers, got {usage.show(values)}")
        errors = np.array(values, np.float64)
        if not (np.isfinite(errors) & (errors >= 0)).all():
            raise ValueError("by_time.squared_error: expected finite numbers of at least 0")
    except (ValueError, OverflowError) as error:
        raise config.UsageError(
            f"terms: {path} is not what train.evaluate --out writes of train.ddpm: {error}"
        ) from error
    if errors.shape != (timesteps,):
        raise config.UsageError(f"terms: {path} is of {len(errors)} times; {options.workdir} has {timesteps}")
    return errors
