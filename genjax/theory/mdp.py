"""Finite Markov decision processes: exact values and policies from tables (Sutton & Barto 2018).

    Q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) V(s'),  V(s) = Σ_a π(a|s) Q(s, a), or max_a Q(s, a) of the best policy,
with V = 0 in states that end an episode. The lecture notes' Q(s, a) ≈ r + V(s') is the case of one s' and γ = 1.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from genjax import checks
from genjax.theory import simplex

Values = Float[np.ndarray, " s"]
ActionValues = Float[np.ndarray, "s a"]
TransitionTable = Float[np.ndarray, "s a s"]
States = Bool[np.ndarray, " s"]


class MDP(NamedTuple):
    """A finite Markov decision process.

    Attributes:
      transition: P(s'|s, a) [s a s].
      reward: r(s, a), the reward of the step [s a].
      initial: probabilities of the first state [s].
      terminal: True for states that end an episode when they are entered [s].
    """

    transition: Any
    reward: Any
    initial: Any
    terminal: Any


def check(process: MDP) -> None:
    """Refuse tables that are no Markov decision process.

    Raises:
      ValueError: the shapes do not fit, a row is no distribution, or a reward is not finite.
    """
    shapes = [np.shape(table) for table in process]
    s, a = shapes[1] if len(shapes[1]) == 2 else (0, 0)
    if s * a == 0 or shapes != [(s, a, s), (s, a), (s,), (s,)]:
        raise ValueError(
            f"process: expected transition [s a s], reward [s a], initial [s] and terminal [s]; got "
            f"{', '.join(map(str, shapes))}"
        )
    simplex.check("transition", process.transition)
    simplex.check("initial", process.initial)
    checks.finite("reward", process.reward)
    if (dtype := np.asarray(process.terminal).dtype).kind != "b":
        raise ValueError(f"terminal: expected truth values, got {dtype}")


def action_values(process: MDP, values: Any, discount: float | int) -> ActionValues:
    """Q(s, a) = r(s, a) + γ Σ P(s'|s, a) V(s') (Sutton & Barto 2018, eq. 3.20); V and Q are 0 where an episode ends.

    Raises:
      ValueError: ``process`` is no MDP, ``discount`` is outside [0, 1], or ``values`` is not one finite number for
        each state.
    """
    transition, reward, terminal = _normalised(process, discount)
    checks.finite("values", values)
    if np.shape(values) != terminal.shape:
        raise ValueError(f"values: expected one of each of {len(terminal)} states, got the shape {np.shape(values)}")
    return reward + discount * transition @ np.where(terminal, 0, np.asarray(values, np.float64))


def policy_values(process: MDP, policy: Any, discount: float | int) -> Values:
    """V of a policy π(a|s) [s a], the solution of its linear equations (eq. 3.14); 0 in states that end an episode.

    Raises:
      ValueError: as ``action_values``; or a row of the policy is no distribution; or γ = 1, there are rewards, and an
        episode may never end.
    """
    transition, reward, _ = _normalised(process, discount)
    simplex.check("policy", policy)
    probabilities = np.asarray(policy, np.float64)
    if probabilities.shape != reward.shape:
        raise ValueError(f"policy: expected the shape {reward.shape} of the rewards, got {probabilities.shape}")
    return _evaluate(transition, reward, probabilities / probabilities.sum(1, keepdims=True), discount)


def policy_iteration(
    process: MDP, discount: float | int, *, tolerance: float | int = 1e-12
) -> tuple[Values, Int[np.ndarray, " s"]]:
    """V of the best policy, and its actions, the first of equals: by policy iteration (Howard 1960; §4.3).

    The values of each policy solve its linear equations, to rounding / (1 - γ), so every discount below 1 works. With
    γ = 1 the first policy is one that ends, or that stays for ever where every reward is 0.

    >>> coin = MDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), np.ones(1), np.zeros(1, bool))
    >>> policy_iteration(coin, 0.5)
    (array([2.]), array([1]))

    Args:
      process: the decision process.
      discount: γ in [0, 1].
      tolerance: largest difference between the values of equal actions, relative to the range of the values.

    Raises:
      ValueError: ``process`` is no MDP, ``discount`` is outside [0, 1], or γ = 1 and the rewards of an episode that
        never ends do not converge.
    """
    checks.within("tolerance", tolerance, 0, 1)
    transition, reward, terminal = _normalised(process, discount)
    s, a = reward.shape
    policy = _ending_policy(transition, reward, terminal) if discount == 1 else reward.argmax(1)
    for _ in range(s * a + 1000):
        values = _evaluate(transition, reward, np.eye(a)[policy], discount)
        q = reward + discount * transition @ values
        slack = tolerance * max(np.ptp(values), np.abs(reward).max()) + 8 * np.spacing(np.abs(values).max())
        optimal = q >= q.max(1, keepdims=True) - slack
        if optimal[np.arange(s), policy].all():
            return values, optimal.argmax(1)
        policy = np.where(optimal[np.arange(s), policy], policy, q.argmax(1))
    raise ValueError(f"tolerance: {tolerance:g} is below the rounding of these values; take a larger one")


def _normalised(process: MDP, discount: float | int) -> tuple[TransitionTable, ActionValues, Any]:
    """Float64 tables: rows sum to 1, and a state that ends an episode leads nowhere and earns nothing."""
    check(process)
    if not 0 <= discount <= 1:
        raise ValueError(f"discount: expected 0 to 1, got {discount:g}")
    transition, reward = (np.asarray(table, np.float64) for table in process[:2])
    terminal = np.asarray(process.terminal)
    transition = transition / transition.sum(-1, keepdims=True) * ~terminal[:, None, None]
    return transition, reward * ~terminal[:, None], terminal


def _evaluate(transition: TransitionTable, reward: ActionValues, policy: ActionValues, discount: float | int) -> Values:
    state_transition, state_reward = np.einsum("sa,sat->st", policy, transition), (policy * reward).sum(1)
    transient = np.ones(len(state_reward), bool)
    if discount == 1:  # V is 0 where no reward comes any more; every other state must lead there
        transient = ~_restful(state_transition[:, None], (policy * reward != 0).any(1)[:, None])
        if not _leads_to(state_transition[:, None], ~transient).all():
            raise ValueError("discount: 1 does not converge here; an episode may never end, so take one below 1")
    block = np.ix_(transient, transient)
    values = np.zeros(len(state_reward))
    values[transient] = np.linalg.solve(
        np.eye(transient.sum()) - discount * state_transition[block], state_reward[transient]
    )
    return values


def _restful(transition: TransitionTable, rewarded: Bool[np.ndarray, "s a"]) -> States:
    """States in which one can stay for ever, or has ended, without a reward."""
    states = np.ones(len(transition), bool)
    while True:
        remaining = states & (_stays(transition, states) & ~rewarded).any(1)
        if np.array_equal(remaining, states):
            return states
        states = remaining


def _stays(transition: TransitionTable, states: States) -> Bool[np.ndarray, "s a"]:
    """Actions that lead to none but these states."""
    return np.all(transition[:, :, ~states] == 0, axis=-1)


def _leads_to(transition: TransitionTable, goal: States) -> States:
    """States from which the goal can be reached."""
    reached = goal
    while True:
        more = reached | (transition[:, :, reached] > 0).any((1, 2))
        if np.array_equal(more, reached):
            return reached
        reached = more


def _ending_policy(transition: TransitionTable, reward: ActionValues, terminal: States) -> Int[np.ndarray, " s"]:
    """A policy that stays in the states without reward, and from all others goes one step nearer to them."""
    restful = _restful(transition, reward != 0)
    policy = (_stays(transition, restful) & (reward == 0)).argmax(1)
    reached = restful
    while True:
        nearer = np.any(transition[:, :, reached] > 0, axis=-1)
        new = np.any(nearer, axis=1) & ~reached
        if not new.any():
            return policy
        policy, reached = np.where(new, nearer.argmax(1), policy), reached | new
