"""Environments as pure functions, and a kernel that runs episode after episode.

An episode ends because the environment ends it (terminated: there is no future to value) or because the limit of steps
is reached (truncated: the future is not observed, and its value must be estimated from the last observation). The two
are kept apart, and the last observation of an episode is kept when the next one begins (Pardo et al. 2018).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from genjax import checks
from genjax.types import Kernel, Key, Scalar

Observation = Float[Array, " o"]
Action = Any
"""An integer from 0 to ``num_actions`` - 1."""

Carry = tuple[Any, Int[Array, ""]]
"""State of an environment, and number of steps of the present episode."""


class Step(NamedTuple):
    """Outcome of an action.

    Attributes:
      reward: reward of this step.
      terminated: True where the environment has ended the episode.
    """

    reward: Scalar
    terminated: Bool[Array, ""]


class Environment(NamedTuple):
    """Pure functions of an environment with discrete actions, for one copy; ``jax.vmap`` makes many copies.

    Attributes:
      reset: ``(key) -> state``.
      step: the kernel ``(key, state, action) -> (state, Step)``; outside ``jit`` it refuses unknown actions.
      observe: ``(state) -> observation [o]``.
      num_actions: number of actions.
      observation_dim: o, the length of an observation.
      max_steps: number of steps after which an episode is truncated.
    """

    reset: Callable[[Key], Any]
    step: Callable[[Key, Any, Action], tuple[Any, Step]]
    observe: Callable[[Any], Observation]
    num_actions: int
    observation_dim: int
    max_steps: int


def check_action(action: Any, num_actions: int) -> None:
    """Refuse what is no action: by value outside ``jit``, by type inside.

    Raises:
      ValueError: ``action`` is not one integer in [0, num_actions).
    """
    checks.integers("action", action, 0, num_actions)
    if np.shape(action):
        raise ValueError(f"action: expected one number, got the shape {np.shape(action)}; jax.vmap makes many copies")


class Transition(NamedTuple):
    """A transition, as a learner observes it.

    Attributes:
      observation: observation before the action.
      action: action of the policy.
      reward: reward of the step.
      terminated: True where the environment has ended the episode.
      truncated: True where the episode has reached its limit of steps.
      next_observation: observation after the action, of the same episode even where the episode ended.
    """

    observation: Observation
    action: Action
    reward: Scalar
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    next_observation: Observation


def episodes(env: Environment, policy: Callable[[Key, Observation], Action]) -> tuple[Callable[[Key], Carry], Kernel]:
    """Run episodes one after the other under a policy.

    Args:
      env: the environment.
      policy: ``(key, observation) -> action``.

    Returns:
      init: ``(key) -> carry``, the state of a new episode and its number of steps, 0.
      step: the kernel ``(key, carry, _) -> (carry, Transition)``; it begins a new episode where one has ended.

    Raises:
      ValueError: ``env.max_steps`` is below 1.
    """
    checks.count("max_steps", env.max_steps)

    def init(key: Key) -> Carry:
        return env.reset(key), jnp.zeros((), jnp.int32)

    def step(key: Key, carry: Carry, _: Any) -> tuple[Carry, Transition]:
        state, num_steps = carry
        action_key, step_key, reset_key = jax.random.split(key, 3)
        observation = env.observe(state)
        action = policy(action_key, observation)
        state, (reward, terminated) = env.step(step_key, state, action)
        truncated = (num_steps + 1 >= env.max_steps) & ~terminated
        transition = Transition(observation, action, reward, terminated, truncated, env.observe(state))
        ended = terminated | truncated
        carry = jax.tree.map(lambda new, same: jnp.where(ended, new, same), init(reset_key), (state, num_steps + 1))
        return carry, transition

    return init, step
