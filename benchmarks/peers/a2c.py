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
        made = nn.Linear(*layer["kernel"].shape)
        notes.fill(made, layer)
        layers += [made, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def learner(
    params: Params, copies: int, length: int, *, rate: float, discount: float, trace: float, where: torch.device
) -> Callable[[], None]:
    """Build one update: ``length`` steps of each copy under the policy, and a gradient step."""
    policy, value = networks(params, where)
    optimizer = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=rate)
    env: Any = gymnasium.make_vec("CartPole-v1", copies, vectorization_mode="vector_entry_point")

    def update() -> None:
        seen = _rollout(env, policy, length, where)
        observation, action, reward, ended, last = seen
        with torch.no_grad():
            values = value(torch.cat([observation, last[None]]))[..., 0]
        advantage, later = torch.zeros_like(reward), torch.zeros_like(reward[0])
        for t in reversed(range(length)):
            going_on = 1 - ended[t]
            delta = reward[t] + discount * going_on * values[t + 1] - values[t]
            later = advantage[t] = delta + discount * trace * going_on * later
        target = advantage + values[:-1]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        chances = torch.distributions.Categorical(logits=policy(observation))
        loss = -(chances.log_prob(action) * advantage).mean() - 0.01 * chances.entropy().mean()
        loss = loss + (value(observation)[..., 0] - target).square().mean() / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        notes.wait(where)

    return update


@torch.no_grad()
def _rollout(env: Any, policy: nn.Module, length: int, where: torch.device) -> tuple[torch.Tensor, ...]:
    kept: list[tuple[Any, ...]] = []
    now, _ = env.reset(seed=0)
    for _ in range(length):
        observation = torch.from_numpy(np.array(now)).to(where)
        action = torch.distributions.Categorical(logits=policy(observation)).sample()
        now, reward, terminated, truncated, _ = env.step(action.cpu().numpy())
        numbers = (torch.from_numpy(np.asarray(a, np.float32)).to(where) for a in (reward, terminated | truncated))
        kept.append((observation, action, *numbers))
    parts = (torch.stack(part) for part in zip(*kept, strict=True))
    return (*parts, torch.from_numpy(np.array(now)).to(where))
