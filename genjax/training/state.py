"""What training carries: arrays only, so that checkpoints, devices, donation and vmap need no special care."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from genjax import statistics
from genjax.types import Params


class TrainState(NamedTuple):
    """The state of a run after ``step`` steps. No key: keys are ``fold_in(key(seed), step)``.

    Fields:
      step: steps done, int32; also the data cursor.
      params: what is trained.
      ema_params: their exponential moving average, float32; what one samples from.
      opt_state: the optimizer's.
    """

    step: Int[Array, ""]
    params: Params
    ema_params: Params
    opt_state: optax.OptState


def create(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    Raises:
      ValueError: some parameters are running statistics, and the optimizer does not know them (``genjax.statistics``).
    """
    statistics.check(params, optimizer)
    return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), optimizer.init(params))
