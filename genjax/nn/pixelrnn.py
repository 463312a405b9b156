"""PixelRNN (van den Oord et al. 2016a): recurrent networks over the rows, or the diagonals, of an image.

Both are causal networks with the methods of ``pixelcnn``, so a sampler goes through an image once.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from genjax import checks
from genjax.nn import causal, mlp
from genjax.nn.causal import Column, Maps, Pixel, Row
from genjax.types import Pixels

Labels = mlp.Labels
Cache = dict[str, Any]


class RowLSTM(nn.Module):
    """A layer of LSTMs that go down the columns, each seeing its neighbours in the row above (§3.1).

    (o, f, i, g) = K_is ∗ x_row + K_ss ∗ h_above;  c = σ(f) c_above + σ(i) tanh(g);  h = σ(o) tanh(c)

    with K_is masked and K_ss not, both ``size`` wide: what is above is seen in a triangle.

    Fields:
      inputs: channels in.
      features: channels out.
      size: of both kernels, odd.
      colours: see ``causal.MaskedConv``.
    """

    inputs: int
    features: int
    size: int = 3
    colours: int = 1

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        causal.odd("size", self.size)
        checks.count("colours", self.colours)
        super().__post_init__()

    def setup(self):
        """Make the parameters."""
        self.from_input = causal.MaskedConv(self.inputs, 4 * self.features, self.size, "B", 0, self.colours)
        init = nn.initializers.lecun_normal()
        self.from_state = self.param("from_state", init, (self.size, self.features, 4 * self.features))

    def above(self, h: Row) -> Float[Array, "b w g"]:
        """K_ss ∗ h of a row."""
        half = self.size // 2
        padded = jnp.pad(h, ((0, 0), (half, half), (0, 0)))
        shifted = jnp.stack([padded[:, k : k + h.shape[1]] for k in range(self.size)], 2)
        return jnp.einsum("bwkf,kfg->bwg", shifted, self.from_state)

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """The whole image."""

        def row(state, gates):
            h, c = state
            state = lstm(gates + self.above(h), c)
            return state, state[0]

        zeros = jnp.zeros((x.shape[0], x.shape[2], self.features))
        rows = self.from_input(x).swapaxes(0, 1)
        return jax.lax.scan(row, (zeros, zeros), rows)[1].swapaxes(0, 1)

    def cache(self, batch: int, width: int) -> Cache:
        """What there is before the first row."""
        rows = jnp.zeros((batch, width, self.features))
        gates = jnp.zeros((batch, width, 4 * self.features))
        return {"window": self.from_input.window(batch, width), "h": rows, "c": rows, "above": gates, "c_above": rows}

    def start_row(self, cache: Cache) -> Cache:
        """Go to the next row."""
        above = {"above": self.above(cache["h"]), "c_above": cache["c"]}
        return cache | above | {"window": jnp.zeros_like(cache["window"])}

    def pixel(self, cache: Cache, x: Pixel, column: Column) -> tuple[Cache, Float[Array, "b g"]]:
        """The output at a column."""
        window, gates = self.from_input.pixel(cache["window"], x, column)
        at = lambda name: jax.lax.dynamic_index_in_dim(cache[name], column, 1, False)
        h, c = lstm(gates + at("above"), at("c_above"))
        return cache | {"window": window, "h": _set(cache["h"], h, column), "c": _set(cache["c"], c, column)}, h


class DiagonalBiLSTM(nn.Module):
    """LSTMs along both diagonals, whose states come from the left (right) and from above (§3.2).

    (o, f, i, g) = K_is x + K_ss (h_beside, h_above);  c and h as in ``RowLSTM``, c from beside.

    A whole image is skewed, so that a diagonal is a column, and scanned column by column. The direction from right to
    left is moved down by a row before it is added, since a pixel may not see those right of it.

    Fields:
      inputs: channels in.
      features: channels out.
      colours: see ``causal.MaskedConv``.
    """

    inputs: int
    features: int
    colours: int = 1

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        checks.count("colours", self.colours)
        super().__post_init__()

    def setup(self):
        """Make the parameters."""
        gates = 4 * self.features
        self.from_input = [causal.MaskedConv(self.inputs, gates, 1, "B", colours=self.colours) for _ in range(2)]
        init = nn.initializers.lecun_normal()
        shape = (2 * self.features, gates)
        self.from_state = [self.param(f"from_state_{i}", init, shape) for i in range(2)]

    def step(self, direction: int, gates: Array, beside: Array, above: Array, c: Array) -> tuple[Array, Array]:
        """h and c of a pixel, or of a diagonal of them."""
        return lstm(gates + jnp.concatenate([beside, above], -1) @ self.from_state[direction], c)

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """The whole image."""
        left = self._scan(0, self.from_input[0].at_each(x))
        right = self._scan(1, self.from_input[1].at_each(x)[:, :, ::-1])[:, :, ::-1]
        return left + jnp.pad(right, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]

    def _scan(self, direction: int, gates: Maps) -> Float[Array, "b h w g"]:
        def diagonal(state, gates):
            h, c = state  # [b h f] of the diagonal before
            above = jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, :-1]
            state = self.step(direction, gates, h, above, c)
            return state, state[0]

        zeros = jnp.zeros((gates.shape[0], gates.shape[1], self.features))
        columns = skew(gates).transpose(2, 0, 1, 3)
        found = jax.lax.scan(diagonal, (zeros, zeros), columns)[1]
        return unskew(found.transpose(1, 2, 0, 3))

    def cache(self, batch: int, width: int) -> Cache:
        """What there is before the first row."""
        rows = jnp.zeros((batch, width, self.features))
        inputs = jnp.zeros((batch, width, self.inputs))
        names = ("h", "c", "above", "right_h", "right")
        return dict.fromkeys(names, rows) | {"x": inputs, "begun": jnp.array(False)}

    def start_row(self, cache: Cache) -> Cache:
        """Go to the next row: from right to left through the one just finished."""
        gates = self.from_input[1].at_each(cache["x"])

        def pixel(state, inputs):
            beside, c = state
            gates, above = inputs
            state = self.step(1, gates, beside, above, c)
            return state, state[0]

        zeros = jnp.zeros_like(cache["c"][:, 0])
        columns = (gates.swapaxes(0, 1), cache["right_h"].swapaxes(0, 1))
        _, right = jax.lax.scan(pixel, (zeros, zeros), columns, reverse=True)
        right = jnp.where(cache["begun"], right.swapaxes(0, 1), 0)  # there is nothing above the first row
        return cache | {"right": right, "right_h": right, "above": cache["h"], "begun": jnp.array(True)}

    def pixel(self, cache: Cache, x: Pixel, column: Column) -> tuple[Cache, Float[Array, "b g"]]:
        """The output at a column."""
        at = lambda name, place: jax.lax.dynamic_index_in_dim(cache[name], place, 1, False)
        beside = lambda name: jnp.where(column > 0, at(name, jnp.maximum(column - 1, 0)), 0)
        h, c = self.step(0, self.from_input[0].at_each(x), beside("h"), at("above", column), beside("c"))
        new = {name: _set(cache[name], value, column) for name, value in (("h", h), ("c", c), ("x", x))}
        return cache | new, h + at("right", column)


class PixelRNN(nn.Module):
    """Recurrent layers with residual connections between masked convolutions (§3.3, table 1).

    Fields:
      outputs: for each pixel; those of a colour stand at every ``colours``-th place.
      colours: of a pixel, each of which sees those before it; 1 makes the outputs of a pixel all at once.
      channels: of the image; as many as colours by default.
      features: h for each colour; maps between layers are 2h wide.
      layers: recurrent ones.
      kind: "row" or "diagonal".
      head: width of the layer before the last, for each colour.
      levels: of the pixels, to see them one-hot; 0 sees them as numbers.
    """

    outputs: int
    colours: int = 1
    channels: int = 0
    features: int = 16
    layers: int = 7
    kind: Literal["row", "diagonal"] = "diagonal"
    head: int = 64
    levels: int = 0

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        causal.check(self.outputs, self.colours, self.channels, self.features, self.head, self.levels)
        checks.count("layers", self.layers, 0)
        checks.choice("kind", self.kind, ("row", "diagonal"))
        super().__post_init__()

    def setup(self):
        """Make the layers."""
        c, f, head = self.colours, self.features * self.colours, self.head * self.colours
        conv = lambda inputs, features, size, kind="B": causal.MaskedConv(inputs, features, size, kind, colours=c)
        lstm_layer = RowLSTM if self.kind == "row" else DiagonalBiLSTM
        self.first = conv((self.channels or c) * max(self.levels, 1), 2 * f, 7, "A")
        self.recurrent = [lstm_layer(2 * f, f, colours=c) for _ in range(self.layers)]
        self.wide = [conv(f, 2 * f, 1) for _ in range(self.layers)]
        self.head_in, self.head_out = conv(2 * f, head, 1), conv(head, self.outputs, 1)

    def __call__(self, images: Pixels, labels: Labels | None = None) -> Float[Array, "b h w m"]:
        """The outputs of every pixel; labels are not used."""
        return self._body(self.first(self.embed(images)), lambda name, layer, x: layer(x))

    def embed(self, pixels: Shaped[Array, "*place c"]) -> Float[Array, "*place i"]:
        """What the layers see of pixels."""
        return causal.embed(pixels, self.levels)

    def _body(self, x: Array, apply: Callable[[str, Any, Array], Array]) -> Array:
        for i in range(self.layers):
            x = x + self.wide[i].at_each(apply(f"layer_{i}", self.recurrent[i], x))
        return self.head_out.at_each(nn.relu(self.head_in.at_each(nn.relu(x))))

    def cache(self, batch: int, width: int) -> Cache:
        """What there is before the first row."""
        new = {f"layer_{i}": layer.cache(batch, width) for i, layer in enumerate(self.recurrent)}
        return new | {"first": self.first.window(batch, width)}

    def start_row(self, cache: Cache, row: Row, labels: Labels | None = None) -> Cache:
        """Go to the next row."""
        window = causal.next_row(causal.finish_row(cache["first"], row, self.first.size // 2))
        new = {f"layer_{i}": layer.start_row(cache[f"layer_{i}"]) for i, layer in enumerate(self.recurrent)}
        return new | {"first": window}

    def pixel(
        self, cache: Cache, left: Pixel, here: Pixel, column: Column, labels: Labels | None = None
    ) -> tuple[Cache, Float[Array, "b m"]]:
        """The outputs at a column."""
        window = causal.put(cache["first"], left, column - 1, self.first.size // 2)
        new = dict(cache)
        new["first"], x = self.first.pixel(window, here, column)

        def apply(name: str, layer: Any, x: Array) -> Array:
            new[name], y = layer.pixel(cache[name], x, column)
            return y

        return new, self._body(x, apply)


def lstm(gates: Float[Array, "... g"], c: Float[Array, "... f"]) -> tuple[Float[Array, "... f"], Float[Array, "... f"]]:
    """h and c of the gates (o, f, i, g) and the cell before (eq. 3)."""
    o, f, i, g = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def skew(x: Maps) -> Float[Array, "b h w2 f"]:
    """Row i moved i places to the right: [b h w+h-1 f]."""
    b, h, w, f = x.shape
    flat = jnp.pad(x, ((0, 0), (0, 0), (0, h), (0, 0))).reshape(b, h * (w + h), f)
    return flat[:, :-h].reshape(b, h, w + h - 1, f)


def unskew(x: Float[Array, "b h w2 f"]) -> Maps:
    """The inverse of ``skew``."""
    b, h, wide, f = x.shape
    flat = jnp.pad(x.reshape(b, h * wide, f), ((0, 0), (0, h), (0, 0)))
    return flat.reshape(b, h, wide + 1, f)[:, :, : wide + 1 - h]


def _set(rows: Float[Array, "b w f"], x: Float[Array, "b f"], column: Column) -> Float[Array, "b w f"]:
    return jax.lax.dynamic_update_index_in_dim(rows, x, column, 1)
