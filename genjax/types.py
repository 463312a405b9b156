"""The words every module shares: type aliases, and the letters that name array axes.

Shape letters, used in every annotation and checked in the tests:

======  ==========================================  ======  ==================================
letter  axis                                        letter  axis
======  ==========================================  ======  ==================================
``b``   examples of a batch                         ``t``   time steps of a process or chain
``h``   height of an image                          ``n``   rows of a data set
``w``   width of an image                           ``k``   entries of a codebook, components
``c``   channels of an image                        ``d``   dimensions of a latent
``a``   actions
======  ==========================================  ======  ==================================

Images are NHWC, float, in [-1, 1] inside the models and uint8 on disk and in device memory.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Shaped

Key = jax.Array
"""A typed key, ``jax.random.key(seed)``; or an array of keys, one per example (see ``genjax.random``)."""

Scalar = Float[Array, ""]
"""A floating-point number on the device."""

Number = float | int | Scalar
"""A number given by the user: a Python number, or an array in a program that varies the number."""

Images = Float[Array, "b h w c"]
"""A batch of images, channels last."""

Pixels = Shaped[Array, "b h w c"]
"""Images of any type, for functions that refuse bytes by themselves."""

Params = Any
"""A tree of parameters, as ``flax.linen`` makes it."""

Labels = Any
"""Classes of the examples, whole numbers [b]: an array or a list."""

Arrays = Float[Array, "b ..."]
"""A batch of arrays of any one shape: images, points, latents."""

Data = Mapping[str, Any]
"""A data set: named arrays with a common leading axis n, such as ``{"image": uint8[n h w c], "label": int32[n]}``."""

Batch = Mapping[str, Any]
"""Rows of a data set: the same names, with a leading axis b."""

Metrics = dict[str, jax.Array]
"""Named scalars that a loss or a step reports."""

State = Any
Input = Any
Output = Any

Kernel = Callable[[Key, State, Input], tuple[State, Output]]
"""A random step: ``(key, state, input) -> (state, output)``; repeated by ``theory.markov.simulate``."""

Loss = Callable[[Key, Params, Batch], tuple[Scalar, Metrics]]
"""A training loss: ``(key, params, batch) -> (mean over the batch, metrics)``."""


class Carried(NamedTuple):
    """A batch from a source with a state of its own, such as environments that go on between rollouts.

    Attributes:
      batch: rows of the step.
      carry: state for the next batch, of the shapes and dtypes of ``TrainState.carry``; equal on all devices.
    """

    batch: Batch
    carry: Any


BatchFn = Callable[[Key, Any, Data], Batch | Carried]
"""A source of batches: ``(key of the run, TrainState, data) -> batch``; ``state.step`` is the data cursor."""
