"""PixelCNN (van den Oord et al. 2016a) and gated PixelCNN (van den Oord et al. 2016b): causal convolutional networks.

The outputs of a causal network at a pixel parameterise the distribution of that pixel given the pixels before. Beside
``network(images, labels=None)`` for whole images the network has four methods, for a sampler that goes through an image
once (``genjax.nn.protocols.CausalNetwork``):

    inputs = network.embed(pixels)                          # [... c] to [... i], the inputs of the first layer
    cache = network.cache(batch, width)
    cache = network.start_row(cache, row, labels)           # row [b w i]: the row above, or zeros
    cache, outputs = network.pixel(cache, left, here, column, labels)

where ``left`` [b i] is the embedded pixel to the left, zeros at the first column, and ``here`` [b i] is the embedded
pixel itself, whose colours are zero until they are drawn.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from genjax import checks
from genjax.nn import causal, mlp
from genjax.nn.causal import Column, Pixel, Row
from genjax.types import Pixels

Labels = mlp.Labels
Cache = dict[str, Any]
Outputs = Float[Array, "b h w m"]
Apply = Callable[[str, causal.MaskedConv, Array], Array]
"""``apply(name, layer, x)``: the layer on whole images, or on a pixel with the window of that name."""


class PixelCNN(nn.Module):
    """Masked convolutions with residual blocks (van den Oord et al. 2016a, §3.4-3.6, table 1).

    The receptive field has a blind spot: pixels above and far to the right are not seen.

    Attributes:
      outputs: number of outputs of a pixel; output i belongs to colour i mod ``colours``.
      colours: number of colours that are drawn one after the other; 1 draws a pixel at once.
      channels: number of channels of the image; by default ``colours``.
      features: h for each colour; blocks are 2h → h → h → 2h wide.
      num_blocks: number of residual blocks.
      kernel_size: width of the kernels in the blocks; the first kernel is 7 wide.
      head_features: width of the layer before the last, for each colour.
      num_levels: number of levels of a pixel, for one-hot inputs; 0 for inputs as numbers.
    """

    outputs: int
    colours: int = 1
    channels: int = 0
    features: int = 32
    num_blocks: int = 5
    kernel_size: int = 3
    head_features: int = 64
    num_levels: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        causal.check_arguments(
            self.outputs, self.colours, self.channels, self.features, self.head_features, self.num_levels
        )
        checks.count("num_blocks", self.num_blocks, 0)
        causal.check_odd("kernel_size", self.kernel_size)
        super().__post_init__()

    def setup(self) -> None:
        """Make the layers."""
        c, f, head = self.colours, self.features * self.colours, self.head_features * self.colours
        conv = lambda inputs, features, size, mask="B": causal.MaskedConv(inputs, features, size, mask, colours=c)
        self.first = conv((self.channels or c) * max(self.num_levels, 1), 2 * f, 7, "A")
        self.narrow = [conv(2 * f, f, 1) for _ in range(self.num_blocks)]
        self.convs = [conv(f, f, self.kernel_size) for _ in range(self.num_blocks)]
        self.wide = [conv(f, 2 * f, 1) for _ in range(self.num_blocks)]
        self.head_in, self.head_out = conv(2 * f, head, 1), conv(head, self.outputs, 1)

    def __call__(self, images: Pixels, labels: Labels | None = None) -> Outputs:
        """Return the outputs of every pixel; labels are not used."""
        return self._body(self.first(self.embed(images)), lambda name, layer, x: layer(x))

    def embed(self, pixels: Shaped[Array, "*batch c"]) -> Float[Array, "*batch i"]:
        """Return the inputs of the first layer."""
        return causal.embed(pixels, self.num_levels)

    def _body(self, x: Array, apply: Apply) -> Array:
        for i in range(self.num_blocks):
            y = self.narrow[i].pointwise(nn.relu(x))
            y = apply(f"conv_{i}", self.convs[i], nn.relu(y))
            x = x + self.wide[i].pointwise(nn.relu(y))
        return self.head_out.pointwise(nn.relu(self.head_in.pointwise(nn.relu(x))))

    def cache(self, batch: int, width: int) -> Cache:
        """Windows of all layers before the first row."""
        layers = {"first": self.first} | {f"conv_{i}": layer for i, layer in enumerate(self.convs)}
        return {name: layer.window(batch, width) for name, layer in layers.items()}

    def start_row(self, cache: Cache, row: Row, labels: Labels | None = None) -> Cache:
        """Go to the next row; ``row`` is the embedded row above."""
        half = self.first.kernel_size // 2
        full = cache | {"first": causal.write_row(cache["first"], row, half)}  # also the last pixel
        return {name: causal.push_zeros(window) for name, window in full.items()}

    def pixel(
        self, cache: Cache, left: Pixel, here: Pixel, column: Column, labels: Labels | None = None
    ) -> tuple[Cache, Float[Array, "b m"]]:
        """Return the new cache and the outputs at a column."""
        half = self.first.kernel_size // 2
        new = {"first": causal.write_pixel(cache["first"], left, column - 1, half)}
        new["first"], x = self.first.pixel(new["first"], here, column)

        def apply(name: str, layer: causal.MaskedConv, x: Array) -> Array:
            new[name], y = layer.pixel(cache[name], x, column)
            return y

        return new, self._body(x, apply)


class GatedPixelCNN(nn.Module):
    """Gated layers in a vertical and a horizontal stack, which together see all earlier pixels (2016b, §2).

    Layer: v' = tanh(a) σ(b) with (a, b) a convolution of v over rows above; h' likewise of h to the left plus a 1×1 of
    v's (a, b), then 1×1 and added to h (figure 2). Labels enter every (a, b) (eq. 4).

    Attributes:
      outputs: number of outputs of a pixel; output i belongs to colour i mod ``colours``.
      colours: number of colours that are drawn one after the other; 1 draws a pixel at once.
      channels: number of channels of the image; by default ``colours``.
      features: width of both stacks, for each colour.
      num_layers: number of layers of each stack, the first included.
      kernel_size: width of the kernels after the first; the first kernel is 7 wide.
      head_features: width of the layer before the last, for each colour.
      num_classes: number of classes of the labels; 0 for a network without labels.
      num_levels: number of levels of a pixel, for one-hot inputs; 0 for inputs as numbers.
    """

    outputs: int
    colours: int = 1
    channels: int = 0
    features: int = 32
    num_layers: int = 6
    kernel_size: int = 3
    head_features: int = 64
    num_classes: int = 0
    num_levels: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        causal.check_arguments(
            self.outputs, self.colours, self.channels, self.features, self.head_features, self.num_levels
        )
        checks.count("num_layers", self.num_layers)
        causal.check_odd("kernel_size", self.kernel_size)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    def setup(self) -> None:
        """Make the layers."""
        c, f, head = self.colours, self.features * self.colours, self.head_features * self.colours
        conv = lambda inputs, features, size, mask="B": causal.MaskedConv(inputs, features, size, mask, 0, c)
        inputs = (self.channels or c) * max(self.num_levels, 1)
        later: list[tuple[int, int, causal.MaskType]] = [(f, self.kernel_size, "B")] * (self.num_layers - 1)
        layers: list[tuple[int, int, causal.MaskType]] = [(inputs, 7, "A"), *later]
        self.vertical = [causal.RowsAbove(n, 2 * f, size, mask) for n, size, mask in layers]
        self.across = [nn.Dense(2 * f, use_bias=False) for _ in layers]
        self.horizontal = [conv(n, 2 * f, size, mask) for n, size, mask in layers]
        self.narrow = [conv(f, f, 1) for _ in layers]
        self.label = [nn.Dense(4 * f, use_bias=False) for _ in layers] if self.num_classes else []
        self.head_in, self.head_out = conv(f, head, 1), conv(head, self.outputs, 1)

    def __call__(self, images: Pixels, labels: Labels | None = None) -> Outputs:
        """Return the outputs of every pixel; ``labels`` are required if and only if there are classes."""
        above, x = [], self.embed(images)
        v = x
        for i in range(self.num_layers):
            pre = self._labelled(i, self.vertical[i](v), labels, 0)
            above.append(self.across[i](pre))
            v = gate(pre)
        return self._horizontal(x, above, labels, lambda name, layer, x: layer(x))

    def embed(self, pixels: Shaped[Array, "*batch c"]) -> Float[Array, "*batch i"]:
        """Return the inputs of the first layer."""
        return causal.embed(pixels, self.num_levels)

    def _horizontal(self, x: Array, above: list[Array], labels: Labels | None, apply: Apply) -> Array:
        h = x
        for i in range(self.num_layers):
            pre = apply(f"horizontal_{i}", self.horizontal[i], h) + above[i]
            y = self.narrow[i].pointwise(gate(self._labelled(i, pre, labels, 1)))
            h = y if i == 0 else h + y
        return self.head_out.pointwise(nn.relu(self.head_in.pointwise(nn.relu(h))))

    def _labelled(self, i: int, x: Array, labels: Labels | None, stack: int) -> Array:
        """Add the label's bias of layer i, of the vertical (0) or the horizontal (1) stack."""
        classes = mlp.one_hot(labels, self.num_classes)
        if classes is None:
            return x
        bias = jnp.split(self.label[i](classes.astype(x.dtype)), 2, -1)[stack]
        return x + bias.reshape(bias.shape[0], *[1] * (x.ndim - 2), -1)

    def cache(self, batch: int, width: int) -> Cache:
        """Windows of all layers before the first row."""
        new = {f"vertical_{i}": layer.window(batch, width) for i, layer in enumerate(self.vertical)}
        new |= {f"horizontal_{i}": layer.window(batch, width) for i, layer in enumerate(self.horizontal)}
        rows = jnp.zeros((batch, width, 2 * self.features * self.colours))
        return new | {f"above_{i}": rows for i in range(self.num_layers)}

    def start_row(self, cache: Cache, row: Row, labels: Labels | None = None) -> Cache:
        """Go to the next row, and compute its vertical stack, which needs no pixel of the row."""
        new, v = {}, row
        for i in range(self.num_layers):
            new[f"vertical_{i}"], pre = self.vertical[i].row(cache[f"vertical_{i}"], v)
            pre = self._labelled(i, pre, labels, 0)
            new[f"above_{i}"] = self.across[i](pre)
            v = gate(pre)
            new[f"horizontal_{i}"] = jnp.zeros_like(cache[f"horizontal_{i}"])
        return new

    def pixel(
        self, cache: Cache, left: Pixel, here: Pixel, column: Column, labels: Labels | None = None
    ) -> tuple[Cache, Float[Array, "b m"]]:
        """Return the new cache and the outputs at a column."""
        half = self.horizontal[0].kernel_size // 2
        new = cache | {"horizontal_0": causal.write_pixel(cache["horizontal_0"], left, column - 1, half)}
        above = [jax.lax.dynamic_index_in_dim(cache[f"above_{i}"], column, 1, False) for i in range(self.num_layers)]

        def apply(name: str, layer: causal.MaskedConv, x: Array) -> Array:
            new[name], y = layer.pixel(new[name], x, column)
            return y

        return new, self._horizontal(here, above, labels, apply)


def gate(x: Float[Array, "... two_f"]) -> Float[Array, "... f"]:
    """tanh(a) σ(b), with (a, b) the two halves of the channels (2016b, eq. 2)."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)
