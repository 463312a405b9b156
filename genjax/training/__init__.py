"""Training of any model: one state, one step, one chain of steps, on one device or several."""

from typing import TYPE_CHECKING

from genjax.lazy import attach
from genjax.training.state import TrainState, create
from genjax.training.steps import (
    Carried,
    evaluate,
    gradient_step,
    minibatch_updates,
    repeat,
    rows,
    with_schedule,
    with_stratified_times,
)

__all__ = [
    "Carried",
    "TrainState",
    "create",
    "evaluate",
    "gradient_step",
    "minibatch_updates",
    "parallel",
    "repeat",
    "rows",
    "state",
    "steps",
    "with_schedule",
    "with_stratified_times",
]

if TYPE_CHECKING:  # for editors and type checkers; the modules are imported at first use
    from genjax.training import parallel, state, steps
else:
    __getattr__, __dir__ = attach(__name__, __all__)
