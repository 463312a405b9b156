"""An advantage actor-critic as it is mostly written: PyTorch networks and a vector of Gymnasium's CartPoles."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

from benchmarks.peers import notes
from genjax.types import Params


def networks(params: Params, where: torch.device) -> tuple[nn.Sequential, nn.Sequential]:
    """Policy and value function: dense layers with tanh and our weights."""
    return _network(params["policy"]).to(where), _network(params["value"]).to(where)


def _network(params: Params) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        linear = nn.Linear(*layer["kernel"].shape)
        notes.fill(linear, layer)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def learner(
    params: Params, copies: int, length: int, *, rate: float, discount: float, gae_lambda: float, where: torch.device
) -> Callable[[], None]:
    """Build one update: ``length`` steps of each copy under the policy, and a gradient step."""
    policy, value = networks(params, where)
    optimizer = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=rate)
    env: Any = gymnasium.make_vec("CartPole-v1", copies, vectorization_mode="vector_entry_point")

    def update() -> None:
        observation, action, reward, ended, last = _rollout(env, policy, length, where)
        with torch.no_grad():
            values = value(torch.cat([observation, last[None]]))[..., 0]
        advantage, next_advantage = torch.zeros_like(reward), torch.zeros_like(reward[0])
        for t in reversed(range(length)):
            alive = 1 - ended[t]
            delta = reward[t] + discount * alive * values[t + 1] - values[t]
            next_advantage = advantage[t] = delta + discount * gae_lambda * alive * next_advantage
        target = advantage + values[:-1]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        actions = torch.distributions.Categorical(logits=policy(observation))
        loss = -(actions.log_prob(action) * advantage).mean() - 0.01 * actions.entropy().mean()
        loss = loss + (value(observation)[..., 0] - target).square().mean() / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        notes.wait(where)

    return update


@torch.no_grad()
def _rollout(env: Any, policy: nn.Module, length: int, where: torch.device) -> tuple[torch.Tensor, ...]:
    steps: list[tuple[Any, ...]] = []
    state, _ = env.reset(seed=0)
    for _ in range(length):
        observation = torch.from_numpy(np.array(state)).to(where)
        action = torch.distributions.Categorical(logits=policy(observation)).sample()
        state, reward, terminated, truncated, _ = env.step(action.cpu().numpy())
        numbers = (torch.from_numpy(np.asarray(a, np.float32)).to(where) for a in (reward, terminated | truncated))
        steps.append((observation, action, *numbers))
    parts = (torch.stack(part) for part in zip(*steps, strict=True))
    return (*parts, torch.from_numpy(np.array(state)).to(where))
