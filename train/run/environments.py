"""Exact tables and drawings of the environments, for the figures of a policy."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from genjax.envs import tables
from genjax.theory import mdp

TABLES: dict[str, Callable[[], mdp.MDP]] = {
    "chain": tables.chain_mdp,
    "grid": tables.grid_mdp,
    **{f"ladder{rung}": functools.partial(tables.ladder_mdp, rung) for rung in range(1, 6)},
}
"""Exact decision processes of the environments with few states."""


class Plane(NamedTuple):
    """The two numbers of an observation that say most, and a drawing of it.

    Attributes:
      labels: names of the two numbers.
      reach: largest absolute values of the two numbers.
      observe: observations [... o] of arrays of the two numbers; the other numbers are 0.
      action: name of the last action.
      draw: polylines of an observation.
      size: half the width of a drawing.
    """

    labels: tuple[str, str]
    reach: tuple[float, float]
    observe: Callable[[np.ndarray, np.ndarray], np.ndarray]
    action: str
    draw: Callable[[np.ndarray], list[np.ndarray]]
    size: float


def _draw_cartpole(observation: np.ndarray) -> list[np.ndarray]:
    x, theta = observation[0], observation[2]
    cart = np.array([[x - 0.25, 0], [x + 0.25, 0]])
    return [cart, np.array([[x, 0], [x + np.sin(theta), np.cos(theta)]])]


def _draw_acrobot(observation: np.ndarray) -> list[np.ndarray]:
    first = np.arctan2(observation[1], observation[0])
    both = first + np.arctan2(observation[3], observation[2])
    joint = np.array([np.sin(first), -np.cos(first)])
    tip = joint + np.array([np.sin(both), -np.cos(both)])
    return [np.array([[-2.0, 0.0], [2.0, 0.0]]) * 0.1, np.stack([np.zeros(2), joint, tip])]


PLANES = {
    "cartpole": Plane(
        ("angle", "its rate"), (0.21, 2.0),
        lambda x, y: np.stack([0 * x, 0 * x, x, y], -1), "right", _draw_cartpole, 1.4,
    ),
    "acrobot": Plane(
        ("angle of the first link", "its rate"), (np.pi, 6.0),
        lambda x, y: np.stack([np.cos(x), np.sin(x), 1 + 0 * x, 0 * x, y, 0 * x], -1), "torque 1", _draw_acrobot, 2.2,
    ),
}  # fmt: skip
"""Environments whose observations are drawn; the others have tables."""
