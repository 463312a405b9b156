"""Actor-critic (Sutton & Barto 2018, ch. 13): the notes' other two players, a policy and a value function.

The critic learns V(s) towards r + γ V(s'), the notes' Q(s, a) ≈ r + V(s'); the actor π(a|s) climbs log π(a|s) Â, where
the advantage Â says how much better the action was than V expected. As with the GAN both losses are one,
    L = L_actor(π, sg(V)) + c L_critic(V),
over two named parts of the parameters, each with its optimizer, on the step that trains every other model. A batch is
not a row of data but a rollout of the policy that the state holds: the seam is ``sample_batch`` and nothing else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from genjax import checks, random
from genjax.envs.environment import Environment, Transition, episodes
from genjax.theory import information, markov
from genjax.types import Batch, BatchFn, Key, Loss, Number, Params, Scalar

Observations = Shaped[Array | np.ndarray, "*batch o"]
Series = Float[Array, " t"]
Ends = Bool[Array, " t"]

_ROLLOUT_STREAM = 0xFFFFFFFC


class ActorCritic(NamedTuple):
    """A policy, a value function and their losses as pure functions.

    Fields:
      init: ``(key) -> params``, with the parts ``policy`` and ``value``.
      loss: ``(key, params, batch) -> (scalar, metrics)``, on what ``sample_batch`` gives; nothing is random. Metrics:
        ``policy``, ``value``, ``entropy`` (nats), ``moved``: share of actions whose probability left the range.
      sample_batch: ``(key, state, data) -> batch``: rollouts of the policy in ``state.params``, each from a new episode
        on.
      logits: ``(params, observations) -> [... a]``.
      values: ``(params, observations) -> [...]``.
      evaluate_episodes: ``(keys [b], params) -> (returns [b], lengths [b])`` of one episode for each key; rewards
        undiscounted.
    """

    init: Callable[[Key], Params]
    loss: Loss
    sample_batch: BatchFn
    logits: Callable[[Params, Observations], Float[Array, "*batch a"]]
    values: Callable[[Params, Observations], Float[Array, "*batch"]]
    evaluate_episodes: Callable[[Key, Params], tuple[Float[Array, " b"], Int[Array, " b"]]]


def advantages(
    reward: Series,
    value: Series,
    next_value: Series,
    terminated: Ends,
    truncated: Ends,
    discount: Number,
    gae_lambda: Number,
) -> Series:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), within episodes.

    δ_t = r_t + γ V(s_{t+1}) - V(s_t) with V = 0 after a termination; Â_t = δ_t + γ λ Â_{t+1}, cut where an episode
    ends in either way. λ = 0 is one step ahead, λ = 1 the discounted return less V(s_t).

    Args:
      reward, value, next_value: of each step; ``next_value`` of what came after it in the same episode.
      terminated, truncated: whether the step ended an episode, for good or because time was up.
      discount: γ, from 0 to 1.
      gae_lambda: λ, from 0 to 1.

    Raises:
      ValueError: γ or λ is elsewhere, there is no step, or a number is not finite.
    """
    for name, number in (("discount", discount), ("gae_lambda", gae_lambda)):
        checks.within(name, number, 0, 1)
    for name, numbers in (("reward", reward), ("value", value), ("next_value", next_value)):
        checks.min_rows(name, numbers)
        checks.finite(name, numbers)
    delta = reward + discount * jnp.where(terminated, 0, next_value) - value

    def back(later: Scalar, step: tuple[Scalar, Bool[Array, ""]]) -> tuple[Scalar, Scalar]:
        delta, ended = step
        now = delta + discount * gae_lambda * jnp.where(ended, 0, later)
        return now, now

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, terminated | truncated), reverse=True)[1]


def probability_ratio(log_prob: Float[Array, "*batch"], old: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """π(a|s) / π_old(a|s) of their logarithms, at most e³⁰: beyond, its products would leave float32.

    The slope is that of the bounded ratio, r ∇log π, so that an action too probable is still made less so.

    >>> [f"{ratio:.3g}" for ratio in probability_ratio(jnp.array([-1.0, 0.0]), jnp.array([-1.0, -200.0]))]
    ['1', '1.07e+13']
    """
    difference = log_prob - old
    slope = jnp.where(jnp.isfinite(difference), difference, 0)
    return jnp.exp(jax.lax.stop_gradient(jnp.minimum(difference, 30.0)) + (slope - jax.lax.stop_gradient(slope)))


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
    axis_name: str | None = None,
) -> ActorCritic:
    """An actor-critic of two networks and an environment.

    Args:
      policy: ``network(observations [b o]) -> logits [b a]``.
      value: ``network(observations [b o]) -> [b 1]``.
      env: of ``genjax.envs``.
      num_envs: copies of the environment, over all devices, which it splits over.
      num_steps: of a rollout in each; more than an episode has, or what comes late is never seen.
      discount: γ, from 0 to 1.
      gae_lambda: λ of ``advantages``, from 0 to 1.
      ent_coef: of the policy's entropy, which keeps it from being sure too early; at least 0.
      vf_coef: c, at least 0.
      clip_eps: ε of PPO's clipped objective (Schulman et al. 2017, eq. 7), for several steps on one rollout; None is
        A2C (Mnih et al. 2016).
      normalise: advantages to mean 0 and standard deviation 1 over the rollout.
      axis_name: where set, each device plays its share of the copies.

    Raises:
      ValueError: the networks' outputs do not fit, or a number that cannot be.
    """
    for name, number in (("num_envs", num_envs), ("num_steps", num_steps)):
        checks.count(name, number)
    for name, share in (("discount", discount), ("gae_lambda", gae_lambda)):
        checks.within(name, share, 0, 1)
    for name, weight in (("ent_coef", ent_coef), ("vf_coef", vf_coef)):
        checks.nonnegative(name, weight)
    if clip_eps is not None:
        checks.positive("clip_eps", clip_eps)

    def seen(observations: Any) -> None:
        checks.floating("observations", observations)
        checks.finite("observations", observations)
        if np.shape(observations)[-1:] != (env.observation_dim,):
            raise ValueError(
                f"observations: expected {env.observation_dim} numbers each, got the shape {np.shape(observations)}"
            )

    def logits(params: Params, observations: Observations) -> Float[Array, "*batch a"]:
        seen(observations)
        flat = observations.reshape(-1, env.observation_dim)
        out = jnp.asarray(policy.apply({"params": params["policy"]}, flat))
        return out.reshape(*observations.shape[:-1], env.num_actions)

    def values(params: Params, observations: Observations) -> Float[Array, "*batch"]:
        seen(observations)
        flat = observations.reshape(-1, env.observation_dim)
        return jnp.asarray(value.apply({"params": params["value"]}, flat)).reshape(observations.shape[:-1])

    def init(key: Key) -> Params:
        policy_key, value_key = jax.random.split(key)
        nothing = jnp.zeros((1, env.observation_dim))
        return {
            "policy": policy.init(policy_key, nothing)["params"],
            "value": value.init(value_key, nothing)["params"],
        }

    def rollout(key: Key, params: Params, length: int) -> Transition:
        act = lambda key, seen: jax.random.categorical(key, logits(params, seen))
        start, kernel = episodes(env, act)
        start_key, run_key = jax.random.split(key)
        return markov.simulate(kernel, run_key, start(start_key), length=length)[1]

    def sample_batch(key: Key, state: Any, data: Any) -> Batch:
        shares, share = (1, 0) if axis_name is None else (jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name))
        if num_envs % shares:
            raise ValueError(f"num_envs: expected a multiple of the {shares} devices, got {num_envs}")
        local = num_envs // shares
        stream = jax.random.fold_in(jax.random.fold_in(key, _ROLLOUT_STREAM), state.step)
        keys = random.example_keys(stream, local, first=share * local)
        seen = jax.vmap(lambda key: rollout(key, state.params, num_steps))(keys)  # [local, num_steps, ...]
        before, after = (values(state.params, part) for part in (seen.observation, seen.next_observation))
        estimate = jax.vmap(advantages, (0, 0, 0, 0, 0, None, None))
        advantage = estimate(seen.reward, before, after, seen.terminated, seen.truncated, discount, gae_lambda)
        target = advantage + before
        if normalise:
            mean = lambda x: jnp.mean(x) if axis_name is None else jax.lax.pmean(jnp.mean(x), axis_name)
            centred = advantage - mean(advantage)
            advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-8)
        chances = jax.nn.log_softmax(logits(state.params, seen.observation))
        batch = {
            "observation": seen.observation,
            "action": seen.action,
            "log_prob": _of(chances, seen.action),
            "advantage": advantage,
            "target": target,
        }
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

    def loss(key: Key, params: Params, batch: Batch):
        chances = jax.nn.log_softmax(logits(params, batch["observation"]))
        checks.min_rows("batch", batch["action"])
        checks.integers("action", batch["action"], 0, env.num_actions)
        for name in ("log_prob", "advantage", "target"):
            checks.finite(name, batch[name])
        log_prob, advantage = _of(chances, batch["action"]), batch["advantage"]
        if clip_eps is None:
            gain, moved = log_prob * advantage, jnp.zeros_like(log_prob)
        else:
            ratio = probability_ratio(log_prob, batch["log_prob"])
            gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps) * advantage)
            moved = jnp.abs(ratio - 1) > clip_eps
        entropy = information.entropy_from_logits(chances).mean()
        error = jnp.mean((values(params, batch["observation"]) - batch["target"]) ** 2) / 2
        metrics = {"policy": -gain.mean(), "value": error, "entropy": entropy, "moved": moved.mean(dtype=jnp.float32)}
        return -gain.mean() - ent_coef * entropy + vf_coef * error, metrics

    def evaluate_episodes(keys: Key, params: Params) -> tuple[Float[Array, " b"], Int[Array, " b"]]:
        def one(key: Key):
            seen = rollout(key, params, env.max_steps)
            ended = jnp.cumsum(seen.terminated | seen.truncated)
            first = jnp.concatenate([jnp.zeros(1, ended.dtype), ended[:-1]]) == 0
            return jnp.sum(seen.reward * first), jnp.sum(first)

        return jax.vmap(one)(keys)

    shapes = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    nothing = jax.ShapeDtypeStruct((1, env.observation_dim), jnp.float32)
    for network, part, width in ((policy, "policy", env.num_actions), (value, "value", 1)):
        out = jax.eval_shape(lambda p, x, network=network: network.apply({"params": p}, x), shapes[part], nothing)
        if out.shape != (1, width):
            raise ValueError(f"{part}: expected {width} outputs, got {out.shape[1:]}")
    return ActorCritic(init, loss, sample_batch, logits, values, evaluate_episodes)


def optimizer(
    policy: optax.GradientTransformation, value: optax.GradientTransformation
) -> optax.GradientTransformation:
    """An optimizer for each player."""
    return optax.multi_transform(
        {"policy": policy, "value": value},
        lambda params: {part: jax.tree.map(lambda _, part=part: part, tree) for part, tree in params.items()},
    )


def _of(table: Float[Array, "*batch a"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    return jnp.take_along_axis(table, action[..., None], -1)[..., 0]
