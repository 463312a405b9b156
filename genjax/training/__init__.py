"""Training of any model: one state, one step, one chain of steps, on one device or several."""

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

__getattr__, __dir__ = attach(__name__, __all__)
