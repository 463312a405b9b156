"""Layers that see only what comes before, in raster order; over a whole image, or a row and a pixel at a time.

A layer keeps what it needs of its past inputs in a window, so that a network of them can go through an image once and
compute every number once. Both ways give the same numbers.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from genjax import checks
from genjax.nn import convolution

Maps = Float[Array, "b h w f"]
Row = Float[Array, "b w f"]
Pixel = Float[Array, "b f"]
Column = Int[Array, ""]
Window = Float[Array, "b r w2 f"]
"""The last rows of a layer's inputs, the newest last, with zeros left and right of them."""

Kind = Literal["A", "B"]
"""A layer of kind A does not see the pixel itself (of its colours only those before), one of kind B does."""


class MaskedConv(nn.Module):
    """A convolution that sees the rows above and the pixels to the left (van den Oord et al. 2016a, §3.4).

    Its kernel has no rows below the middle, so nothing is computed for them.

    Fields:
      inputs: channels in.
      features: channels out.
      size: width of the kernel, odd.
      kind: see ``Kind``.
      above: rows above that it sees; half of the size by default, 0 for a horizontal layer.
      colours: channels in and out belong to so many colours in turns; at the pixel itself each sees those before.
    """

    inputs: int
    features: int
    size: int
    kind: Kind
    above: int | None = None
    colours: int = 1

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        odd("size", self.size)
        checks.choice("kind", self.kind, ("A", "B"))
        checks.count("above", 0 if self.above is None else self.above, 0)
        checks.count("colours", self.colours)
        super().__post_init__()

    def setup(self):
        """Make the parameters."""
        self.rows = 1 + (self.size // 2 if self.above is None else self.above)
        shape = (self.rows, self.size, self.inputs, self.features)
        self.kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def masked(self) -> Float[Array, "r k i o"]:
        """The kernel with zeros where it must not see."""
        mask = np.ones(self.kernel.shape, np.float32)
        mask[-1, self.size // 2 + 1 :] = 0
        mask[-1, self.size // 2] = seen(self.inputs, self.features, self.colours, self.kind)
        return self.kernel * mask

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """The whole image."""
        half = self.size // 2
        return convolution.conv(x, self.masked(), 1, ((self.rows - 1, 0), (half, half))) + self.bias

    def at_each(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """A 1×1 convolution, at pixels in whatever arrangement."""
        return x @ self.masked()[0, 0] + self.bias

    def window(self, batch: int, width: int) -> Window:
        """What there is before the first row."""
        return jnp.zeros((batch, self.rows, width + 2 * (self.size // 2), self.inputs))

    def pixel(self, window: Window, x: Pixel, column: Column) -> tuple[Window, Float[Array, "b g"]]:
        """Take in the input at a column of the newest row, and give the output there."""
        window = put(window, x, column, self.size // 2)
        batch, rows, _, inputs = window.shape
        patch = jax.lax.dynamic_slice(window, (0, 0, column, 0), (batch, rows, self.size, inputs))
        return window, patch.reshape(batch, -1) @ self.masked().reshape(-1, self.features) + self.bias


class RowsAbove(nn.Module):
    """A convolution of the vertical stack, which sees whole rows (van den Oord et al. 2016b, §2.2).

    Fields:
      inputs: channels in.
      features: channels out.
      size: of the square kernel, odd.
      kind: "A" sees the rows above; "B" also its own, whose numbers come from rows above already.
    """

    inputs: int
    features: int
    size: int
    kind: Kind

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        odd("size", self.size)
        checks.choice("kind", self.kind, ("A", "B"))
        super().__post_init__()

    def setup(self):
        """Make the parameters."""
        self.rows = self.size // 2 + (self.kind == "B")
        shape = (self.rows, self.size, self.inputs, self.features)
        self.kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """The whole image."""
        half = self.size // 2
        if self.kind == "A":
            x = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        return convolution.conv(x, self.kernel, 1, ((self.rows - 1, 0), (half, half))) + self.bias

    def window(self, batch: int, width: int) -> Window:
        """What there is before the first row."""
        return jnp.zeros((batch, self.rows, width + 2 * (self.size // 2), self.inputs))

    def row(self, window: Window, x: Row) -> tuple[Window, Float[Array, "b w g"]]:
        """Take in the newest row of inputs, the row above for kind A, and give the row of outputs."""
        window = shift(window, x, self.size // 2)
        return window, convolution.conv(window, self.kernel, 1, 0)[:, 0] + self.bias


def odd(name: str, size: int) -> None:
    """Refuse widths of kernels that have no middle, where the pixel itself is.

    Raises:
      ValueError: ``size`` is even, or below 1.
    """
    checks.count(name, size)
    if size % 2 == 0:
        raise ValueError(f"{name}: expected an odd width, which has a middle, got {size}; use {size - 1} or {size + 1}")


def check(outputs: int, colours: int, channels: int, features: int, head: int, levels: int) -> None:
    """Refuse the numbers of a causal network, of whatever kind, that cannot be.

    Raises:
      ValueError: one that cannot.
    """
    for name, value in (("outputs", outputs), ("colours", colours), ("features", features), ("head", head)):
        checks.count(name, value)
    checks.count("channels", channels, 0)
    checks.count("levels", levels, 0)
    if levels == 1:
        raise ValueError("levels: expected 0, for numbers, or at least 2, got 1")
    if colours > 1 and channels not in (0, colours):
        raise ValueError(f"channels: expected {colours}, as many as colours, got {channels}; or take colours=1")


def embed(pixels: Shaped[Array, "*place c"], levels: int) -> Float[Array, "*place i"]:
    """Pixels in [-1, 1] one-hot among so many levels, level by level; as they are for 0 levels."""
    checks.floating("images", pixels, checks.SCALE)
    if not levels:
        return pixels
    level = jnp.round((pixels + 1) / 2 * (levels - 1)).astype(jnp.int32)
    places = jax.nn.one_hot(level, levels, axis=-2, dtype=pixels.dtype)
    return places.reshape(*pixels.shape[:-1], levels * pixels.shape[-1])


def shift(window: Window, x: Row, half: int) -> Window:
    """Drop the oldest row, and append one."""
    newest = jnp.pad(x, ((0, 0), (half, half), (0, 0)))[:, None]
    return jnp.concatenate([window[:, 1:], newest], 1)


def next_row(window: Window) -> Window:
    """Drop the oldest row, and append one of zeros."""
    return jnp.concatenate([window[:, 1:], jnp.zeros_like(window[:, :1])], 1)


def finish_row(window: Window, x: Row, half: int) -> Window:
    """The newest row, written in full."""
    return window.at[:, -1, half : half + x.shape[1]].set(x)


def put(window: Window, x: Pixel, column: Column, half: int) -> Window:
    """Write into the newest row."""
    return jax.lax.dynamic_update_slice(window, x[:, None, None], (0, window.shape[1] - 1, column + half, 0))


def seen(inputs: int, features: int, colours: int, kind: Kind) -> Float[np.ndarray, "i o"]:
    """1 where an output channel may see an input channel of its own pixel, 0 elsewhere.

    Channel i is of colour i mod ``colours``: of kind A it sees the colours before, of kind B its own as well.
    """
    source, target = np.arange(inputs)[:, None] % colours, np.arange(features) % colours
    return ((source < target) if kind == "A" else (source <= target)).astype(np.float32)
