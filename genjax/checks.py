"""Checks of arguments: one function for each kind of bad argument, used by every public function.

Values are checked where they are concrete: outside ``jit``, ``grad``, ``vmap`` and ``scan``. Types and shapes are
checked everywhere. Every check raises a ValueError with the name of the argument, what was expected, what was given
and, for arrays, the index.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SCALE = "genjax.data.scale brings bytes to [-1, 1]"


def is_concrete(*trees: Any) -> bool:
    """Return True if no leaf is a tracer: values can be read, which is not so inside ``jit``, ``grad`` and ``vmap``."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def real(name: str, x: Any) -> None:
    """Refuse what is not an array of real numbers: text, objects, complex numbers. Truth values count as 0 and 1.

    >>> real("x", np.array(["a"]))
    Traceback (most recent call last):
    ValueError: x: expected real numbers, got str32
    """
    if not (jnp.issubdtype(dtype := _dtype(x), jnp.floating) or dtype.kind in "biu"):
        raise ValueError(f"{name}: expected real numbers, got {dtype.name}")


def finite(name: str, x: Any) -> None:
    """Refuse NaN and infinity.

    >>> finite("scores", [1.0, math.nan])
    Traceback (most recent call last):
    ValueError: scores: expected finite numbers, got nan at 1
    """
    real(name, x)
    if is_concrete(x):
        _refuse(name, x, np.isfinite(_float64(x)), "finite numbers")


def within(name: str, x: Any, low: float | int = -math.inf, high: float | int = math.inf) -> None:
    """Refuse numbers outside [low, high], and NaN.

    >>> within("level", [0.5, 2.0], 0, 1)
    Traceback (most recent call last):
    ValueError: level: expected numbers from 0 to 1, got 2 at 1
    """
    real(name, x)
    if is_concrete(x):
        table = _float64(x)
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        _refuse(name, x, (table >= low) & (table <= high), f"numbers {span}")


def positive(name: str, x: Any) -> None:
    """Refuse numbers that are not above 0 and finite.

    >>> positive("scale", 0.0)
    Traceback (most recent call last):
    ValueError: scale: expected positive, finite numbers, got 0
    """
    real(name, x)
    if is_concrete(x):
        table = _float64(x)
        _refuse(name, x, (table > 0) & np.isfinite(table), "positive, finite numbers")


def integers(name: str, x: Any, low: int, high: int) -> None:
    """Refuse what is not of whole-number type, and numbers outside [low, high).

    >>> integers("labels", np.array([3, 11]), 0, 10)
    Traceback (most recent call last):
    ValueError: labels: expected whole numbers from 0 to 9, got 11 at 1
    """
    if (dtype := _dtype(x)).kind not in "iu":
        raise ValueError(f"{name}: expected whole numbers from {low} to {high - 1}, got the type {dtype.name}")
    if is_concrete(x):
        table = np.asarray(x)
        _refuse(name, x, (table >= low) & (table < high), f"whole numbers from {low} to {high - 1}")


def floating(name: str, x: Any, instead: str = "") -> None:
    """Refuse arrays that are not of floating-point type, with the advice ``instead`` in the message.

    >>> floating("images", np.zeros(2, np.uint8), "genjax.data.scale makes them of bytes")
    Traceback (most recent call last):
    ValueError: images: expected floating-point numbers, got uint8; genjax.data.scale makes them of bytes
    """
    if not jnp.issubdtype(dtype := _dtype(x), jnp.floating):
        advice = f"; {instead}" if instead else ""
        raise ValueError(f"{name}: expected floating-point numbers, got {dtype.name}{advice}")


def floats(name: str, x: Any, instead: str = "genjax.data.scale makes them of bytes") -> None:
    """Refuse arrays that are not of floating-point type, and NaN and infinity.

    >>> floats("x_T", np.array([math.nan]))
    Traceback (most recent call last):
    ValueError: x_T: expected finite numbers, got nan at 0
    """
    floating(name, x, instead)
    finite(name, x)


def count(name: str, value: Any, least: int = 1, most: float | int = math.inf) -> int:
    """Check one whole number from ``least`` to ``most`` and return it.

    >>> count("num_steps", 2.5)
    Traceback (most recent call last):
    ValueError: num_steps: expected a whole number of at least 1, got 2.5
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        span = f"{least} to {most}" if math.isfinite(most) else f"at least {least}"
        raise ValueError(f"{name}: expected {span if whole else f'a whole number of {span}'}, got {value!r}")
    return int(value)


def min_rows(name: str, x: Any, least: int = 1) -> None:
    """Refuse fewer than ``least`` rows along the leading axis.

    >>> min_rows("x", np.zeros((0, 3)))
    Traceback (most recent call last):
    ValueError: x: expected at least 1 along its leading axis, got the shape (0, 3)
    """
    shape = np.shape(x)
    if not shape or shape[0] < least:
        raise ValueError(f"{name}: expected at least {least} along its leading axis, got the shape {shape}")


def counts(name: str, values: Any, least: int = 1, length: int = 0) -> None:
    """Refuse what is no sequence of ``length`` or more whole numbers, each at least ``least``.

    >>> counts("hidden", (64, 0))
    Traceback (most recent call last):
    ValueError: hidden[1]: expected at least 1, got 0
    """
    if not isinstance(values, tuple | list) or len(values) < length:
        few = f" of at least {length}" if length else ""
        raise ValueError(f"{name}: expected a tuple of whole numbers{few}, got {values!r}")
    for i, value in enumerate(values):
        count(f"{name}[{i}]", value, least)


def nonnegative(name: str, x: Any) -> None:
    """Refuse numbers that are negative or not finite.

    >>> nonnegative("beta", math.nan)
    Traceback (most recent call last):
    ValueError: beta: expected finite numbers of at least 0, got nan
    """
    real(name, x)
    if is_concrete(x):
        table = _float64(x)
        _refuse(name, x, (table >= 0) & np.isfinite(table), "finite numbers of at least 0")


def choice(name: str, value: Any, options: Sequence[Any]) -> None:
    """Refuse what is none of the options.

    >>> choice("norm", "layer", ("batch", "group"))
    Traceback (most recent call last):
    ValueError: norm: expected one of 'batch', 'group'; got 'layer'
    """
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}; got {value!r}")


def batch(name: str, x: Any) -> jax.Array:
    """Check the input of a loss and return it as an array: floating-point, finite, at least one row.

    >>> batch("image", np.zeros((0, 8, 8, 1), np.float32))
    Traceback (most recent call last):
    ValueError: image: expected at least 1 along its leading axis, got the shape (0, 8, 8, 1)
    """
    min_rows(name, x)
    floats(name, x)
    return jnp.asarray(x)


def images(
    name: str, x: Any, shape: tuple[int, int, int], low: float | int = -1, high: float | int = 1, instead: str = SCALE
) -> jax.Array:
    """Check images and return them as an array: at least one image.

    >>> images("images", np.zeros((2, 8, 8, 1), np.uint8), (8, 8, 1))
    Traceback (most recent call last):
    ValueError: images: expected floating-point numbers, got uint8; genjax.data.scale brings bytes to [-1, 1]

    Args:
      name: the argument, for the message.
      x: images [b h w c].
      shape: required (h, w, c).
      low: smallest pixel; a pixel may exceed the range by 1e-3 of its width, for rounding.
      high: largest pixel; infinite for finite pixels of any size.
      instead: advice for the message.

    Raises:
      ValueError: the type, the shape or a pixel is not as required.
    """
    floating(name, x, instead)
    if np.ndim(x) != 4 or np.shape(x)[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name}: expected images of shape [b, {expected}], got {np.shape(x)}")
    min_rows(name, x)
    finite(name, x)
    if is_concrete(x) and math.isfinite(high):
        slack, table = 1e-3 * (high - low), _float64(x)
        if not (low - slack <= table.min() and table.max() <= high + slack):
            raise ValueError(
                f"{name}: expected pixels in [{low:g}, {high:g}], got {table.min():g} to {table.max():g}; {instead}"
            )
    return jnp.asarray(x)


def labels(name: str, x: Any, num_classes: int, num: int | None = None, *, none: bool = False) -> jax.Array | None:
    """Check labels and return them as an array, or None for a model without labels.

    >>> labels("labels", [10], 10, 1)
    Traceback (most recent call last):
    ValueError: labels: expected whole numbers from 0 to 9, got 10 at 0

    Args:
      name: the argument, for the message.
      x: a class for each example [b], or None.
      num_classes: number of classes; 0 for a model without labels.
      num: b; None for any.
      none: True where ``num_classes`` itself is allowed, which stands for no label.

    Raises:
      ValueError: labels are missing or superfluous, or the type, the shape or a number is wrong.
    """
    if (x is None) != (num_classes == 0):
        conditional = f"one of {num_classes} classes for each example, as the network is conditional"
        expected, got = conditional if num_classes else "none", "none" if x is None else "labels"
        raise ValueError(f"{name}: expected {expected}; got {got}")
    if x is None:
        return None
    if np.ndim(x) != 1 or num not in (None, np.shape(x)[0]):
        batch_size = "the images" if num is None else f"{num} images"
        raise ValueError(f"{name}: expected one for each of {batch_size}, got the shape {np.shape(x)}")
    integers(name, x, 0, num_classes + none)
    return jnp.asarray(x)


def vectors(name: str, x: Any, size: int) -> None:
    """Refuse what is no array of one or more vectors [b d] of ``size`` finite numbers.

    >>> vectors("z", np.zeros((3, 2)), 4)
    Traceback (most recent call last):
    ValueError: z: expected vectors of shape [b, 4], got (3, 2)
    """
    floating(name, x)
    if np.ndim(x) != 2 or np.shape(x)[1] != size:
        raise ValueError(f"{name}: expected vectors of shape [b, {size}], got {np.shape(x)}")
    min_rows(name, x)
    finite(name, x)


def axis(name: str, value: Any, ndim: int) -> int:
    """Check an axis of an array with ``ndim`` axes and return it counted from 0.

    >>> axis("x", -1, 2), axis("x", 0, 2)
    (1, 0)

    Raises:
      ValueError: the array has no such axis.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not -ndim <= value < ndim:
        raise ValueError(f"{name}: expected an axis from {-ndim} to {ndim - 1} of {ndim}, got {value}")
    return value % ndim


def _refuse(name: str, x: Any, good: Any, expected: str) -> None:
    if not np.all(good):
        table = np.asarray(x)
        where = np.unravel_index(np.argmin(good), np.shape(good)) if np.ndim(good) else ()
        value = f"{float(table[where]):g}" if table.dtype.kind not in "iu" else str(table[where])
        raise ValueError(f"{name}: expected {expected}, got {value}{at_index(where)}")


def at_index(where: tuple[Any, ...]) -> str:
    """The index for messages: `` at 3``, `` at (0, 2)``, or nothing for a scalar."""
    index = tuple(int(i) for i in where)
    return f" at {index[0] if len(index) == 1 else index}" if index else ""


def _dtype(x: Any) -> np.dtype:
    return np.dtype(x.dtype) if hasattr(x, "dtype") else np.asarray(x).dtype


def _float64(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)
