"""Environments given by tables of transitions and rewards: their values are known exactly (``genjax.theory.mdp``)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from genjax import checks
from genjax.envs.environment import Action, Environment, Observation, Step, check_action
from genjax.theory import mdp
from genjax.theory.mdp import MDP
from genjax.types import Key

State = Int[Array, ""]


def tabular(process: MDP, *, max_steps: int = 100) -> Environment:
    """The environment of a finite decision process: the state is an integer, observed one-hot.

    Args:
      process: tables of the decision process.
      max_steps: number of steps after which an episode is truncated.

    Raises:
      ValueError: ``process`` is no MDP, or ``max_steps`` is below 1.
    """
    mdp.check(process)
    checks.count("max_steps", max_steps)
    transition, reward = jnp.asarray(process.transition), jnp.asarray(process.reward)
    initial, terminal = jnp.asarray(process.initial), jnp.asarray(process.terminal)
    num_states, num_actions = reward.shape

    def reset(key: Key) -> State:
        return jax.random.categorical(key, jnp.log(initial)).astype(jnp.int32)

    def step(key: Key, state: State, action: Action) -> tuple[State, Step]:
        check_action(action, num_actions)
        checks.integers("state", state, 0, num_states)
        new = jax.random.categorical(key, jnp.log(transition[state, action])).astype(jnp.int32)
        return new, Step(reward[state, action], terminal[new])

    def observe(state: State) -> Observation:
        return jax.nn.one_hot(state, num_states)

    return Environment(reset, step, observe, num_actions, num_states, max_steps)


def chain(length: int = 5, slip: float | int = 0.1) -> Environment:
    """States in a row: reward 1 for going right in the last state, 0.1 for going left in the first.

    The smaller reward is nearer, so the best policy depends on the discount. An action goes the other way with
    probability ``slip``. After the chain of Strens 2000.
    """
    return tabular(chain_mdp(length, slip))


def chain_mdp(length: int = 5, slip: float | int = 0.1) -> MDP:
    """Tables of ``chain``: action 0 goes left, action 1 right.

    Raises:
      ValueError: ``length`` is below 2, or ``slip`` outside [0, 1].
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
    """A walk from one corner of a square to the opposite one: reward -1 for each step.

    Actions: up, right, down, left. A step into a wall leads nowhere.
    """
    return tabular(grid_mdp(side))


def grid_mdp(side: int = 5) -> MDP:
    """Tables of ``grid``; the state is row · side + column, and the last state is the goal.

    Raises:
      ValueError: ``side`` is below 2.
    """
    checks.count("side", side, 2)
    num = side * side
    transition = np.zeros((num, 4, num))
    for state in range(num):
        row, column = divmod(state, side)
        for action, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            next_row, next_column = np.clip([row + down, column + right], 0, side - 1)
            transition[state, action, next_row * side + next_column] = 1
    terminal = np.arange(num) == num - 1
    return MDP(transition, np.full((num, 4), -1.0), np.eye(num)[0], terminal)


def ladder(rung: int) -> Environment:
    """A probe environment: each rung asks one thing more of a learner, and the first that fails shows the fault.

    1: one action, reward 1 at once: is the value learned at all? 2: two first states, rewards 1 and -1: is the value
    learned from observations? 3: the reward comes one step later: is it discounted? 4: two actions, rewards 0 and 1:
    is the better one taken? 5: the better action depends on the first state: do policy and value use the same
    observation?

    Raises:
      ValueError: ``rung`` is not 1 to 5.
    """
    return tabular(ladder_mdp(rung), max_steps=10)


def ladder_mdp(rung: int) -> MDP:
    """Tables of ``ladder``.

    Raises:
      ValueError: ``rung`` is not 1 to 5.
    """
    checks.count("rung", rung, -1)
    if not 1 <= rung <= 5:
        raise ValueError(f"rung: expected 1 to 5, got {rung}")
    if rung == 3:  # first state, middle, end
        transition = np.zeros((3, 1, 3))
        transition[0, 0, 1] = transition[1, 0, 2] = transition[2, 0, 2] = 1
        return MDP(transition, np.array([[0.0], [1.0], [0.0]]), np.eye(3)[0], np.array([False, False, True]))
    rewards = np.array({1: [[1.0]], 2: [[1.0], [-1.0]], 4: [[0.0, 1.0]], 5: [[1.0, -1.0], [-1.0, 1.0]]}[rung])
    num, actions = rewards.shape
    transition = np.zeros((num + 1, actions, num + 1))
    transition[:, :, -1] = 1
    initial = np.append(np.full(num, 1 / num), 0)
    return MDP(transition, np.append(rewards, np.zeros((1, actions)), 0), initial, np.arange(num + 1) == num)
