"""The equations of A2C (Mnih et al. 2016) and PPO (Schulman et al. 2017): advantages, and a loss for each player."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from genjax import checks
from genjax.types import Number, Scalar

Series = Float[Array, " t"]
Ends = Bool[Array, " t"]


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
    ends in either way, and at the end of the rollout. λ = 0 is one step ahead, λ = 1 the discounted return less V(s_t).

    Args:
      reward: r_t.
      value: V(s_t).
      next_value: V(s_{t+1}) of the state after the step, in the same episode.
      terminated: True if the step ended an episode for good.
      truncated: True if the step ended an episode because its time was up.
      discount: γ, from 0 to 1.
      gae_lambda: λ, from 0 to 1.

    Raises:
      ValueError: γ or λ is out of range, there is no step, or a number is not finite.
    """
    for name, number in (("discount", discount), ("gae_lambda", gae_lambda)):
        checks.within(name, number, 0, 1)
    for name, numbers in (("reward", reward), ("value", value), ("next_value", next_value)):
        checks.min_rows(name, numbers)
        checks.finite(name, numbers)
    delta = reward + discount * jnp.where(terminated, 0, next_value) - value

    def back(later: Scalar, step: tuple[Scalar, Bool[Array, ""]]) -> tuple[Scalar, Scalar]:
        delta, ended = step
        advantage = delta + discount * gae_lambda * jnp.where(ended, 0, later)
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, terminated | truncated), reverse=True)[1]


def standardise(advantage: Float[Array, "..."], axis_name: str | None = None) -> Float[Array, "..."]:
    """Advantages of mean 0 and standard deviation 1 over the rollout, and over the devices of a mapped axis."""
    mean = lambda x: jnp.mean(x) if axis_name is None else jax.lax.pmean(jnp.mean(x), axis_name)
    centred = advantage - mean(advantage)
    return centred / (jnp.sqrt(mean(centred**2)) + 1e-8)


def probability_ratio(log_prob: Float[Array, "*batch"], old: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """π(a|s) / π_old(a|s) of their logarithms, at most e³⁰: beyond, products with the ratio would leave float32.

    The gradient is that of the bounded ratio, r ∇log π, so that an action too probable is still made less so.

    >>> [f"{ratio:.3g}" for ratio in probability_ratio(jnp.array([-1.0, 0.0]), jnp.array([-1.0, -200.0]))]
    ['1', '1.07e+13']
    """
    difference = log_prob - old
    slope = jnp.where(jnp.isfinite(difference), difference, 0)
    return jnp.exp(jax.lax.stop_gradient(jnp.minimum(difference, 30.0)) + (slope - jax.lax.stop_gradient(slope)))


def policy_loss(
    log_prob: Float[Array, " b"],
    advantage: Float[Array, " b"],
    old_log_prob: Float[Array, " b"],
    clip_eps: Number | None = None,
) -> tuple[Scalar, Scalar]:
    """The actor's loss and the clip fraction, the share of actions whose probability ratio left [1 - ε, 1 + ε].

    A2C (Mnih et al. 2016): -E[Â log π(a|s)]. PPO (Schulman et al. 2017, eq. 7), with r = π(a|s) / π_old(a|s):
        -E[min(r Â, clip(r, 1 - ε, 1 + ε) Â)].

    >>> loss, clip_fraction = policy_loss(jnp.log(jnp.array([0.6])), jnp.ones(1), jnp.log(jnp.array([0.4])), 0.2)
    >>> round(float(loss), 4), float(clip_fraction)
    (-1.2, 1.0)

    Args:
      log_prob: log π(a|s) of the actions taken.
      advantage: Â.
      old_log_prob: log π_old(a|s) of the policy that acted; PPO only.
      clip_eps: ε of PPO; None for A2C.
    """
    if clip_eps is None:
        gain, moved = log_prob * advantage, jnp.zeros_like(log_prob)
    else:
        ratio = probability_ratio(log_prob, old_log_prob)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps) * advantage)
        moved = jnp.abs(ratio - 1) > clip_eps
    return -gain.mean(), moved.mean(dtype=jnp.float32)


def value_loss(value: Float[Array, " b"], target: Float[Array, " b"]) -> Scalar:
    """The critic's loss, half the mean square of V(s) - (V_old(s) + Â).

    >>> float(value_loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    1.0
    """
    return jnp.mean((value - target) ** 2) / 2
