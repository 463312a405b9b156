"""Environments given by tables, whose values are known exactly (``genjax.theory.mdp``)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from genjax import checks
from genjax.envs.environment import Action, Environment, Step, check_action
from genjax.theory import mdp
from genjax.theory.mdp import MDP
from genjax.types import Key

State = Int[Array, ""]


def tabular(tables: MDP, *, max_steps: int = 100) -> Environment:
    """The environment of a decision process: the state is a number, observed one-hot.

    Args:
      tables: transitions, rewards, starts, and which states end an episode when they are entered.
      max_steps: after which an episode is truncated.

    Raises:
      ValueError: ``tables`` is no decision process, or ``max_steps`` is below 1.
    """
    mdp.check(tables)
    checks.count("max_steps", max_steps)
    transition, reward = jnp.asarray(tables.transition), jnp.asarray(tables.reward)
    start, terminal = jnp.asarray(tables.start), jnp.asarray(tables.terminal)
    num_states, num_actions = reward.shape

    def reset(key: Key) -> State:
        return jax.random.categorical(key, jnp.log(start)).astype(jnp.int32)

    def step(key: Key, state: State, action: Action) -> tuple[State, Step]:
        check_action(action, num_actions)
        checks.integers("state", state, 0, num_states)
        new = jax.random.categorical(key, jnp.log(transition[state, action])).astype(jnp.int32)
        return new, Step(reward[state, action], terminal[new])

    observe = lambda state: jax.nn.one_hot(state, num_states)
    return Environment(reset, step, observe, num_actions, num_states, max_steps)


def chain(length: int = 5, slip: float | int = 0.1) -> Environment:
    """States in a row; 1 for going right in the last, 0.1 for going left in the first, which is nearer: look ahead.

    An action goes the other way with probability ``slip``. After Strens 2000's chain.
    """
    return tabular(chain_mdp(length, slip))


def chain_mdp(length: int = 5, slip: float | int = 0.1) -> MDP:
    """Of ``chain``.

    Raises:
      ValueError: fewer than 2 states, or ``slip`` outside [0, 1].
    """
    checks.count("length", length, 2)
    checks.within("slip", slip, 0, 1)
    transition = np.zeros((length, 2, length))
    for state in range(length):
        left, right = max(state - 1, 0), min(state + 1, length - 1)
        transition[state, 0, left] += 1 - slip
        transition[state, 0, right] += slip
        transition[state, 1, right] += 1 - slip
        transition[state, 1, left] += slip
    reward = np.zeros((length, 2))
    reward[0, 0], reward[-1, 1] = 0.1, 1.0
    return MDP(transition, reward, np.eye(length)[0], np.zeros(length, bool))


def grid(side: int = 5) -> Environment:
    """From one corner to the other; up, right, down, left; -1 for each step, and walls that one bumps into."""
    return tabular(grid_mdp(side))


def grid_mdp(side: int = 5) -> MDP:
    """Of ``grid``; the state is row · side + column, and the goal the last.

    Raises:
      ValueError: a side below 2.
    """
    checks.count("side", side, 2)
    num = side * side
    transition = np.zeros((num, 4, num))
    for state in range(num):
        row, column = divmod(state, side)
        for action, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            to = np.clip([row + down, column + right], 0, side - 1)
            transition[state, action, to[0] * side + to[1]] = 1
    terminal = np.arange(num) == num - 1
    return MDP(transition, np.full((num, 4), -1.0), np.eye(num)[0], terminal)


def ladder(rung: int) -> Environment:
    """Tiny environments, each of which asks one thing more of a learner: the first that fails says what is wrong.

    1: one action, reward 1 at once: is the value learned at all? 2: two starts, rewards 1 and -1: from observations?
    3: the reward comes one step later: is it discounted? 4: two actions, rewards 0 and 1: is the better one taken?
    5: which action is better depends on the start: do policy and value see the same?

    Raises:
      ValueError: no such rung.
    """
    return tabular(ladder_mdp(rung), max_steps=10)


def ladder_mdp(rung: int) -> MDP:
    """Of ``ladder``."""
    checks.count("rung", rung, -1)
    if not 1 <= rung <= 5:
        raise ValueError(f"rung: expected 1 to 5, got {rung}")
    if rung == 3:  # start, middle, end
        transition = np.zeros((3, 1, 3))
        transition[0, 0, 1] = transition[1, 0, 2] = transition[2, 0, 2] = 1
        return MDP(transition, np.array([[0.0], [1.0], [0.0]]), np.eye(3)[0], np.array([False, False, True]))
    rewards = np.array({1: [[1.0]], 2: [[1.0], [-1.0]], 4: [[0.0, 1.0]], 5: [[1.0, -1.0], [-1.0, 1.0]]}[rung])
    starts, actions = rewards.shape
    transition = np.zeros((starts + 1, actions, starts + 1))
    transition[:, :, -1] = 1
    start = np.append(np.full(starts, 1 / starts), 0)
    return MDP(transition, np.append(rewards, np.zeros((1, actions)), 0), start, np.arange(starts + 1) == starts)
