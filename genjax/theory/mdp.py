"""Decision processes with tables of transitions and rewards: values and policies exactly (Sutton & Barto 2018).

    Q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) V(s'),  V(s) = Σ_a π(a|s) Q(s, a), or max_a Q(s, a) of the best policy,
with V = 0 in states that end an episode. The notes' Q(s, a) ≈ r + V(s') is this with one s' and γ = 1.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from genjax import checks
from genjax.theory import simplex

Values = Float[np.ndarray, " s"]
ActionValues = Float[np.ndarray, "s a"]


class MDP(NamedTuple):
    """A finite decision process.

    Fields:
      transition: P(s'|s, a) [s a s].
      reward: r(s, a), of the step [s a].
      start: probabilities of the first state [s].
      terminal: states that end an episode when they are entered [s].
    """

    transition: Any
    reward: Any
    start: Any
    terminal: Any


def check(tables: MDP) -> None:
    """Refuse tables that are no decision process.

    Raises:
      ValueError: shapes that do not fit, rows that are no probabilities, or a reward that is not finite.
    """
    shapes = [np.shape(table) for table in tables]
    s, a = shapes[1] if len(shapes[1]) == 2 else (0, 0)
    if s * a == 0 or shapes != [(s, a, s), (s, a), (s,), (s,)]:
        raise ValueError(
            f"tables: expected transition [s a s], reward [s a], start [s] and terminal [s]; got "
            f"{', '.join(map(str, shapes))}"
        )
    simplex.check("transition", tables.transition)
    simplex.check("start", tables.start)
    checks.finite("reward", tables.reward)
    if (dtype := np.asarray(tables.terminal).dtype).kind != "b":
        raise ValueError(f"terminal: expected truth values, got {dtype}")


def action_values(tables: MDP, values: Any, discount: float | int) -> ActionValues:
    """Q(s, a) = r(s, a) + γ Σ P(s'|s, a) V(s') (Sutton & Barto 2018, eq. 3.20); V and Q are 0 where an episode ends.

    Raises:
      ValueError: the tables are no decision process, the discount is outside [0, 1], or not one finite value a state.
    """
    transition, reward, terminal = _read(tables, discount)
    checks.finite("values", values)
    if np.shape(values) != terminal.shape:
        raise ValueError(f"values: expected one of each of {len(terminal)} states, got the shape {np.shape(values)}")
    return reward + discount * transition @ np.where(terminal, 0, np.asarray(values, np.float64))


def policy_values(tables: MDP, policy: Any, discount: float | int) -> Values:
    """V of a policy π(a|s) [s a], by solving its linear equations (eq. 3.14); 0 in states that end an episode.

    Raises:
      ValueError: as ``action_values``, or rows of the policy are no probabilities; or γ = 1 and an episode may never
        end, while there are rewards.
    """
    transition, reward, _ = _read(tables, discount)
    simplex.check("policy", policy)
    chances = np.asarray(policy, np.float64)
    if chances.shape != reward.shape:
        raise ValueError(f"policy: expected the shape {reward.shape} of the rewards, got {chances.shape}")
    return _evaluate(transition, reward, chances / chances.sum(1, keepdims=True), discount)


def value_iteration(
    tables: MDP, discount: float | int, *, tolerance: float | int = 1e-12
) -> tuple[Values, Int[np.ndarray, " s"]]:
    """V of the best policy, and its actions, the first of equals: by improving a policy (Howard 1960; §4.3).

    Each policy's values are those of its linear equations, to rounding / (1 - γ), so no discount is too near to 1. With
    γ = 1 the first policy is one that ends, or that stays for ever where nothing is lost or won.

    >>> coin = MDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), np.ones(1), np.zeros(1, bool))
    >>> value_iteration(coin, 0.5)
    (array([2.]), array([1]))

    Args:
      tables: the process.
      discount: γ.
      tolerance: actions whose values differ by less, relative to the differences between states, are equals.

    Raises:
      ValueError: the tables are no decision process, the discount is outside [0, 1], or it is 1 and the rewards of an
        episode that never ends add up to no number.
    """
    checks.within("tolerance", tolerance, 0, 1)
    transition, reward, terminal = _read(tables, discount)
    s, a = reward.shape
    policy = _ending(transition, reward, terminal) if discount == 1 else reward.argmax(1)
    for _ in range(s * a + 1000):
        values = _evaluate(transition, reward, np.eye(a)[policy], discount)
        each = reward + discount * transition @ values
        slack = tolerance * max(np.ptp(values), np.abs(reward).max()) + 8 * np.spacing(np.abs(values).max())
        near = each >= each.max(1, keepdims=True) - slack
        if near[np.arange(s), policy].all():
            return values, near.argmax(1)
        policy = np.where(near[np.arange(s), policy], policy, each.argmax(1))
    raise ValueError(f"tolerance: {tolerance:g} is below the rounding of these values; take a larger one")


def _read(tables: MDP, discount: float | int) -> tuple[Float[np.ndarray, "s a s"], ActionValues, Any]:
    """Float64 tables: rows sum to 1, and a state that ends an episode leads nowhere and earns nothing."""
    check(tables)
    if not 0 <= discount <= 1:
        raise ValueError(f"discount: expected 0 to 1, got {discount:g}")
    transition, reward = (np.asarray(table, np.float64) for table in tables[:2])
    terminal = np.asarray(tables.terminal)
    transition = transition / transition.sum(-1, keepdims=True) * ~terminal[:, None, None]
    return transition, reward * ~terminal[:, None], terminal


def _evaluate(
    transition: Float[np.ndarray, "s a s"], reward: ActionValues, policy: ActionValues, discount: float | int
) -> Values:
    onward, earned = np.einsum("sa,sat->st", policy, transition), (policy * reward).sum(1)
    moving = np.ones(len(earned), bool)
    if discount == 1:  # where nothing is earned for ever V is 0; every other state must lead there
        moving = ~_closed(onward[:, None], (policy * reward != 0).any(1)[:, None])
        if not _leading(onward[:, None], ~moving).all():
            raise ValueError("discount: 1 does not converge here; an episode may never end, so take one below 1")
    inner = np.ix_(moving, moving)
    values = np.zeros(len(earned))
    values[moving] = np.linalg.solve(np.eye(moving.sum()) - discount * onward[inner], earned[moving])
    return values


def _closed(transition: Float[np.ndarray, "s a s"], earning: Bool[np.ndarray, "s a"]) -> Bool[np.ndarray, " s"]:
    """The states where one can stay for ever, or has ended, and earn nothing."""
    inside = np.ones(len(transition), bool)
    while True:
        still = inside & (_staying(transition, inside) & ~earning).any(1)
        if np.array_equal(still, inside):
            return inside
        inside = still


def _staying(transition: Float[np.ndarray, "s a s"], inside: Bool[np.ndarray, " s"]) -> Bool[np.ndarray, "s a"]:
    """The actions that lead to no state outside."""
    return np.all(transition[:, :, ~inside] == 0, axis=-1)


def _leading(transition: Float[np.ndarray, "s a s"], goal: Bool[np.ndarray, " s"]) -> Bool[np.ndarray, " s"]:
    """The states from which the goal can be reached."""
    reached = goal
    while True:
        more = reached | (transition[:, :, reached] > 0).any((1, 2))
        if np.array_equal(more, reached):
            return reached
        reached = more


def _ending(
    transition: Float[np.ndarray, "s a s"], reward: ActionValues, terminal: Bool[np.ndarray, " s"]
) -> Int[np.ndarray, " s"]:
    """A policy that stays where nothing is lost or won, and from elsewhere may go there: one step nearer each."""
    home = _closed(transition, reward != 0)
    policy = (_staying(transition, home) & (reward == 0)).argmax(1)
    reached = home
    while True:
        nearer = np.any(transition[:, :, reached] > 0, axis=-1)
        new = np.any(nearer, axis=1) & ~reached
        if not new.any():
            return policy
        policy, reached = np.where(new, nearer.argmax(1), policy), reached | new
