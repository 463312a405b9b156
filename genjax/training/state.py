"""The state of training: arrays only, so that checkpoints, devices, donation and vmap need no special care."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from genjax import statistics
from genjax.types import Params


class TrainState(NamedTuple):
    """The state of a run after ``step`` steps. No key: keys are ``fold_in(key(seed), step)``.

    Attributes:
      step: number of steps done, int32; also the data cursor.
      params: trained parameters, and running statistics (``genjax.statistics``).
      ema_params: exponential moving average of ``params``, float32; for samples and evaluation.
      opt_state: state of the optimizer.
      carry: state that goes on from batch to batch, such as the environments of a policy; equal on all devices. The
        empty tuple if there is none.
    """

    step: Int[Array, ""]
    params: Params
    ema_params: Params
    opt_state: optax.OptState
    carry: Any = ()


def create(params: Params, optimizer: optax.GradientTransformation, carry: Any = ()) -> TrainState:
    """The state before the first step.

    Args:
      params: initial parameters.
      optimizer: transformation from optax; the model's own (``model.optimizer``) if it has running statistics.
      carry: state that goes on from batch to batch.

    Raises:
      ValueError: some parameters are running statistics, and the optimizer does not know them (``genjax.statistics``).
    """
    statistics.check(params, optimizer)
    return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), optimizer.init(params), carry)
