"""Gymnasium: CartPole-v1 in a Python loop, one copy or a vector of them, under random actions."""

from typing import Any

import gymnasium
import numpy as np


def steps(num_steps: int) -> int:
    """Run steps of one copy, episode after episode; return the number of episodes that ended."""
    env: Any = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, num_steps)
    ended = 0
    for action in actions:
        _, _, terminated, truncated, _ = env.step(int(action))
        if terminated or truncated:
            ended += 1
            env.reset()
    return ended


def vector_steps(num_envs: int, num_steps: int) -> int:
    """Run steps of Gymnasium's own vectorised CartPole; return the number of episodes that ended."""
    env: Any = gymnasium.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, (num_steps, num_envs))
    ended = 0
    for row in actions:
        _, _, terminated, truncated, _ = env.step(row)
        ended += int((terminated | truncated).sum())
    return ended


def dynamics(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Next state after one step from each state [n 4]."""
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)

    def after(state: np.ndarray, action: int) -> np.ndarray:
        env.state, env.steps_beyond_terminated = tuple(state.tolist()), None
        return env.step(action)[0]

    return np.stack([after(s, int(a)) for s, a in zip(states, actions, strict=True)])
