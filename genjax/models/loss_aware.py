"""Loss-aware times for a DDPM: importance sampling of Nichol & Dhariwal 2021, §3.3 (arXiv:2102.09672).

Times are drawn in proportion to √E[L²|t], which has the least variance; weights keep the mean of the loss. The table of
E[L²|t] is a running statistic among the parameters (``genjax.statistics``), beside those of the network.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from genjax import checks, random, statistics
from genjax.models.ddpm import DDPM
from genjax.types import Batch, Key, Metrics, Params, Scalar

SQUARES: dict[statistics.Path, float] = {("squares",): 0.01}
"""Path of the table among the parameters, and the rate of its running averages."""


def probabilities(squares: Float[Array, " t"], floor: float | int) -> Float[Array, " t"]:
    """Compute the distribution of the times, √E[L²|t] normalised and mixed with the uniform one.

    Args:
      squares: E[L²|t] [t].
      floor: share of the uniform distribution.
    """
    root = jnp.sqrt(jax.lax.stop_gradient(squares))
    return (1 - floor) * root / root.sum() + floor / squares.shape[0]


def build(model: DDPM, num_steps: int, *, floor: float | int = 1e-3) -> DDPM:
    """Make the model with loss-aware times.

    The gradient of the table is that of ½ (L² - m_t)², so that the descent of ``optimizer`` is a running average.

    Args:
      model: the model with uniform times.
      num_steps: T.
      floor: share of the times that are drawn uniformly, in (0, 1].

    Raises:
      ValueError: ``num_steps`` < 1, or ``floor`` is outside (0, 1].
    """
    checks.count("num_steps", num_steps)
    if not 0 < floor <= 1:
        raise ValueError(f"floor: expected a share in (0, 1], got {floor:g}")

    def init(key: Key) -> Params:
        return statistics.mark({"network": model.init(key), "squares": jnp.ones(num_steps)}, SQUARES)

    def weighted(key: Key, params: Params, batch: Batch) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """The weighted losses, and the losses of the table."""
        time_keys, loss_keys = random.split(random.example_keys(key, batch["image"].shape[0]), 2)
        p = probabilities(params["squares"], floor)
        u = batch["time"] if "time" in batch else jax.vmap(jax.random.uniform)(time_keys)
        t = jnp.minimum(jnp.searchsorted(jnp.cumsum(p), u, side="right"), num_steps - 1)
        losses = model.losses(loss_keys, params["network"], {**batch, "time": (t + 0.5) / num_steps})
        table_losses = 0.5 * (params["squares"][t] - jax.lax.stop_gradient(losses**2)) ** 2
        return losses / (num_steps * p[t]), table_losses * num_steps

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        losses, table_losses = weighted(key, params, batch)
        return losses.mean() + (table_losses - jax.lax.stop_gradient(table_losses)).mean(), {}

    return DDPM(
        init=init,
        loss=loss,
        losses=lambda key, params, batch: weighted(key, params, batch)[0],
        denoise=lambda params, labels=None: model.denoise(params["network"], labels),
        sample=lambda key, params, num, keep=None, labels=None: model.sample(key, params["network"], num, keep, labels),
        optimizer=optimizer,
    )


def optimizer(inner: optax.GradientTransformation, rate: float | int = 0.01) -> optax.GradientTransformation:
    """Make an optimizer: ``inner`` for the network, gradient descent with a rate of its own for the table.

    Args:
      inner: optimizer of the network.
      rate: rate of the running averages.

    Raises:
      ValueError: ``rate`` is not positive and finite.
    """
    checks.positive("rate", rate)
    return statistics.optimizer({"network": inner}, lambda path: "network", rate=rate)
