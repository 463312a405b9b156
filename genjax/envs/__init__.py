"""Environments as pure functions: a reset, a kernel, an observation."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from genjax.envs.classic import acrobot, cartpole
from genjax.envs.environment import Environment, Step, Transition, episodes
from genjax.envs.tables import chain, grid, ladder, tabular
from genjax.lazy import attach

__all__ = [
    "ENVIRONMENTS",
    "Environment",
    "Step",
    "Transition",
    "acrobot",
    "cartpole",
    "chain",
    "classic",
    "environment",
    "episodes",
    "grid",
    "ladder",
    "tables",
    "tabular",
]

ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "cartpole": cartpole,
    "acrobot": acrobot,
    "chain": chain,
    "grid": grid,
    **{f"ladder{rung}": functools.partial(ladder, rung) for rung in range(1, 6)},
}
"""Constructors of the environments, by name."""

if TYPE_CHECKING:  # for editors and type checkers; the modules are imported at first use
    from genjax.envs import classic, environment, tables
else:
    __getattr__, __dir__ = attach(__name__, __all__)
