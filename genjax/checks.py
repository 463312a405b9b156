"""What a public function refuses: one check for each kind of bad argument, used at every entrance.

Values are looked at where they are known: outside ``jit``, ``grad``, ``vmap`` and ``scan``. Types and shapes are known
everywhere. Each raises a ValueError that says the argument, what was expected, what came and, of arrays, where.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SCALE = "genjax.data.scale brings bytes to [-1, 1]"


def is_concrete(*trees: Any) -> bool:
    """Whether the values can be looked at: false inside ``jit``, ``grad``, ``vmap`` and ``scan``."""
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
    """Refuse arrays that are not of floating-point type, as bytes of images are.

    >>> floating("images", np.zeros(2, np.uint8), "genjax.data.scale makes them of bytes")
    Traceback (most recent call last):
    ValueError: images: expected floating-point numbers, got uint8; genjax.data.scale makes them of bytes

    Args:
      instead: what to do, for the message.
    """
    if not jnp.issubdtype(dtype := _dtype(x), jnp.floating):
        advice = f"; {instead}" if instead else ""
        raise ValueError(f"{name}: expected floating-point numbers, got {dtype.name}{advice}")


def floats(name: str, x: Any, instead: str = "genjax.data.scale makes them of bytes") -> None:
    """Refuse arrays that are not of floating-point type, and NaN and infinity: what images and noise must be.

    >>> floats("x_T", np.array([math.nan]))
    Traceback (most recent call last):
    ValueError: x_T: expected finite numbers, got nan at 0
    """
    floating(name, x, instead)
    finite(name, x)


def count(name: str, value: Any, least: int = 1, most: float | int = math.inf) -> int:
    """One whole number from ``least`` to ``most``.

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
    """Refuse what is no sequence of at least ``length`` whole numbers of at least ``least``.

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
    """What a loss takes, as an array: at least one row, of floating point, finite where that can be seen.

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
    """The images as an array, of which there is at least one.

    >>> images("images", np.zeros((2, 8, 8, 1), np.uint8), (8, 8, 1))
    Traceback (most recent call last):
    ValueError: images: expected floating-point numbers, got uint8; genjax.data.scale brings bytes to [-1, 1]

    Args:
      name, x: the argument, images [b h w c].
      shape: (h, w, c) that they must have.
      low, high: where the pixels must be; finite in any case. Rounding may pass them by 1e-3 of their distance.
      instead: what to do about bytes, and about pixels elsewhere.

    Raises:
      ValueError: their type, their shape, or a pixel.
    """
    floating(name, x, instead)
    if np.ndim(x) != 4 or np.shape(x)[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name}: expected images of shape [b, {wanted}], got {np.shape(x)}")
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
    """The labels as an array, or None for a model without.

    >>> labels("labels", [10], 10, 1)
    Traceback (most recent call last):
    ValueError: labels: expected whole numbers from 0 to 9, got 10 at 0

    Args:
      name, x: the argument, a class for each example [b], or None.
      num_classes: that there are; 0 for a model without labels.
      num: b, if it is known.
      none: whether ``num_classes``, which stands for no label, is allowed.

    Raises:
      ValueError: labels are wanted and missing, or given and not wanted; their type, their shape, or a number.
    """
    if (x is None) != (num_classes == 0):
        conditional = f"one of {num_classes} classes for each example, as the network is conditional"
        wanted, got = conditional if num_classes else "none", "none" if x is None else "labels"
        raise ValueError(f"{name}: expected {wanted}; got {got}")
    if x is None:
        return None
    if np.ndim(x) != 1 or num not in (None, np.shape(x)[0]):
        many = "the images" if num is None else f"{num} images"
        raise ValueError(f"{name}: expected one for each of {many}, got the shape {np.shape(x)}")
    integers(name, x, 0, num_classes + none)
    return jnp.asarray(x)


def vectors(name: str, x: Any, size: int) -> None:
    """Refuse what are no vectors [b d] of this many finite numbers, at least one of them.

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
    """The axis counted from 0, of an array of so many.

    >>> axis("x", -1, 2), axis("x", 0, 2)
    (1, 0)

    Raises:
      ValueError: there is no such axis.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not -ndim <= value < ndim:
        raise ValueError(f"{name}: expected an axis from {-ndim} to {ndim - 1} of {ndim}, got {value}")
    return value % ndim


def _refuse(name: str, x: Any, good: Any, expected: str) -> None:
    if not np.all(good):
        table = np.asarray(x)
        where = np.unravel_index(np.argmin(good), np.shape(good)) if np.ndim(good) else ()
        found = f"{float(table[where]):g}" if table.dtype.kind not in "iu" else str(table[where])
        raise ValueError(f"{name}: expected {expected}, got {found}{at_index(where)}")


def at_index(where: tuple[Any, ...]) -> str:
    """`` at 3``, `` at (0, 2)``, or nothing for a scalar."""
    index = tuple(int(i) for i in where)
    return f" at {index[0] if len(index) == 1 else index}" if index else ""


def _dtype(x: Any) -> np.dtype:
    return np.dtype(x.dtype) if hasattr(x, "dtype") else np.asarray(x).dtype


def _float64(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)
