"""The pure functions of a run, which XLA compiles: its start, its steps and its evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from genjax import random
from genjax.random import Stream
from genjax.training import parallel, state, steps
from genjax.types import Data, Key, Metrics, Params
from train.run import sweep
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Programs:
    """Functions of a run, each for all members of its ensemble at once.

    Attributes:
      task_of: task of a member, by the member's value of the swept setting; by None where no setting is swept.
      ensemble: members of the run.
    """

    task_of: Callable[[Any], Task]
    ensemble: sweep.Ensemble

    def start(self, keys: Key, values: Any) -> state.TrainState:
        """The state before the first step."""

        def start(key: Key, value: Any) -> state.TrainState:
            task = self.task_of(value)
            carry = task.carry(random.stream(key, Stream.CARRY)) if task.carry else ()
            return state.create(task.init(random.stream(key, Stream.INIT)), task.optimizer, carry)

        return self.ensemble.lift(start, ())(keys, values)

    def advance(self, num: int) -> parallel.Run:
        """The run of ``num`` steps, ``((keys, values), state, rows) -> (state, metrics)``, metrics [num] or [num m]."""

        def advance(key: Key, value: Any, state: state.TrainState, rows: Data) -> tuple[state.TrainState, Metrics]:
            task = self.task_of(value)
            ema_decay = self.ensemble.settings.ema_decay
            step = steps.gradient_step(task.loss, task.optimizer, ema_decay=ema_decay, axis_name=parallel.AXIS)
            return steps.repeat(task.wrap_step(step), task.sample_batch, num)(key, state, rows)

        lifted = self.ensemble.lift(advance, (0, None), (0, 1))
        return lambda members, state, rows: lifted(*members, state, rows)

    def evaluate(self, keys: Key, values: Any, params: Params, rows: Data) -> Metrics:
        """The held-out metrics, scalar or [m]; "loss" is the score of the task."""

        def evaluate(key: Key, value: Any, params: Params, rows: Data) -> Metrics:
            evaluation = steps.evaluate(self.task_of(value).evaluate, self.ensemble.settings.batch_size)
            return evaluation(random.stream(key, Stream.HELDOUT), params, rows)

        return self.ensemble.lift(evaluate, (0, None))(keys, values, params, rows)

    def check_sweep(self, rows: Data) -> None:
        """Refuse members that cannot be trained in one program, by a step and an evaluation that are only traced.

        Args:
          rows: shapes and types of a batch.

        Raises:
          UsageError: the swept setting cannot vary within a program, or makes no difference.
        """

        def trial(keys: Key, values: Any, rows: Data) -> tuple[Metrics, Metrics]:
            advanced, metrics = self.advance(1)((keys, values), self.start(keys, values), rows)
            return metrics, self.evaluate(keys, values, advanced.ema_params, rows)

        sweep.check(self.ensemble, jax.vmap(trial, in_axes=None, axis_name=parallel.AXIS, axis_size=1), rows)
