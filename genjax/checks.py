"""What a public function refuses: one check for each kind of bad argument, used at every entrance.

Values are looked at where they are known: outside ``jit``, ``grad``, ``vmap`` and ``scan``. Types and shapes are known
everywhere. A message says the argument, what was expected, and what came.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def known(*trees: Any) -> bool:
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

    Raises:
      ValueError: says which number, and where; or ``x`` is not of real numbers.
    """
    real(name, x)
    if known(x):
        _refuse(name, x, np.isfinite(_float64(x)), "finite numbers")


def within(name: str, x: Any, low: float | int = -math.inf, high: float | int = math.inf) -> None:
    """Refuse numbers outside [low, high], and NaN.

    >>> within("level", [0.5, 2.0], 0, 1)
    Traceback (most recent call last):
    ValueError: level: expected numbers from 0 to 1, got 2 at 1

    Raises:
      ValueError: says which number, and where; or ``x`` is not of real numbers.
    """
    real(name, x)
    if known(x):
        table = _float64(x)
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        _refuse(name, x, (table >= low) & (table <= high), f"numbers {span}")


def positive(name: str, x: Any) -> None:
    """Refuse numbers that are not above 0 and finite.

    >>> positive("scale", 0.0)
    Traceback (most recent call last):
    ValueError: scale: expected positive, finite numbers, got 0

    Raises:
      ValueError: says which number, and where; or ``x`` is not of real numbers.
    """
    real(name, x)
    if known(x):
        table = _float64(x)
        _refuse(name, x, (table > 0) & np.isfinite(table), "positive, finite numbers")


def integers(name: str, x: Any, low: int, high: int) -> None:
    """Refuse what is not of whole-number type, and numbers outside [low, high).

    >>> integers("labels", np.array([3, 11]), 0, 10)
    Traceback (most recent call last):
    ValueError: labels: expected whole numbers from 0 to 9, got 11 at 1

    Raises:
      ValueError: says which number, and where; or the type is another.
    """
    if (dtype := _dtype(x)).kind not in "iu":
        raise ValueError(f"{name}: expected whole numbers from {low} to {high - 1}, got the type {dtype.name}")
    if known(x):
        table = np.asarray(x)
        _refuse(name, x, (table >= low) & (table < high), f"whole numbers from {low} to {high - 1}")


def floating(name: str, x: Any, instead: str = "") -> None:
    """Refuse arrays that are not of floating-point type, as bytes of images are.

    >>> floating("images", np.zeros(2, np.uint8), "genjax.data.scale makes them of bytes")
    Traceback (most recent call last):
    ValueError: images: expected floating-point numbers, got uint8; genjax.data.scale makes them of bytes

    Args:
      name: of the argument.
      x: the array.
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


def count(name: str, value: Any, low: int = 1, high: float | int = math.inf) -> int:
    """One whole number from ``low`` to ``high``.

    >>> count("num_steps", 2.5)
    Traceback (most recent call last):
    ValueError: num_steps: expected at least 1, a whole number; got 2.5

    Raises:
      ValueError: it is none, or out of range.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        span = f"{low} to {high}" if math.isfinite(high) else f"at least {low}"
        raise ValueError(f"{name}: expected {span}, a whole number; got {value!r}")
    return int(value)


def some(name: str, x: Any, least: int = 1) -> None:
    """Refuse fewer than ``least`` rows along the leading axis.

    >>> some("x", np.zeros((0, 3)))
    Traceback (most recent call last):
    ValueError: x: expected at least 1 along its leading axis, got the shape (0, 3)
    """
    shape = np.shape(x)
    if not shape or shape[0] < least:
        raise ValueError(f"{name}: expected at least {least} along its leading axis, got the shape {shape}")


def images(name: str, x: Any) -> jax.Array:
    """What a loss takes, as an array: at least one image, of floating point, finite where that can be seen.

    >>> images("image", np.zeros((0, 8, 8, 1), np.float32))
    Traceback (most recent call last):
    ValueError: image: expected at least 1 along its leading axis, got the shape (0, 8, 8, 1)
    """
    some(name, x)
    floats(name, x)
    return jnp.asarray(x)


def labels(name: str, x: Any, num_classes: int, num: int | None = None, *, none: bool = False) -> None:
    """Refuse labels that a model of so many classes does not know.

    >>> labels("labels", np.array([0, 10]), 10)
    Traceback (most recent call last):
    ValueError: labels: expected whole numbers from 0 to 9, got 10 at 1

    Args:
      name: of the argument.
      x: [b].
      num_classes: they count from 0; 0 is a model without.
      num: b, if it is known.
      none: whether ``num_classes``, which stands for no label, is allowed.
    """
    if not num_classes:
        raise ValueError(f"{name}: expected none, the model is built without classes (num_classes)")
    if np.ndim(x) != 1 or num not in (None, np.shape(x)[0]):
        raise ValueError(f"{name}: expected one for each of {'the' if num is None else num} images, got {np.shape(x)}")
    integers(name, x, 0, num_classes + none)


def axis(name: str, value: int, ndim: int) -> int:
    """The axis counted from 0, of an array of so many.

    >>> axis("x", -1, 2), axis("x", 0, 2)
    (1, 0)

    Raises:
      ValueError: there is no such axis.
    """
    if not -ndim <= value < ndim:
        raise ValueError(f"{name}: expected an axis from {-ndim} to {ndim - 1} of {ndim}, got {value}")
    return value % ndim


def _refuse(name: str, x: Any, good: Any, expected: str) -> None:
    if not np.all(good):
        table = np.asarray(x)
        where = np.unravel_index(np.argmin(good), np.shape(good)) if np.ndim(good) else ()
        found = f"{float(table[where]):g}" if table.dtype.kind not in "iu" else str(table[where])
        raise ValueError(f"{name}: expected {expected}, got {found}{place(where)}")


def place(where: tuple[Any, ...]) -> str:
    """`` at 3``, `` at (0, 2)``, or nothing for a scalar."""
    index = tuple(int(i) for i in where)
    return f" at {index[0] if len(index) == 1 else index}" if index else ""


def _dtype(x: Any) -> np.dtype:
    return np.dtype(x.dtype) if hasattr(x, "dtype") else np.asarray(x).dtype


def _float64(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)
