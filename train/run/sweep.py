"""Ensembles: many runs in one program, over seeds and over the values of a setting.

A training run is a pure function of its key, its settings and the data, so ``jax.vmap`` of it is many runs. Member i is
the run that ``--seed`` and the setting alone would train, up to the rounding of batched matrix products.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import errors

from genjax.types import Key
from train.run import conditions
from train.run.schemas import Run
from train.run.usage import UsageError

WRONG_TYPE = (errors.ConcretizationTypeError, errors.TracerArrayConversionError)
"""Errors of JAX for a traced number that would have to decide what the program is."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The members of a run: every value with every seed, value by value.

    Attributes:
      settings: settings of the run.
      name: name of the swept setting; empty without a sweep.
      values: value of the swept setting by member; None without a sweep.
      seeds: seed by member.
      many: True where arrays have a leading axis of members.
    """

    settings: Run
    name: str
    values: np.ndarray | None
    seeds: np.ndarray
    many: bool

    @property
    def keys(self) -> Key:
        """The key of the run, or the keys of its members [m]."""
        return jax.vmap(jax.random.key)(self.seeds) if self.many else jax.random.key(self.settings.seed)

    @property
    def keys_and_values(self) -> tuple[Key, np.ndarray | None]:
        """Keys and values, the first two arguments of functions made by ``lift``."""
        return self.keys, self.values

    def with_value(self, value: Any) -> Any:
        """The settings of the members with this value."""
        return self.settings if value is None else dataclasses.replace(self.settings, **{self.name: value})

    def lift(self, run: Callable[..., Any], in_axes: tuple[int | None, ...], out_axes: Any = 0) -> Callable[..., Any]:
        """Vectorise ``run(key, value, *args)`` over the members; for a single run the function itself.

        Args:
          run: function of one member.
          in_axes: axis of the members in each of ``args``; None where members share the argument.
          out_axes: axis of the members in the results.
        """
        if not self.many:
            return run
        values = None if self.values is None else 0
        return jax.vmap(run, (0, values, *in_axes), out_axes)

    def first(self, tree: Any) -> Any:
        """The arrays of the first member."""
        return jax.tree.map(lambda array: array[0], tree) if self.many else tree

    def describe(self, i: int) -> str:
        """Describe member i for messages."""
        value = "" if self.values is None else f", {self.name} {self.values[i]:g}"
        return f"seed {self.seeds[i]}{value}"


def ensemble(settings: Run) -> Ensemble:
    """Make the ensemble that ``--num-seeds`` and ``--sweep`` ask for.

    Raises:
      UsageError: the sweep names no numeric setting, or its values are invalid.
    """
    seeds = settings.seed + np.arange(settings.num_seeds, dtype=np.uint32)
    if not settings.sweep:
        return Ensemble(settings, "", None, seeds, settings.num_seeds > 1)
    name, _, text = settings.sweep.partition("=")
    name = name.strip().replace("-", "_")
    _check_name(settings, name)
    values = _values(settings, name, text)
    by_member = np.repeat(np.array(values, np.float32), settings.num_seeds)
    return Ensemble(settings, name, by_member, np.tile(seeds, len(values)), True)


def _check_name(settings: Run, name: str) -> None:
    kinds = typing.get_type_hints(type(settings))
    # the average has one decay for all members
    numbers = [field for field, kind in kinds.items() if kind is float and field != "ema_decay"]
    if name not in numbers:
        raise UsageError(f"--sweep {settings.sweep}: expected NAME=V1,V2,... where NAME is one of {', '.join(numbers)}")
    if idle := conditions.without_effect(conditions.table(type(settings)), settings, [name]):
        reason = idle[name].partition("; ")[2]
        raise UsageError(
            f"--sweep {name}: with the other settings as they are this number makes no difference; {reason}"
        )


def _values(settings: Run, name: str, text: str) -> Sequence[float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--sweep {settings.sweep}: expected numbers after {name}=, separated by commas") from error
    for value in values:
        change: dict[str, Any] = {name: value}
        if not math.isfinite(value):
            raise UsageError(f"--sweep {settings.sweep}: expected finite numbers, got {value}")
        if problems := dataclasses.replace(settings, **change).problems():
            raise UsageError(f"--sweep {settings.sweep}: {'; '.join(problems)}")
    return values


def check(ensemble: Ensemble, trial: Callable[..., Any], *args: Any) -> None:
    """Refuse a swept setting that cannot vary within a program, or that the program does not use.

    Nothing is computed: the trial is only traced.

    Args:
      ensemble: members of the run.
      trial: a step and an evaluation of all members, ``(keys, values, *args)``.
      args: shapes and types of the other arguments.

    Raises:
      UsageError: the setting cannot be swept; the message says what to do instead.
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
    """The standard error of the mean of some members' numbers; NaN for one member."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
