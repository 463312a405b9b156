"""Many runs in one program: seeds, and values of a setting.

A training run is a pure function of its key, its settings and the data, so ``jax.vmap`` of it is many runs. Member i
is what ``--seed`` and the setting alone would train, up to the rounding of batched matrix products.
"""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import errors

from genjax.types import Key
from train.run import conditions
from train.run.config import Run, UsageError

WRONG_TYPE = (errors.ConcretizationTypeError, errors.TracerArrayConversionError)
"""What JAX raises where a number that varies within a program would have to decide what the program is."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The members of a run: every value with every seed, value by value.

    Fields:
      settings: of the run.
      name: of the setting that varies, or empty.
      values: of it, one for each member; None where nothing varies.
      seeds: one for each member.
      many: whether arrays have a leading axis of members.
    """

    settings: Run
    name: str
    values: np.ndarray | None
    seeds: np.ndarray
    many: bool

    @property
    def keys(self) -> Key:
        """The run's key, or the members' keys [m]."""
        return jax.vmap(jax.random.key)(self.seeds) if self.many else jax.random.key(self.settings.seed)

    @property
    def keys_and_values(self) -> tuple[Key, np.ndarray | None]:
        """Keys and values, as ``lift``ed functions take them."""
        return self.keys, self.values

    def with_value(self, value: Any) -> Any:
        """The settings of a member."""
        return self.settings if value is None else dataclasses.replace(self.settings, **{self.name: value})

    def lift(self, run: Callable, in_axes: tuple[int | None, ...], out_axes: Any = 0) -> Callable:
        """``run(key, value, *args)`` for all members at once; for a single run the function itself.

        Args:
          run: of one member.
          in_axes: of ``args``: 0 where each member has its own.
          out_axes: where the axis of members goes.
        """
        if not self.many:
            return run
        values = None if self.values is None else 0
        return jax.vmap(run, (0, values, *in_axes), out_axes)

    def first(self, tree: Any) -> Any:
        """The first member's."""
        return jax.tree.map(lambda array: array[0], tree) if self.many else tree

    def describe(self, i: int) -> str:
        """Who member i is."""
        value = "" if self.values is None else f", {self.name} {self.values[i]:g}"
        return f"seed {self.seeds[i]}{value}"


def ensemble(settings: Run) -> Ensemble:
    """The members that ``--num-seeds`` and ``--sweep`` ask for.

    Raises:
      UsageError: the sweep names no number, or values that cannot be.
    """
    seeds = settings.seed + np.arange(settings.num_seeds, dtype=np.uint32)
    if not settings.sweep:
        return Ensemble(settings, "", None, seeds, settings.num_seeds > 1)
    name, _, text = settings.sweep.partition("=")
    name = name.strip().replace("-", "_")
    kinds = typing.get_type_hints(type(settings))
    numbers = [
        field for field, kind in kinds.items() if kind is float and field != "ema_decay"
    ]  # the loop has one average
    if name not in numbers:
        raise UsageError(f"--sweep {settings.sweep}: expected NAME=V1,V2,... where NAME is one of {', '.join(numbers)}")
    if idle := conditions.without_effect(conditions.table(type(settings)), settings, [name]):
        why = idle[name].partition("; ")[2]
        raise UsageError(f"--sweep {name}: with the other settings as they are this number makes no difference; {why}")
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--sweep {settings.sweep}: expected numbers after {name}=, separated by commas") from error
    for value in values:
        change: dict[str, Any] = {name: value}
        if not math.isfinite(value):
            raise UsageError(f"--sweep {settings.sweep}: expected finite numbers, got {value}")
        if found := dataclasses.replace(settings, **change).problems():
            raise UsageError(f"--sweep {settings.sweep}: {'; '.join(found)}")
    every_value = np.repeat(np.array(values, np.float32), settings.num_seeds)
    return Ensemble(settings, name, every_value, np.tile(seeds, len(values)), True)


def check(ensemble: Ensemble, trial: Callable[..., Any], *args: Any) -> None:
    """Refuse a setting that cannot vary within a program, or that the program does not use; nothing is computed.

    Args:
      ensemble: the members.
      trial: ``(keys, values, *args)``: a step of all of them, and an evaluation.
      args: shapes and types.

    Raises:
      UsageError: what to do instead.
    """
    try:
        traced = jax.make_jaxpr(trial)(*ensemble.keys_and_values, *args).jaxpr
    except WRONG_TYPE as error:
        raise UsageError(
            f"--sweep {ensemble.name}: this number decides which program is run, so it cannot vary within one; "
            "start a run for each value"
        ) from error
    used = {id(variable) for equation in traced.eqns for variable in equation.invars}
    if ensemble.name and id(traced.invars[1]) not in used:
        raise UsageError(
            f"--sweep {ensemble.name}: with the other settings as they are this number makes no difference; "
            "all members would be the same"
        )


def standard_error(values: np.ndarray) -> float:
    """Of the mean of some members' numbers; NaN for one."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
