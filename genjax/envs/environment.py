"""What an environment is, and the kernel that goes from episode to episode.

An episode ends because the environment says so (terminated: there is no future to value) or because its time is up
(truncated: the future goes on unseen, and its value must be estimated from the last observation). The two are kept
apart, with the observation that came last before the new episode began (Pardo et al. 2018).
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
"""A number from 0 to the actions there are, less one."""


class Step(NamedTuple):
    """What an action led to.

    Fields:
      reward: of this step.
      terminated: whether the episode is over for good.
    """

    reward: Scalar
    terminated: Bool[Array, ""]


class Environment(NamedTuple):
    """An environment of discrete actions as pure functions, for one copy; ``jax.vmap`` makes many.

    Fields:
      reset: ``(key) -> state``.
      step: the kernel ``(key, state, action) -> (state, Step)``; outside ``jit`` it refuses actions that there are not.
      observe: ``(state) -> [o]``.
      num_actions, observation_dim: of the action and the observation.
      max_steps: after which an episode is truncated.
    """

    reset: Callable[[Key], Any]
    step: Callable[[Key, Any, Action], tuple[Any, Step]]
    observe: Callable[[Any], Observation]
    num_actions: int
    observation_dim: int
    max_steps: int


def check_action(action: Any, num_actions: int) -> None:
    """Refuse what is no action: outside ``jit`` by its number, inside by its type.

    Raises:
      ValueError: what was expected.
    """
    checks.integers("action", action, 0, num_actions)
    if np.shape(action):
        raise ValueError(f"action: expected one number, got the shape {np.shape(action)}; jax.vmap makes many copies")


class Transition(NamedTuple):
    """One step as a learner sees it.

    Fields:
      observation: before the action.
      action: taken.
      reward: got.
      terminated, truncated: how the episode ended, if it did.
      next_observation: after the action, of the same episode also where it ended.
    """

    observation: Observation
    action: Action
    reward: Scalar
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    next_observation: Observation


def episodes(env: Environment, policy: Callable[[Key, Observation], Action]) -> tuple[Callable[[Key], Any], Kernel]:
    """Episodes one after the other under a policy.

    Args:
      env: the environment.
      policy: ``(key, observation) -> action``.

    Raises:
      ValueError: ``env.max_steps`` below 1.

    Returns:
      ``start(key) -> (state, steps done)`` and the kernel ``(key, start's, _) -> (the same, Transition)``.
    """

    checks.count("max_steps", env.max_steps)

    def start(key: Key) -> tuple[Any, Int[Array, ""]]:
        return env.reset(key), jnp.zeros((), jnp.int32)

    def kernel(key: Key, carry: tuple[Any, Int[Array, ""]], _) -> tuple[tuple[Any, Int[Array, ""]], Transition]:
        state, done = carry
        action_key, step_key, reset_key = jax.random.split(key, 3)
        before = env.observe(state)
        action = policy(action_key, before)
        after, (reward, terminated) = env.step(step_key, state, action)
        truncated = (done + 1 >= env.max_steps) & ~terminated
        seen = Transition(before, action, reward, terminated, truncated, env.observe(after))
        fresh = start(reset_key)
        return jax.tree.map(lambda new, on: jnp.where(terminated | truncated, new, on), fresh, (after, done + 1)), seen

    return start, kernel
