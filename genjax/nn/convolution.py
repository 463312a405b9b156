"""Convolution with JAX's own results, and with gradients that stay fast inside a compiled loop on CPU.

XLA for CPU runs a convolution inside ``scan`` or ``while`` at full speed only where it is *written* in canonical form:
NHWC images, HWIO kernels, no dilation (jax#12868). The gradients that JAX derives are not canonical: with them, a
training step inside a scan is 25 times slower than outside. So on CPU this module spells the gradients out. Let ⋆ be
the convolution of stride s, y_i = Σ_k w_k x_{s·i + k - p}, ⋆ᵀ the transposed convolution, and w† the kernel flipped in
space, with its channels exchanged:

    y = x ⋆ w:    dx = g ⋆ᵀ w†,   dw_k = Σ_i x_{s·i + k - p} g_i     (one matrix product, or s of them)
    y = x ⋆ᵀ w:   dx = g ⋆ w†,    dw = (that sum for the image g and the gradient x)†
    x ⋆ᵀ w  =  depth_to_space(x ⋆₁ w'),   w' the kernel with its s × s phases among the channels

so everything rests on canonical convolutions and matrix products. On other platforms the operations and gradients are
JAX's own, chosen when the program is lowered. Reverse mode works to any order, also under ``vmap``, ``scan``, ``pmap``
and ``checkpoint``. A custom reverse rule excludes forward mode (``jvp``, ``jacfwd``, ``hessian``).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import dtypes
from jaxtyping import Array, Float

from genjax import checks
from genjax.types import Images

Kernel = Float[Array, "height width channels features"]
"""Weights of a convolution."""

Convolved = Float[Array, "b rows columns features"]
"""Output of a convolution."""

Pair = tuple[int, int]
Pads = tuple[Pair, ...]
Gradients = tuple[Array, Array]

Padding = Literal["SAME", "VALID"] | int | Sequence[int | tuple[int, int]]
"""Zeros around an image: a name, one number for all sides, or (before, after) for height and for width."""


def conv(x: Images, kernel: Kernel, strides: int | Sequence[int] = 1, padding: Padding = "SAME") -> Convolved:
    """Convolution y_i = Σ_k w_k x_{s·i + k - p}; equal to ``jax.lax.conv_general_dilated``.

    Args:
      x: images.
      kernel: weights [height width c features].
      strides: s, one number or (down, across).
      padding: ``"SAME"`` (⌈h / s⌉ rows out), ``"VALID"`` (none), a number, or pairs (before, after).

    Raises:
      ValueError: the kernel is larger than the padded image, or takes other channels than the image has.
    """
    pair = _pair(strides, "strides")
    named = lambda name: jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], pair, name)
    pads = _pads(padding, named)
    _check(x, kernel, [n + sum(p) - k + 1 for n, p, k in zip(x.shape[1:3], pads, kernel.shape[:2], strict=True)])
    return _conv(pair, pads, x, kernel)


def conv_transpose(x: Images, kernel: Kernel, strides: int | Sequence[int] = 1, padding: Padding = "SAME") -> Convolved:
    """Transposed convolution: ``conv`` with stride 1 of x spread out by zeros; equal to ``jax.lax.conv_transpose``.

    Args:
      x: images.
      kernel: weights [height width c features], not flipped: PyTorch's kernel is this one flipped in space.
      strides: s, one number or (down, across).
      padding: ``"SAME"`` (s·h rows out), ``"VALID"``, or zeros around the spread image, as a number or pairs: k - 1 - p
        for what PyTorch calls padding p.

    Raises:
      ValueError: the kernel is larger than the padded image, or takes other channels than the image has.
    """
    pair = _pair(strides, "strides")
    named = lambda name: [_transpose_pads(k, s, name) for k, s in zip(kernel.shape[:2], pair, strict=True)]
    pads = _pads(padding, named)
    _check(x, kernel, _transposed_size(x.shape[1:3], kernel.shape[:2], pair, pads))
    return _conv_transpose(pair, pads, x, kernel)


class Conv(nn.Module):
    """``flax.linen.Conv`` in two dimensions, by ``conv``: the same parameters, initial values and results.

    Attributes:
      features: number of output channels.
      kernel_size: (height, width).
      strides: see ``conv``.
      padding: see ``conv``.
      use_bias: True adds a bias for each channel.
      dtype: type of the computation; None for that of inputs and parameters.
      param_dtype: type of the parameters.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Images) -> Convolved:
        """Convolve images [b h w c] to [b rows columns features]."""
        return _layer(self, conv, x)


class ConvTranspose(nn.Module):
    """``flax.linen.ConvTranspose`` in two dimensions, by ``conv_transpose``, with the fields of ``Conv``."""

    features: int
    kernel_size: tuple[int, int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Images) -> Convolved:
        """Convolve images [b h w c] to [b rows columns features]."""
        return _layer(self, conv_transpose, x)


def _layer(module: Conv | ConvTranspose, operation: Callable, x: Images) -> Convolved:
    checks.count("features", module.features)
    shape = (*_pair(module.kernel_size, "kernel_size"), x.shape[-1], module.features)
    kernel = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    bias = module.param("bias", module.bias_init, shape[-1:], module.param_dtype) if module.use_bias else None
    x, kernel, bias = dtypes.promote_dtype(x, kernel, bias, dtype=module.dtype)
    y = operation(x, kernel, module.strides, module.padding)
    return y if bias is None else y + bias


# The two operations. Each appears in the gradient of the other. Here strides and pads are pairs.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(strides: Pair, pads: Pads, x: Array, kernel: Array) -> Array:
    return _stock_conv(strides, pads, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv_transpose(strides: Pair, pads: Pads, x: Array, kernel: Array) -> Array:
    return _by_platform(_depth_to_space_conv, _stock_conv_transpose, strides, pads)(x, kernel)


def _conv_gradients(strides: Pair, pads: Pads, x: Array, kernel: Array, g: Array) -> Gradients:
    size = kernel.shape[:2]
    back = [
        (k - 1 - before, n - 1 + before - s * (m - 1))
        for k, n, m, s, (before, _) in zip(size, x.shape[1:3], g.shape[1:3], strides, pads, strict=True)
    ]
    return _conv_transpose(strides, tuple(back), g, _adjoint(kernel)), _correlate(strides, pads, size, x, g)


def _conv_transpose_gradients(strides: Pair, pads: Pads, x: Array, kernel: Array, g: Array) -> Gradients:
    size = kernel.shape[:2]
    back = [
        (k - 1 - before, s * (n - 1) + 1 - m + before)
        for k, n, m, s, (before, _) in zip(size, x.shape[1:3], g.shape[1:3], strides, pads, strict=True)
    ]
    dw = _correlate(strides, tuple(back), size, g, x)
    return _conv(strides, tuple(back), g, _adjoint(kernel)), _adjoint(dw)


def _stock_conv(strides: Pair, pads: Pads, x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _stock_conv_transpose(strides: Pair, pads: Pads, x: Array, kernel: Array) -> Array:
    return jax.lax.conv_transpose(x, kernel, strides, pads)


def _stock_gradients(operation: Callable) -> Callable[..., Gradients]:
    return lambda strides, pads, x, kernel, g: jax.vjp(functools.partial(operation, strides, pads), x, kernel)[1](g)


def _by_platform(canonical: Callable, stock: Callable, strides: Pair, pads: Pads) -> Callable[..., Any]:
    cpu, default = (functools.partial(f, strides, pads) for f in (canonical, stock))
    return functools.partial(jax.lax.platform_dependent, cpu=cpu, default=default)


def _define(operation: Any, canonical: Callable, stock: Callable) -> None:
    """Set the gradients of an operation: ``canonical`` on CPU, elsewhere the gradients of ``stock``."""

    def forward(strides: Pair, pads: Pads, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return operation(strides, pads, x, kernel), (x, kernel)

    def backward(strides: Pair, pads: Pads, residuals: tuple[Array, Array], g: Array) -> Gradients:
        return _by_platform(canonical, _stock_gradients(stock), strides, pads)(*residuals, g)

    operation.defvjp(forward, backward)


_define(_conv, _conv_gradients, _stock_conv)
_define(_conv_transpose, _conv_transpose_gradients, _stock_conv_transpose)


# Parts of the operations.


def _adjoint(kernel: Array) -> Array:
    """w†: flipped in space, channels in and out exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _correlate(strides: Pair, pads: Pads, size: Sequence[int], x: Array, g: Array) -> Array:
    """dw_k = Σ_i x_{s·i + k - p} g_i for a kernel of this size: a matrix product for each phase of the stride.

    With k = s·j + r down it is Σ_m x_{s·m + r - p} g_{m - j}: x is shifted across only and g down only, and the product
    of all shifts with all others holds every tap. Rows m where x has only zeros are left out.
    """
    (s, across), (height, width), (before, _) = strides, size, pads[0]
    columns = slice(0, across * (g.shape[2] - 1) + 1, across)
    pad = lambda a, down, over: jax.lax.pad(a, jnp.zeros((), a.dtype), [(0, 0, 0), (*down, 0), (*over, 0), (0, 0, 0)])
    x = pad(x, (0, 0), pads[1])
    x = jnp.concatenate([x[:, :, k:][:, :, columns] for k in range(width)], axis=-1)

    def phase(r: int) -> Array:
        """Return dw of the rows r, r + s, ... of the kernel: [j, width, c, f]."""
        count = -(-(height - r) // s)
        first = max(0, -((r - before) // s))
        last = max(first - 1, min(g.shape[1] + count - 2, (x.shape[1] - 1 + before - r) // s))
        rows = slice(s * first + r - before, max(0, s * last + r - before + 1), s)
        shifted = [pad(g, (j - first, last - j - g.shape[1] + 1), (0, 0)) for j in range(count)]
        flat = (x[:, rows].reshape(-1, x.shape[-1]), jnp.concatenate(shifted, -1).reshape(-1, count * g.shape[-1]))
        dw = jnp.einsum("nc,nf->cf", *flat, preferred_element_type=jnp.promote_types(g.dtype, jnp.float32))
        return dw.reshape(width, -1, count, g.shape[-1]).transpose(2, 0, 1, 3)

    phases = [phase(r) for r in range(min(s, height))]
    return jnp.stack([phases[k % s][k // s] for k in range(height)]).astype(g.dtype)


def _depth_to_space_conv(strides: Pair, pads: Pads, x: Array, kernel: Array) -> Array:
    """y_{s·m + r - δ} = Σ_j w_{s·j + s - 1 - r} x_{m + j - q}: each phase r of the output is a convolution of x."""
    size, kernel = _transposed_size(x.shape[1:3], kernel.shape[:2], strides, pads), _phases(kernel, strides)
    skip = [(s - 1 - before) % s for s, (before, _) in zip(strides, pads, strict=True)]
    rows, columns = (-(-(n + d) // s) for n, d, s in zip(size, skip, strides, strict=True))
    inner = [
        (before // s, m - n - before // s + k - 1)
        for (before, _), s, m, n, k in zip(pads, strides, (rows, columns), x.shape[1:3], kernel.shape[:2], strict=True)
    ]
    y = _conv((1, 1), tuple(inner), x, kernel).reshape(x.shape[0], rows, columns, *strides, -1)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], rows * strides[0], columns * strides[1], -1)
    return y[:, skip[0] : skip[0] + size[0], skip[1] : skip[1] + size[1]]


def _phases(kernel: Array, strides: Pair) -> Array:
    """[k k c f] → [⌈k/s⌉ ⌈k/s⌉ c s·s·f]: phase r takes taps s·j + s - 1 - r; zeros where the kernel has ended."""
    (sh, sw), (height, width, c, features) = strides, kernel.shape
    rows, columns = -(-height // sh), -(-width // sw)
    kernel = jnp.pad(kernel, [(0, rows * sh - height), (0, columns * sw - width), (0, 0), (0, 0)])
    kernel = kernel.reshape(rows, sh, columns, sw, c, features)[:, ::-1, :, ::-1]
    return kernel.transpose(0, 2, 4, 1, 3, 5).reshape(rows, columns, c, sh * sw * features)


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name}: expected a number or two, from 1 up, got {value}; give (height, width)")
    return pair


def _pads(padding: Padding, named: Callable[[str], Sequence[tuple[int, int]]]) -> Pads:
    if isinstance(padding, str):
        return tuple(named(padding))
    sides = (padding, padding) if isinstance(padding, int) else tuple(padding)
    pads = [(side, side) if isinstance(side, int) else tuple(side) for side in sides]
    if [len(pad) for pad in pads] != [2, 2]:
        raise ValueError(f'padding: expected "SAME", "VALID", a number or two pairs (before, after), got {padding}')
    return tuple((before, after) for before, after in pads)


def _transpose_pads(k: int, s: int, name: str) -> tuple[int, int]:
    """Zeros around the spread image, as ``jax.lax.conv_transpose`` counts them."""
    if name == "VALID":
        return k - 1, s - 1 + max(k - s, 0)
    before = k - 1 if s > k - 1 else -(-(k + s - 2) // 2)
    return before, k + s - 2 - before


def _transposed_size(size: Sequence[int], kernel_size: Sequence[int], strides: Pair, pads: Pads) -> list[int]:
    return [s * (n - 1) + 2 + sum(p) - k for n, k, s, p in zip(size, kernel_size, strides, pads, strict=True)]


def _check(x: Images, kernel: Kernel, size: Sequence[int]) -> None:
    if min(size) < 1:
        raise ValueError(f"kernel: {kernel.shape[:2]} does not fit in the padded image {x.shape[1:3]}; pad more")
    if x.shape[-1] != kernel.shape[2]:
        raise ValueError(f"kernel: expected {x.shape[-1]} channels in, as the image has, got {kernel.shape[2]}")
