"""Decision processes with tables of transitions and rewards: values and policies exactly (Sutton & Barto 2018).

    Q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) V(s'),  V(s) = Σ_a π(a|s) Q(s, a), or max_a Q(s, a) of the best policy,
with V = 0 in states that end an episode. The notes' Q(s, a) ≈ r + V(s') is this with one s' and γ = 1.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from genjax.theory import simplex

Values = Float[np.ndarray, " s"]
ActionValues = Float[np.ndarray, "s a"]


class Decisions(NamedTuple):
    """A finite decision process.

    Fields:
      transition: P(s'|s, a).
      reward: r(s, a), of the step.
      start: probabilities of the first state.
      terminal: states that end an episode when they are entered.
    """

    transition: Float[np.ndarray, "s a s"]
    reward: ActionValues
    start: Values
    terminal: Bool[np.ndarray, " s"]


def check(tables: Decisions) -> None:
    """Refuse tables that are no decision process.

    Raises:
      ValueError: shapes that do not fit, or rows that are no probabilities.
    """
    s, a = tables.reward.shape
    if tables.transition.shape != (s, a, s) or tables.start.shape != (s,) or tables.terminal.shape != (s,):
        raise ValueError(
            f"tables: expected transition [s a s], reward [s a], start [s] and terminal [s]; got "
            f"{tables.transition.shape}, {(s, a)}, {tables.start.shape}, {tables.terminal.shape}"
        )
    simplex.check("transition", tables.transition)
    simplex.check("start", tables.start)


def action_values(tables: Decisions, values: Values, discount: float) -> ActionValues:
    """Q(s, a) = r(s, a) + γ Σ P(s'|s, a) V(s'), V being 0 where an episode ends (Sutton & Barto 2018, eq. 3.20)."""
    return tables.reward + discount * tables.transition @ np.where(tables.terminal, 0, values)


def policy_values(tables: Decisions, policy: ActionValues, discount: float) -> Values:
    """V of a policy π(a|s), by solving its linear equations (eq. 3.14).

    Raises:
      LinAlgError: γ = 1 and an episode that may never end.
    """
    onward = np.einsum("sa,sat->st", policy, tables.transition) * ~tables.terminal
    return np.linalg.solve(np.eye(len(onward)) - discount * onward, (policy * tables.reward).sum(1))


def value_iteration(
    tables: Decisions, discount: float, *, tolerance: float = 1e-12
) -> tuple[Values, Int[np.ndarray, " s"]]:
    """V of the best policy, and its actions, the first of equals (eq. 4.10); the error is at most γ tol / (1 - γ).

    >>> coin = Decisions(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), np.ones(1), np.zeros(1, bool))
    >>> value_iteration(coin, 0.5)
    (array([2.]), array([1]))

    Raises:
      ValueError: the discount is outside [0, 1), or 1 without an end in reach.
    """
    if not 0 <= discount <= 1:
        raise ValueError(f"discount: expected 0 to 1, got {discount:g}")
    values = np.zeros(len(tables.reward))
    for _ in range(10_000 if discount == 1 else 1_000_000):  # below 1 it converges
        new = action_values(tables, values, discount).max(1)
        if np.abs(new - values).max() <= tolerance:
            return new, action_values(tables, new, discount).argmax(1)
        values = new
    raise ValueError(f"discount: {discount:g} does not converge here; an episode may never end, so take one below 1")
