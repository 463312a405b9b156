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
from typing import Any

import jax
from jaxtyping import Array, Float, Shaped

Key = jax.Array
"""A typed key, ``jax.random.key(seed)``; or an array of them, one per example (see ``genjax.random``)."""

Scalar = Float[Array, ""]
"""One floating-point number on the device."""

Number = float | int | Scalar
"""A number that is given: known, or traced in a program that varies it."""

Images = Float[Array, "b h w c"]
"""A batch of images, channels last."""

Pixels = Shaped[Array, "b h w c"]
"""Images at an entrance that refuses by itself what is not floating-point, as bytes are not."""

Params = Any
"""A tree of parameters, as ``flax.linen`` makes it."""

Data = Mapping[str, Any]
"""A data set: named arrays with a common leading axis n, as ``{"image": uint8[n h w c], "label": int32[n]}``."""

Batch = Mapping[str, Any]
"""Some rows of a data set: the same names, with a leading axis b."""

Metrics = dict[str, jax.Array]
"""Named scalars a loss or a step reports."""

State = Any
Input = Any
Output = Any

Kernel = Callable[[Key, State, Input], tuple[State, Output]]
"""Everything random: ``(key, state, input) -> (state, output)``. Repeated by ``theory.markov.simulate``."""

Loss = Callable[[Key, Params, Batch], tuple[Scalar, Metrics]]
"""What training minimises: the mean over the batch, and what else is worth a line in the log."""

BatchFn = Callable[[Key, Any, Data], Batch]
"""Where a batch comes from: ``(key of the run, TrainState, data) -> batch``; ``state.step`` is the data cursor."""
