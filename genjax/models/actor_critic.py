"""Actor-critic (Sutton & Barto 2018, ch. 13): two players of the lecture notes, a policy and a value function.

The critic learns V(s) towards r + γ V(s'), the lecture notes' Q(s, a) ≈ r + V(s'). The actor π(a|s) climbs
log π(a|s) Â, where the advantage Â says how much better the action was than V expected. Both losses are one,
    L = L_actor(π, sg(V)) + c L_critic(V),
over two named parts of the parameters, each with its optimizer, on the step that trains every other model. A batch is
not rows of a data set but a rollout of the current policy: only ``sample_batch`` differs from other models. The
equations are those of ``policy_gradient``.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

from genjax import checks, random
from genjax.envs.environment import Environment, Transition
from genjax.models import contracts, policy_gradient, rollouts
from genjax.nn import protocols
from genjax.random import Stream
from genjax.theory import information
from genjax.types import Batch, BatchFn, Carried, Key, Loss, Metrics, Number, Params, Scalar

Observations = Shaped[Array | np.ndarray, "*batch o"]
Logits = Float[Array, "*batch a"]
Values = Float[Array, "*batch"]


class ActorCritic(NamedTuple):
    """A policy, a value function and their losses as pure functions.

    Attributes:
      init: ``(key) -> params``, with the parts ``policy`` and ``value``.
      loss: ``(key, params, batch) -> (scalar, metrics)``, on batches of ``sample_batch``; nothing is random. Metrics:
        ``policy`` and ``value``, the two losses; ``entropy``, nats; ``moved``, PPO's clip fraction.
      sample_batch: ``(key, state, data) -> batch``: rollouts of the policy in ``state.params``; ``data`` is not used.
      carry: ``(key) -> carry``, the environments at the start of training; the empty tuple if each rollout begins with
        a reset.
      act: ``(key, params, observation [o]) -> action``.
      logits: ``(params, observations) -> [... a]``.
      values: ``(params, observations) -> [...]``.
      evaluate_episodes: ``(keys [b], params) -> (returns [b], lengths [b])`` of one episode for each key; rewards are
        not discounted.
      optimizer: ``(inner, other=None) -> GradientTransformation``: ``inner`` for the policy, ``other`` for the value
        function; by default the same for both.
    """

    init: Callable[[Key], Params]
    loss: Loss
    sample_batch: BatchFn
    carry: Callable[[Key], Any]
    act: Callable[[Key, Params, Observations], Int[Array, ""]]
    logits: Callable[[Params, Observations], Logits]
    values: Callable[[Params, Observations], Values]
    evaluate_episodes: Callable[[Key, Params], tuple[Float[Array, " b"], Int[Array, " b"]]]
    optimizer: Callable[..., contracts.Optimizer]


def learning_batch(
    transitions: Transition,
    logits: Callable[[Observations], Logits],
    values: Callable[[Observations], Values],
    *,
    discount: Number,
    gae_lambda: Number,
) -> Batch:
    """A batch of rollouts [n t ...]: each step with its action's log-probability, advantage and target of V.

    Args:
      transitions: steps of n rollouts of the current policy.
      logits: the policy, ``(observations) -> [... a]``.
      values: the value function, ``(observations) -> [...]``.
      discount: γ.
      gae_lambda: λ of ``policy_gradient.advantages``.
    """
    before, after = values(transitions.observation), values(transitions.next_observation)
    estimate = jax.vmap(policy_gradient.advantages, (0, 0, 0, 0, 0, None, None))
    ends = transitions.terminated, transitions.truncated
    advantage = estimate(transitions.reward, before, after, *ends, discount, gae_lambda)
    log_policy = jax.nn.log_softmax(logits(transitions.observation))
    return {
        "observation": transitions.observation,
        "action": transitions.action,
        "log_prob": _select(log_policy, transitions.action),
        "advantage": advantage,
        "target": advantage + before,
    }


def build(
    policy: nn.Module,
    value: nn.Module,
    env: Environment,
    *,
    num_envs: int = 16,
    num_steps: int = 128,
    discount: Number = 0.99,
    gae_lambda: Number = 0.95,
    ent_coef: Number = 0.01,
    vf_coef: Number = 0.5,
    clip_eps: Number | None = None,
    normalise: bool = True,
    start: str = "reset",
    axis_name: str | None = None,
) -> ActorCritic:
    """An actor-critic of two networks and an environment.

    Args:
      policy: ``network(observations [b o]) -> logits [b a]``.
      value: ``network(observations [b o]) -> [b 1]``.
      env: environment of ``genjax.envs``.
      num_envs: number of copies of the environment, over all devices.
      num_steps: length of a rollout in each copy; with ``start="reset"`` at least ``env.max_steps``, or late states
        are never visited.
      discount: γ, from 0 to 1.
      gae_lambda: λ of ``policy_gradient.advantages``, from 0 to 1.
      ent_coef: weight of the policy's entropy, which keeps the policy from being sure too early; at least 0.
      vf_coef: c, at least 0.
      clip_eps: ε of ``policy_gradient.policy_loss``, for several steps on one rollout; None is A2C.
      normalise: True to standardise the advantages of a rollout.
      start: ``"reset"`` begins every rollout with a new episode. ``"continue"`` goes on where the copy's last rollout
        stopped; the training state then needs the model's ``carry``.
      axis_name: mapped axis of the devices. If set, each device acts in its share of the copies.

    Raises:
      ValueError: the networks' outputs do not fit, or a number is out of range.
    """
    setup = _Setup(
        policy=policy, value=value, env=env, num_envs=num_envs, num_steps=num_steps, discount=discount,
        gae_lambda=gae_lambda, ent_coef=ent_coef, vf_coef=vf_coef, clip_eps=clip_eps, normalise=normalise, start=start,
        axis_name=axis_name,
    )  # fmt: skip
    _check(setup)
    bind = lambda function: functools.partial(function, setup)
    return ActorCritic(
        init=bind(_init),
        loss=bind(_loss),
        sample_batch=bind(_sample_batch),
        carry=bind(_carry),
        act=bind(_act),
        logits=bind(_logits),
        values=bind(_values),
        evaluate_episodes=bind(_evaluate_episodes),
        optimizer=_optimizer,
    )


class _Setup(NamedTuple):
    """The arguments of ``build``."""

    policy: nn.Module
    value: nn.Module
    env: Environment
    num_envs: int
    num_steps: int
    discount: Number
    gae_lambda: Number
    ent_coef: Number
    vf_coef: Number
    clip_eps: Number | None
    normalise: bool
    start: str
    axis_name: str | None


def _check(setup: _Setup) -> None:
    """Refuse numbers out of range, and networks that do not fit the environment."""
    checks.count("num_envs", setup.num_envs)
    checks.count("num_steps", setup.num_steps)
    checks.within("discount", setup.discount, 0, 1)
    checks.within("gae_lambda", setup.gae_lambda, 0, 1)
    checks.nonnegative("ent_coef", setup.ent_coef)
    checks.nonnegative("vf_coef", setup.vf_coef)
    if setup.clip_eps is not None:
        checks.positive("clip_eps", setup.clip_eps)
    checks.choice("start", setup.start, ("reset", "continue"))
    observation = jax.ShapeDtypeStruct((1, setup.env.observation_dim), jnp.float32)
    for name, network, width in (("policy", setup.policy, setup.env.num_actions), ("value", setup.value, 1)):
        output = protocols.output_shape(name, network, observation)
        if output.shape != (1, width):
            raise ValueError(f"{name}: expected {width} outputs, got {output.shape[1:]}")


def _init(setup: _Setup, key: Key) -> Params:
    policy_key, value_key = jax.random.split(key)
    observation = jnp.zeros((1, setup.env.observation_dim))
    return {
        "policy": setup.policy.init(policy_key, observation)["params"],
        "value": setup.value.init(value_key, observation)["params"],
    }


def _logits(setup: _Setup, params: Params, observations: Observations) -> Logits:
    flat = _flatten(setup, observations)
    output = jnp.asarray(setup.policy.apply({"params": params["policy"]}, flat))
    return output.reshape(*observations.shape[:-1], setup.env.num_actions)


def _values(setup: _Setup, params: Params, observations: Observations) -> Values:
    flat = _flatten(setup, observations)
    return jnp.asarray(setup.value.apply({"params": params["value"]}, flat)).reshape(observations.shape[:-1])


def _flatten(setup: _Setup, observations: Any) -> Float[Array, "b o"]:
    """Observations along one axis, refused unless they are the environment's."""
    checks.floating("observations", observations)
    checks.finite("observations", observations)
    num = setup.env.observation_dim
    if np.shape(observations)[-1:] != (num,):
        raise ValueError(f"observations: expected {num} numbers each, got the shape {np.shape(observations)}")
    return jnp.reshape(observations, (-1, num))


def _act(setup: _Setup, key: Key, params: Params, observation: Observations) -> Int[Array, ""]:
    return jax.random.categorical(key, _logits(setup, params, observation))


def _acting(setup: _Setup, params: Params) -> rollouts.Act:
    """The policy with these parameters."""
    return lambda key, observation: _act(setup, key, params, observation)


def _evaluate_episodes(setup: _Setup, keys: Key, params: Params) -> tuple[Float[Array, " b"], Int[Array, " b"]]:
    return rollouts.evaluate_episodes(setup.env, _acting(setup, params), keys)


def _carry(setup: _Setup, key: Key) -> Any:
    return rollouts.begin(setup.env, key, setup.num_envs) if setup.start == "continue" else ()


def _sample_batch(setup: _Setup, key: Key, state: Any, data: Any) -> Batch | Carried:
    transitions, carry = _rollouts(setup, random.stream(key, Stream.BATCH), state)
    logits, values = (functools.partial(function, setup, state.params) for function in (_logits, _values))
    batch = learning_batch(transitions, logits, values, discount=setup.discount, gae_lambda=setup.gae_lambda)
    if setup.normalise:
        batch = {**batch, "advantage": policy_gradient.standardise(batch["advantage"], setup.axis_name)}
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    return batch if setup.start == "reset" else Carried(batch, carry)


def _rollouts(setup: _Setup, stream: Key, state: Any) -> tuple[Transition, Any]:
    """Rollouts in this device's share of the copies, and the running copies of all devices."""
    num_devices, device = random.device_axis(setup.axis_name)
    if setup.num_envs % num_devices:
        raise ValueError(f"num_envs: expected a multiple of the {num_devices} devices, got {setup.num_envs}")
    share = setup.num_envs // num_devices
    first, act = device * share, _acting(setup, state.params)
    if setup.start == "reset":
        keys = random.example_keys(jax.random.fold_in(stream, state.step), share, first)
        return rollouts.from_reset(setup.env, act, keys, setup.num_steps), ()
    if not jax.tree.leaves(state.carry):
        raise ValueError(
            'state: expected the running environments as carry, as start is "continue"; make the state by '
            "create(params, optimizer, model.carry(key))"
        )
    keys = random.example_keys(stream, share, first)
    states = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, share), state.carry)
    done = state.step.astype(jnp.uint32) * setup.num_steps
    carry, transitions = rollouts.continued(setup.env, act, keys, states, done, setup.num_steps)
    if setup.axis_name is not None:
        carry = jax.tree.map(lambda x: jax.lax.all_gather(x, setup.axis_name, tiled=True), carry)
    return transitions, carry


def _loss(setup: _Setup, key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
    log_policy = jax.nn.log_softmax(_logits(setup, params, batch["observation"]))
    checks.min_rows("batch", batch["action"])
    checks.integers("action", batch["action"], 0, setup.env.num_actions)
    for name in ("log_prob", "advantage", "target"):
        checks.finite(name, batch[name])
    log_prob = _select(log_policy, batch["action"])
    actor, clip_fraction = policy_gradient.policy_loss(log_prob, batch["advantage"], batch["log_prob"], setup.clip_eps)
    entropy = information.entropy_from_logits(log_policy).mean()
    critic = policy_gradient.value_loss(_values(setup, params, batch["observation"]), batch["target"])
    metrics = {"policy": actor, "value": critic, "entropy": entropy, "moved": clip_fraction}
    return actor - setup.ent_coef * entropy + setup.vf_coef * critic, metrics


def _optimizer(inner: contracts.Optimizer, other: contracts.Optimizer | None = None) -> contracts.Optimizer:
    return optax.multi_transform(
        {"policy": inner, "value": inner if other is None else other},
        lambda params: {part: jax.tree.map(lambda _, part=part: part, tree) for part, tree in params.items()},
    )


def _select(table: Float[Array, "*batch a"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Entries of the actions along the last axis."""
    return jnp.take_along_axis(table, action[..., None], -1)[..., 0]
