"""Causal convolutions, whose output at a pixel depends only on earlier pixels in raster order.

A layer runs over a whole image, for training; or row by row and pixel by pixel, for sampling. Then each layer keeps the
last rows of its inputs in a window, so that sampling an image computes every number once. Both ways give the same
numbers.
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
"""Last rows of a layer's inputs, the newest last, padded with zeros on the left and on the right."""

MaskType = Literal["A", "B"]
"""Mask A hides the pixel itself, mask B shows it. With several colours, mask A shows the earlier colours of the pixel,
and mask B the own colour as well (van den Oord et al. 2016a, §3.4)."""


class MaskedConv(nn.Module):
    """Masked convolution over the rows above and the pixels to the left (van den Oord et al. 2016a, §3.4).

    The kernel has no rows below the middle, which the mask would set to zero.

    Attributes:
      inputs: number of input channels.
      features: number of output channels.
      kernel_size: width of the kernel, odd.
      mask_type: "A" or "B", see ``MaskType``.
      rows_above: number of kernel rows above the middle; half of the width by default, 0 for a horizontal layer.
      colours: number of colours; channel i, of the input and of the output, belongs to colour i mod ``colours``.
    """

    inputs: int
    features: int
    kernel_size: int
    mask_type: MaskType
    rows_above: int | None = None
    colours: int = 1

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        check_odd("kernel_size", self.kernel_size)
        checks.choice("mask_type", self.mask_type, ("A", "B"))
        checks.count("rows_above", 0 if self.rows_above is None else self.rows_above, 0)
        checks.count("colours", self.colours)
        super().__post_init__()

    def setup(self) -> None:
        """Make the parameters."""
        self.rows = 1 + (self.kernel_size // 2 if self.rows_above is None else self.rows_above)
        shape = (self.rows, self.kernel_size, self.inputs, self.features)
        self.kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def masked(self) -> Float[Array, "r k i o"]:
        """Kernel times its mask."""
        mask = np.ones(self.kernel.shape, np.float32)
        mask[-1, self.kernel_size // 2 + 1 :] = 0
        mask[-1, self.kernel_size // 2] = colour_mask(self.inputs, self.features, self.colours, self.mask_type)
        return self.kernel * mask

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """Return the outputs at every pixel of whole images."""
        half = self.kernel_size // 2
        return convolution.conv(x, self.masked(), 1, ((self.rows - 1, 0), (half, half))) + self.bias

    def pointwise(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """Return the outputs of a 1×1 convolution at pixels in any arrangement."""
        return x @ self.masked()[0, 0] + self.bias

    def window(self, batch: int, width: int) -> Window:
        """Window before the first row: zeros."""
        return jnp.zeros((batch, self.rows, width + 2 * (self.kernel_size // 2), self.inputs))

    def pixel(self, window: Window, x: Pixel, column: Column) -> tuple[Window, Float[Array, "b g"]]:
        """Write the input at a column of the newest row, and return the output there."""
        window = write_pixel(window, x, column, self.kernel_size // 2)
        batch, rows, _, inputs = window.shape
        patch = jax.lax.dynamic_slice(window, (0, 0, column, 0), (batch, rows, self.kernel_size, inputs))
        return window, patch.reshape(batch, -1) @ self.masked().reshape(-1, self.features) + self.bias


class RowsAbove(nn.Module):
    """Convolution of the vertical stack, over whole rows (van den Oord et al. 2016b, §2.2).

    Attributes:
      inputs: number of input channels.
      features: number of output channels.
      kernel_size: width of the kernel before masking, odd.
      mask_type: "A" sees the rows above the pixel; "B" also the pixel's row, whose inputs depend on rows above only.
    """

    inputs: int
    features: int
    kernel_size: int
    mask_type: MaskType

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        check_odd("kernel_size", self.kernel_size)
        checks.choice("mask_type", self.mask_type, ("A", "B"))
        super().__post_init__()

    def setup(self) -> None:
        """Make the parameters."""
        self.rows = self.kernel_size // 2 + (self.mask_type == "B")
        shape = (self.rows, self.kernel_size, self.inputs, self.features)
        self.kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """Return the outputs at every pixel of whole images."""
        half = self.kernel_size // 2
        if self.mask_type == "A":
            x = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        return convolution.conv(x, self.kernel, 1, ((self.rows - 1, 0), (half, half))) + self.bias

    def window(self, batch: int, width: int) -> Window:
        """Window before the first row: zeros."""
        return jnp.zeros((batch, self.rows, width + 2 * (self.kernel_size // 2), self.inputs))

    def row(self, window: Window, x: Row) -> tuple[Window, Float[Array, "b w g"]]:
        """Append the newest row of inputs, which is the row above for mask A, and return the row of outputs."""
        window = push_row(window, x, self.kernel_size // 2)
        return window, convolution.conv(window, self.kernel, 1, 0)[:, 0] + self.bias


def check_odd(name: str, size: int) -> None:
    """Refuse kernels of even width, which have no middle.

    Raises:
      ValueError: ``size`` is even, or below 1.
    """
    checks.count(name, size)
    if size % 2 == 0:
        raise ValueError(f"{name}: expected an odd width, which has a middle, got {size}; use {size - 1} or {size + 1}")


def check_arguments(
    outputs: int, colours: int, channels: int, features: int, head_features: int, num_levels: int
) -> None:
    """Check the fields that all causal networks share.

    Raises:
      ValueError: a field is out of range.
    """
    for name, value in (
        ("outputs", outputs),
        ("colours", colours),
        ("features", features),
        ("head_features", head_features),
    ):
        checks.count(name, value)
    checks.count("channels", channels, 0)
    checks.count("num_levels", num_levels, 0)
    if num_levels == 1:
        raise ValueError("num_levels: expected 0, for numbers, or at least 2, got 1")
    if colours > 1 and channels not in (0, colours):
        raise ValueError(f"channels: expected {colours}, as many as colours, got {channels}; or take colours=1")


def embed(pixels: Shaped[Array, "*batch c"], num_levels: int) -> Float[Array, "*batch i"]:
    """Levels of pixels in [-1, 1], one-hot: channel l c + j is level l of channel j. For 0 levels, the pixels."""
    checks.floating("images", pixels, checks.SCALE)
    if not num_levels:
        return pixels
    level = jnp.round((pixels + 1) / 2 * (num_levels - 1)).astype(jnp.int32)
    one_hot = jax.nn.one_hot(level, num_levels, axis=-2, dtype=pixels.dtype)
    return one_hot.reshape(*pixels.shape[:-1], num_levels * pixels.shape[-1])


def push_row(window: Window, x: Row, half: int) -> Window:
    """Drop the oldest row, and append row x."""
    newest = jnp.pad(x, ((0, 0), (half, half), (0, 0)))[:, None]
    return jnp.concatenate([window[:, 1:], newest], 1)


def push_zeros(window: Window) -> Window:
    """Drop the oldest row, and append a row of zeros."""
    return jnp.concatenate([window[:, 1:], jnp.zeros_like(window[:, :1])], 1)


def write_row(window: Window, x: Row, half: int) -> Window:
    """Overwrite the newest row with x."""
    return window.at[:, -1, half : half + x.shape[1]].set(x)


def write_pixel(window: Window, x: Pixel, column: Column, half: int) -> Window:
    """Write pixel x into a column of the newest row."""
    return jax.lax.dynamic_update_slice(window, x[:, None, None], (0, window.shape[1] - 1, column + half, 0))


def colour_mask(inputs: int, features: int, colours: int, mask_type: MaskType) -> Float[np.ndarray, "i o"]:
    """Mask at the pixel itself: 1 where an output channel may depend on an input channel, 0 elsewhere.

    Channel i belongs to colour i mod ``colours``. It depends on earlier colours, and for mask B also on its own.
    """
    source, target = np.arange(inputs)[:, None] % colours, np.arange(features) % colours
    return ((source < target) if mask_type == "A" else (source <= target)).astype(np.float32)
