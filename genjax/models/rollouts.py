"""Rollouts of a policy: from a reset, or on from where the last rollout stopped; and the returns of whole episodes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from genjax import random
from genjax.envs.environment import Environment, Transition, episodes
from genjax.theory import markov
from genjax.types import Key, Scalar

Act = Callable[[Key, Any], Any]
"""A policy: ``(key, observation) -> action``."""


def from_reset(env: Environment, act: Act, keys: Key, num_steps: int) -> Transition:
    """Steps [n t ...] of n copies of the environment, one for each key, each from a reset on.

    Args:
      env: environment.
      act: the policy, ``(key, observation) -> action``.
      keys: keys [n].
      num_steps: t.
    """
    start, kernel = episodes(env, act)

    def rollout(key: Key) -> Transition:
        start_key, run_key = jax.random.split(key)
        return markov.simulate(kernel, run_key, start(start_key), length=num_steps)[1]

    return jax.vmap(rollout)(keys)


def continued(env: Environment, act: Act, keys: Key, states: Any, first: Any, num_steps: int) -> tuple[Any, Transition]:
    """Steps [n t ...] of n running copies of the environment, and the copies after them.

    Step i since the start of training has the key ``fold_in(key of the copy, i)``: the same steps come in rollouts of
    any length.

    Args:
      env: environment.
      act: the policy, ``(key, observation) -> action``.
      keys: keys [n] of the copies.
      states: the running copies [n ...], as ``begin`` starts them.
      first: number of steps that each copy has done.
      num_steps: t.
    """
    kernel = episodes(env, act)[1]
    numbers = jnp.asarray(first, jnp.uint32) + jnp.arange(num_steps, dtype=jnp.uint32)

    def rollout(key: Key, state: Any) -> tuple[Any, Transition]:
        step = lambda state, i: kernel(jax.random.fold_in(key, i), state, None)
        return jax.lax.scan(step, state, numbers)

    return jax.vmap(rollout)(keys, states)


def begin(env: Environment, key: Key, num: int) -> Any:
    """Copies [num ...] of the environment after a reset, for ``continued``."""
    start = episodes(env, lambda key, observation: 0)[0]
    return jax.vmap(start)(random.example_keys(key, num))


def evaluate_episodes(env: Environment, act: Act, keys: Key) -> tuple[Float[Array, " b"], Int[Array, " b"]]:
    """Undiscounted returns and lengths of one episode for each key.

    Args:
      env: environment.
      act: the policy, ``(key, observation) -> action``.
      keys: keys [b].
    """
    transitions = from_reset(env, act, keys, env.max_steps)

    def first_episode(reward: Float[Array, " t"], ended: Bool[Array, " t"]) -> tuple[Scalar, Int[Array, ""]]:
        ends = jnp.cumsum(ended)
        in_first = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]]) == 0
        return jnp.sum(reward * in_first), jnp.sum(in_first)

    return jax.vmap(first_episode)(transitions.reward, transitions.terminated | transitions.truncated)
