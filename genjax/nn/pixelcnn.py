"""PixelCNN (van den Oord et al. 2016a) and gated PixelCNN (van den Oord et al. 2016b): causal convolutional networks.

A causal network gives for each pixel the outputs that parameterise its distribution given the pixels before. Beside
``network(images, labels=None)`` for a whole image it has four methods, with which a sampler goes through it once:

    inputs = network.embed(pixels)                          # [... c] to the i numbers that the layers see
    cache = network.cache(batch, width)
    cache = network.start_row(cache, row, labels)           # row [b w i]: the one just finished, zeros before the first
    cache, outputs = network.pixel(cache, left, here, column, labels)

where ``left`` [b i] is the pixel to the left, zeros at the first column, ``here`` what is known of the pixel itself.
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
"""How the body applies a layer: to a whole image, or to a pixel with a window that goes by the name."""


class PixelCNN(nn.Module):
    """Masked convolutions with residual blocks (van den Oord et al. 2016a, §3.4-3.6, table 1).

    Of the rows above, pixels to the right are seen in a cone only: there is a blind spot.

    Fields:
      outputs: for each pixel; those of a colour stand at every ``colours``-th place.
      colours: of a pixel, each of which sees those before it; 1 makes the outputs of a pixel all at once.
      channels: of the image; as many as colours by default.
      features: h for each colour; blocks are 2h → h → h → 2h wide.
      blocks: residual blocks.
      size: of the kernels in the blocks; the first is 7.
      head: width of the layer before the last, for each colour.
      levels: of the pixels, to see them one-hot; 0 sees them as numbers.
    """

    outputs: int
    colours: int = 1
    channels: int = 0
    features: int = 32
    blocks: int = 5
    size: int = 3
    head: int = 64
    levels: int = 0

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        causal.check(self.outputs, self.colours, self.channels, self.features, self.head, self.levels)
        checks.count("blocks", self.blocks, 0)
        causal.odd("size", self.size)
        super().__post_init__()

    def setup(self):
        """Make the layers."""
        c, f, head = self.colours, self.features * self.colours, self.head * self.colours
        conv = lambda inputs, features, size, kind="B": causal.MaskedConv(inputs, features, size, kind, colours=c)
        self.first = conv((self.channels or c) * max(self.levels, 1), 2 * f, 7, "A")
        self.narrow = [conv(2 * f, f, 1) for _ in range(self.blocks)]
        self.convs = [conv(f, f, self.size) for _ in range(self.blocks)]
        self.wide = [conv(f, 2 * f, 1) for _ in range(self.blocks)]
        self.head_in, self.head_out = conv(2 * f, head, 1), conv(head, self.outputs, 1)

    def __call__(self, images: Pixels, labels: Labels | None = None) -> Outputs:
        """The outputs of every pixel; labels are not used."""
        return self._body(self.first(self.embed(images)), lambda name, layer, x: layer(x))

    def embed(self, pixels: Shaped[Array, "*place c"]) -> Float[Array, "*place i"]:
        """What the layers see of pixels."""
        return causal.embed(pixels, self.levels)

    def _body(self, x: Array, apply: Apply) -> Array:
        for i in range(self.blocks):
            y = self.narrow[i].at_each(nn.relu(x))
            y = apply(f"conv_{i}", self.convs[i], nn.relu(y))
            x = x + self.wide[i].at_each(nn.relu(y))
        return self.head_out.at_each(nn.relu(self.head_in.at_each(nn.relu(x))))

    def cache(self, batch: int, width: int) -> Cache:
        """What there is before the first row."""
        layers = {"first": self.first} | {f"conv_{i}": layer for i, layer in enumerate(self.convs)}
        return {name: layer.window(batch, width) for name, layer in layers.items()}

    def start_row(self, cache: Cache, row: Row, labels: Labels | None = None) -> Cache:
        """Go to the next row."""
        half = self.first.size // 2
        full = cache | {"first": causal.finish_row(cache["first"], row, half)}  # also the last pixel
        return {name: causal.next_row(window) for name, window in full.items()}

    def pixel(
        self, cache: Cache, left: Pixel, here: Pixel, column: Column, labels: Labels | None = None
    ) -> tuple[Cache, Float[Array, "b m"]]:
        """The outputs at a column."""
        half = self.first.size // 2
        new = {"first": causal.put(cache["first"], left, column - 1, half)}
        new["first"], x = self.first.pixel(new["first"], here, column)

        def apply(name: str, layer: causal.MaskedConv, x: Array) -> Array:
            new[name], y = layer.pixel(cache[name], x, column)
            return y

        return new, self._body(x, apply)


class GatedPixelCNN(nn.Module):
    """Gated layers in a vertical and a horizontal stack, which together see everything before (2016b, §2).

    Layer: v' = tanh(a) σ(b) with (a, b) a convolution of v over rows above; h' likewise of h to the left plus a 1×1 of
    v's (a, b), then 1×1 and added to h (figure 2). Labels enter every (a, b) (eq. 4).

    Fields:
      outputs: for each pixel; those of a colour stand at every ``colours``-th place.
      colours: of a pixel, each of which sees those before it; 1 makes the outputs of a pixel all at once.
      channels: of the image; as many as colours by default.
      features: of both stacks, for each colour.
      layers: of the stacks, the first included.
      size: of the kernels after the first; the first is 7.
      head: width of the layer before the last, for each colour.
      num_classes: of the labels; 0 for none.
      levels: of the pixels, to see them one-hot; 0 sees them as numbers.
    """

    outputs: int
    colours: int = 1
    channels: int = 0
    features: int = 32
    layers: int = 6
    size: int = 3
    head: int = 64
    num_classes: int = 0
    levels: int = 0

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        causal.check(self.outputs, self.colours, self.channels, self.features, self.head, self.levels)
        checks.count("layers", self.layers)
        causal.odd("size", self.size)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    def setup(self):
        """Make the layers."""
        c, f, head = self.colours, self.features * self.colours, self.head * self.colours
        conv = lambda inputs, features, size, kind="B": causal.MaskedConv(inputs, features, size, kind, 0, c)
        inputs = (self.channels or c) * max(self.levels, 1)
        later: list[tuple[int, int, causal.Kind]] = [(f, self.size, "B")] * (self.layers - 1)
        each: list[tuple[int, int, causal.Kind]] = [(inputs, 7, "A"), *later]
        self.vertical = [causal.RowsAbove(n, 2 * f, size, kind) for n, size, kind in each]
        self.across = [nn.Dense(2 * f, use_bias=False) for _ in each]
        self.horizontal = [conv(n, 2 * f, size, kind) for n, size, kind in each]
        self.narrow = [conv(f, f, 1) for _ in each]
        self.label = [nn.Dense(4 * f, use_bias=False) for _ in each] if self.num_classes else []
        self.head_in, self.head_out = conv(f, head, 1), conv(head, self.outputs, 1)

    def __call__(self, images: Pixels, labels: Labels | None = None) -> Outputs:
        """The outputs of every pixel; ``labels`` are wanted iff there are classes."""
        above, x = [], self.embed(images)
        v = x
        for i in range(self.layers):
            pre = self._labelled(i, self.vertical[i](v), labels, 0)
            above.append(self.across[i](pre))
            v = gate(pre)
        return self._horizontal(x, above, labels, lambda name, layer, x: layer(x))

    def embed(self, pixels: Shaped[Array, "*place c"]) -> Float[Array, "*place i"]:
        """What the layers see of pixels."""
        return causal.embed(pixels, self.levels)

    def _horizontal(self, x: Array, above: list[Array], labels: Labels | None, apply: Apply) -> Array:
        h = x
        for i in range(self.layers):
            pre = apply(f"horizontal_{i}", self.horizontal[i], h) + above[i]
            y = self.narrow[i].at_each(gate(self._labelled(i, pre, labels, 1)))
            h = y if i == 0 else h + y
        return self.head_out.at_each(nn.relu(self.head_in.at_each(nn.relu(h))))

    def _labelled(self, i: int, x: Array, labels: Labels | None, stack: int) -> Array:
        classes = mlp.one_hot(labels, self.num_classes)
        if classes is None:
            return x
        bias = jnp.split(self.label[i](classes.astype(x.dtype)), 2, -1)[stack]
        return x + bias.reshape(bias.shape[0], *[1] * (x.ndim - 2), -1)

    def cache(self, batch: int, width: int) -> Cache:
        """What there is before the first row."""
        new = {f"vertical_{i}": layer.window(batch, width) for i, layer in enumerate(self.vertical)}
        new |= {f"horizontal_{i}": layer.window(batch, width) for i, layer in enumerate(self.horizontal)}
        rows = jnp.zeros((batch, width, 2 * self.features * self.colours))
        return new | {f"above_{i}": rows for i in range(self.layers)}

    def start_row(self, cache: Cache, row: Row, labels: Labels | None = None) -> Cache:
        """Go to the next row: all of the vertical stack, which needs no pixel of it."""
        new, v = {}, row
        for i in range(self.layers):
            new[f"vertical_{i}"], pre = self.vertical[i].row(cache[f"vertical_{i}"], v)
            pre = self._labelled(i, pre, labels, 0)
            new[f"above_{i}"] = self.across[i](pre)
            v = gate(pre)
            new[f"horizontal_{i}"] = jnp.zeros_like(cache[f"horizontal_{i}"])
        return new

    def pixel(
        self, cache: Cache, left: Pixel, here: Pixel, column: Column, labels: Labels | None = None
    ) -> tuple[Cache, Float[Array, "b m"]]:
        """The outputs at a column."""
        half = self.horizontal[0].size // 2
        new = cache | {"horizontal_0": causal.put(cache["horizontal_0"], left, column - 1, half)}
        above = [jax.lax.dynamic_index_in_dim(cache[f"above_{i}"], column, 1, False) for i in range(self.layers)]

        def apply(name: str, layer: causal.MaskedConv, x: Array) -> Array:
            new[name], y = layer.pixel(new[name], x, column)
            return y

        return new, self._horizontal(here, above, labels, apply)


def gate(x: Float[Array, "... two_f"]) -> Float[Array, "... f"]:
    """tanh(a) σ(b) of the two halves (2016b, eq. 2)."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)
