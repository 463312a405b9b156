"""PixelRNN (van den Oord et al. 2016a): recurrent networks over the rows, or the diagonals, of an image.

Both are causal networks with the methods of ``genjax.nn.protocols.CausalNetwork``.
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
LSTMState = tuple[Array, Array]
"""Hidden state h and cell c."""


class RowLSTM(nn.Module):
    """LSTM that runs down the rows, with a convolution of the row above as its recurrence (§3.1).

    (o, f, i, g) = K_is ∗ x_row + K_ss ∗ h_above;  c = σ(f) c_above + σ(i) tanh(g);  h = σ(o) tanh(c)

    with K_is masked and K_ss not, both ``kernel_size`` wide. The receptive field above a pixel is a triangle.

    Attributes:
      inputs: number of input channels.
      features: number of output channels.
      kernel_size: width of both kernels, odd.
      colours: number of colours, see ``causal.MaskedConv``.
    """

    inputs: int
    features: int
    kernel_size: int = 3
    colours: int = 1

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        causal.check_odd("kernel_size", self.kernel_size)
        checks.count("colours", self.colours)
        super().__post_init__()

    def setup(self) -> None:
        """Make the parameters."""
        self.from_input = causal.MaskedConv(self.inputs, 4 * self.features, self.kernel_size, "B", 0, self.colours)
        init = nn.initializers.lecun_normal()
        self.from_state = self.param("from_state", init, (self.kernel_size, self.features, 4 * self.features))

    def above(self, h: Row) -> Float[Array, "b w g"]:
        """Return K_ss ∗ h of a row."""
        half = self.kernel_size // 2
        padded = jnp.pad(h, ((0, 0), (half, half), (0, 0)))
        shifted = jnp.stack([padded[:, k : k + h.shape[1]] for k in range(self.kernel_size)], 2)
        return jnp.einsum("bwkf,kfg->bwg", shifted, self.from_state)

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """Return the outputs at every pixel of whole images."""

        def row(state: LSTMState, gates: Array) -> tuple[LSTMState, Array]:
            h, c = state
            state = lstm(gates + self.above(h), c)
            return state, state[0]

        zeros = jnp.zeros((x.shape[0], x.shape[2], self.features))
        rows = self.from_input(x).swapaxes(0, 1)
        return jax.lax.scan(row, (zeros, zeros), rows)[1].swapaxes(0, 1)

    def cache(self, batch: int, width: int) -> Cache:
        """Windows of all layers before the first row."""
        rows = jnp.zeros((batch, width, self.features))
        gates = jnp.zeros((batch, width, 4 * self.features))
        return {"window": self.from_input.window(batch, width), "h": rows, "c": rows, "above": gates, "c_above": rows}

    def start_row(self, cache: Cache) -> Cache:
        """Go to the next row; ``row`` is the embedded row above."""
        above = {"above": self.above(cache["h"]), "c_above": cache["c"]}
        return cache | above | {"window": jnp.zeros_like(cache["window"])}

    def pixel(self, cache: Cache, x: Pixel, column: Column) -> tuple[Cache, Float[Array, "b g"]]:
        """Return the new cache and the output at a column."""
        window, gates = self.from_input.pixel(cache["window"], x, column)
        at = lambda name: jax.lax.dynamic_index_in_dim(cache[name], column, 1, False)
        h, c = lstm(gates + at("above"), at("c_above"))
        return cache | {"window": window, "h": _set(cache["h"], h, column), "c": _set(cache["c"], c, column)}, h


class DiagonalBiLSTM(nn.Module):
    """LSTMs along both diagonals, each with the states of the pixel beside and the pixel above (§3.2).

    (o, f, i, g) = K_is x + K_ss (h_beside, h_above);  c and h as in ``RowLSTM``, with the cell of the pixel beside.

    A whole image is skewed, so that a diagonal becomes a column, and scanned column by column. The outputs of the scan
    from right to left are shifted down by a row before they are added, since a pixel must not depend on pixels to its
    right.

    Attributes:
      inputs: number of input channels.
      features: number of output channels.
      colours: number of colours, see ``causal.MaskedConv``.
    """

    inputs: int
    features: int
    colours: int = 1

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("inputs", self.inputs)
        checks.count("features", self.features)
        checks.count("colours", self.colours)
        super().__post_init__()

    def setup(self) -> None:
        """Make the parameters."""
        gates = 4 * self.features
        self.from_input = [causal.MaskedConv(self.inputs, gates, 1, "B", colours=self.colours) for _ in range(2)]
        init = nn.initializers.lecun_normal()
        shape = (2 * self.features, gates)
        self.from_state = [self.param(f"from_state_{i}", init, shape) for i in range(2)]

    def step(self, direction: int, gates: Array, beside: Array, above: Array, c: Array) -> tuple[Array, Array]:
        """Return h and c of a pixel, or of a diagonal of pixels."""
        return lstm(gates + jnp.concatenate([beside, above], -1) @ self.from_state[direction], c)

    def __call__(self, x: Maps) -> Float[Array, "b h w g"]:
        """Return the outputs at every pixel of whole images."""
        left = self._scan(0, self.from_input[0].pointwise(x))
        right = self._scan(1, self.from_input[1].pointwise(x)[:, :, ::-1])[:, :, ::-1]
        return left + jnp.pad(right, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]

    def _scan(self, direction: int, gates: Maps) -> Float[Array, "b h w g"]:
        def diagonal(state: LSTMState, gates: Array) -> tuple[LSTMState, Array]:
            h, c = state  # [b h f] of the previous diagonal
            above = jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, :-1]
            state = self.step(direction, gates, h, above, c)
            return state, state[0]

        zeros = jnp.zeros((gates.shape[0], gates.shape[1], self.features))
        columns = skew(gates).transpose(2, 0, 1, 3)
        outputs = jax.lax.scan(diagonal, (zeros, zeros), columns)[1]
        return unskew(outputs.transpose(1, 2, 0, 3))

    def cache(self, batch: int, width: int) -> Cache:
        """Windows of all layers before the first row."""
        rows = jnp.zeros((batch, width, self.features))
        inputs = jnp.zeros((batch, width, self.inputs))
        names = ("h", "c", "above", "right_h", "right")
        return dict.fromkeys(names, rows) | {"x": inputs, "begun": jnp.array(False)}

    def start_row(self, cache: Cache) -> Cache:
        """Go to the next row, and scan the finished row from right to left."""
        gates = self.from_input[1].pointwise(cache["x"])

        def pixel(state: LSTMState, inputs: tuple[Array, Array]) -> tuple[LSTMState, Array]:
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
        """Return the new cache and the output at a column."""
        at = lambda name, column: jax.lax.dynamic_index_in_dim(cache[name], column, 1, False)
        beside = lambda name: jnp.where(column > 0, at(name, jnp.maximum(column - 1, 0)), 0)
        h, c = self.step(0, self.from_input[0].pointwise(x), beside("h"), at("above", column), beside("c"))
        new = {name: _set(cache[name], value, column) for name, value in (("h", h), ("c", c), ("x", x))}
        return cache | new, h + at("right", column)


class PixelRNN(nn.Module):
    """Recurrent layers with residual connections between masked convolutions (§3.3, table 1).

    Attributes:
      outputs: number of outputs of a pixel; output i belongs to colour i mod ``colours``.
      colours: number of colours that are drawn one after the other; 1 draws a pixel at once.
      channels: number of channels of the image; by default ``colours``.
      features: h for each colour; maps between layers are 2h wide.
      num_layers: number of recurrent layers.
      kind: kind of the recurrent layers, "row" (``RowLSTM``) or "diagonal" (``DiagonalBiLSTM``).
      head_features: width of the layer before the last, for each colour.
      num_levels: number of levels of a pixel, for one-hot inputs; 0 for inputs as numbers.
    """

    outputs: int
    colours: int = 1
    channels: int = 0
    features: int = 16
    num_layers: int = 7
    kind: Literal["row", "diagonal"] = "diagonal"
    head_features: int = 64
    num_levels: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        causal.check_arguments(
            self.outputs, self.colours, self.channels, self.features, self.head_features, self.num_levels
        )
        checks.count("num_layers", self.num_layers, 0)
        checks.choice("kind", self.kind, ("row", "diagonal"))
        super().__post_init__()

    def setup(self) -> None:
        """Make the layers."""
        c, f, head = self.colours, self.features * self.colours, self.head_features * self.colours
        conv = lambda inputs, features, size, mask="B": causal.MaskedConv(inputs, features, size, mask, colours=c)
        lstm_layer = RowLSTM if self.kind == "row" else DiagonalBiLSTM
        self.first = conv((self.channels or c) * max(self.num_levels, 1), 2 * f, 7, "A")
        self.recurrent = [lstm_layer(2 * f, f, colours=c) for _ in range(self.num_layers)]
        self.wide = [conv(f, 2 * f, 1) for _ in range(self.num_layers)]
        self.head_in, self.head_out = conv(2 * f, head, 1), conv(head, self.outputs, 1)

    def __call__(self, images: Pixels, labels: Labels | None = None) -> Float[Array, "b h w m"]:
        """Return the outputs of every pixel; labels are not used."""
        return self._body(self.first(self.embed(images)), lambda name, layer, x: layer(x))

    def embed(self, pixels: Shaped[Array, "*batch c"]) -> Float[Array, "*batch i"]:
        """Return the inputs of the first layer."""
        return causal.embed(pixels, self.num_levels)

    def _body(self, x: Array, apply: Callable[[str, Any, Array], Array]) -> Array:
        for i in range(self.num_layers):
            x = x + self.wide[i].pointwise(apply(f"layer_{i}", self.recurrent[i], x))
        return self.head_out.pointwise(nn.relu(self.head_in.pointwise(nn.relu(x))))

    def cache(self, batch: int, width: int) -> Cache:
        """Windows of all layers before the first row."""
        new = {f"layer_{i}": layer.cache(batch, width) for i, layer in enumerate(self.recurrent)}
        return new | {"first": self.first.window(batch, width)}

    def start_row(self, cache: Cache, row: Row, labels: Labels | None = None) -> Cache:
        """Go to the next row; ``row`` is the embedded row above."""
        window = causal.push_zeros(causal.write_row(cache["first"], row, self.first.kernel_size // 2))
        new = {f"layer_{i}": layer.start_row(cache[f"layer_{i}"]) for i, layer in enumerate(self.recurrent)}
        return new | {"first": window}

    def pixel(
        self, cache: Cache, left: Pixel, here: Pixel, column: Column, labels: Labels | None = None
    ) -> tuple[Cache, Float[Array, "b m"]]:
        """Return the new cache and the outputs at a column."""
        window = causal.write_pixel(cache["first"], left, column - 1, self.first.kernel_size // 2)
        new = dict(cache)
        new["first"], x = self.first.pixel(window, here, column)

        def apply(name: str, layer: Any, x: Array) -> Array:
            new[name], y = layer.pixel(cache[name], x, column)
            return y

        return new, self._body(x, apply)


def lstm(gates: Float[Array, "... g"], c: Float[Array, "... f"]) -> tuple[Float[Array, "... f"], Float[Array, "... f"]]:
    """Return h and c, given the gates (o, f, i, g) and the previous cell (eq. 3)."""
    o, f, i, g = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def skew(x: Maps) -> Float[Array, "b h w2 f"]:
    """Shift row i to the right by i columns: [b h w+h-1 f]."""
    b, h, w, f = x.shape
    flat = jnp.pad(x, ((0, 0), (0, 0), (0, h), (0, 0))).reshape(b, h * (w + h), f)
    return flat[:, :-h].reshape(b, h, w + h - 1, f)


def unskew(x: Float[Array, "b h w2 f"]) -> Maps:
    """Inverse of ``skew``."""
    b, h, wide, f = x.shape
    flat = jnp.pad(x.reshape(b, h * wide, f), ((0, 0), (0, h), (0, 0)))
    return flat.reshape(b, h, wide + 1, f)[:, :, : wide + 1 - h]


def _set(rows: Float[Array, "b w f"], x: Float[Array, "b f"], column: Column) -> Float[Array, "b w f"]:
    return jax.lax.dynamic_update_index_in_dim(rows, x, column, 1)
