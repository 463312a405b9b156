"""Checks of probability tables: non-negative arrays that sum to one. Values are checked outside ``jit`` only."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from genjax import checks

Axis = int | tuple[int, ...]
"""The axis or axes of the outcomes of a distribution."""

Numbers = ArrayLike | Sequence[Any]
"""Arrays, single numbers, lists and lists of lists of numbers."""


def check(name: str, p: Any, axis: Axis = -1) -> None:
    """Refuse what is no distribution over ``axis``; inside ``jit`` only dtype and shape are checked.

    >>> check("transition", [[0.5, 0.5], [0.7, 0.4]])
    Traceback (most recent call last):
    ValueError: transition: row 1 sums to 1.1, 0.1 too much; divide each row by its sum

    Args:
      name: the argument, for the message.
      p: probabilities; the tolerance of the sum is 1e-4 in float32 and 1e-9 in float64.
      axis: axis or axes that sum to one.

    Raises:
      ValueError: a row is no distribution; the message has its index and the error of the sum.
    """
    checks.real(name, p)
    axes, shape = axis if isinstance(axis, tuple) else (axis,), np.shape(p)
    if not shape or any(not -len(shape) <= a < len(shape) for a in axes):
        raise ValueError(f"{name}: expected probabilities over axis {axis}, got an array of shape {shape}")
    if len({a % len(shape) for a in axes}) < len(axes):
        raise ValueError(f"axis: expected different axes, got {axis}")
    if not checks.is_concrete(p):
        return
    table = np.asarray(p)
    if not jnp.issubdtype(table.dtype, jnp.floating):
        table = table.astype(np.float64)
    if not np.all(table >= 0):  # also NaN
        where = np.unravel_index(np.argmax(~(table >= 0)), table.shape)
        raise ValueError(f"{name}: expected probabilities, got {float(table[where]):g} at {_index(where)}")
    excess = np.asarray(table.sum(axis=axes, dtype=np.float64) - 1)
    if np.all(np.abs(excess) <= sum_tolerance(table.dtype)):
        return
    where = np.unravel_index(np.argmax(np.abs(excess)), excess.shape)
    row = f"row {_index(where)} sums" if where else "the probabilities sum"
    side = "too much" if excess[where] > 0 else "too little"
    divide = "divide each row by its sum" if where else "divide by the sum"
    raise ValueError(f"{name}: {row} to {1 + excess[where]:g}, {abs(excess[where]):g} {side}; {divide}")


def check_probability(name: str, p: Any) -> None:
    """Refuse numbers outside [0, 1], up to rounding; inside ``jit`` values are not checked.

    Raises:
      ValueError: a number is outside; the message has the number and its index.
    """
    checks.real(name, p)
    if not checks.is_concrete(p):
        return
    table = np.asarray(p)
    is_valid = (table >= 0) & (table.astype(np.float64) <= 1 + sum_tolerance(table.dtype))
    if not np.all(is_valid):
        where = np.unravel_index(np.argmin(is_valid), table.shape)
        at = checks.at_index(where)
        raise ValueError(f"{name}: expected probabilities in [0, 1], got {float(table[where]):g}{at}")


def distribution(name: str, p: Any, axis: Axis = -1) -> Float[Array, "..."]:
    """Check a distribution and return it as a floating-point array, float32 or wider."""
    check(name, p, axis)
    array = as_floating(p)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def pair(axis: Axis, p: Any, q: Any) -> tuple[tuple[int, ...], Float[Array, "..."], Float[Array, "..."]]:
    """Check two distributions; return the axes counted from the end, and both as arrays.

    Raises:
      ValueError: as ``check``, ``same_outcomes`` and ``check_underflow`` of q.
    """
    tables = distribution("p", p, axis), distribution("q", q, axis)
    axes = same_outcomes(axis, p=p, q=q)
    check_underflow("q", q, tables[1].dtype, p)
    return axes, *tables


def same_outcomes(axis: Axis, **tables: Any) -> tuple[int, ...]:
    """Check that tables have the same outcomes, and return the axes counted from the end.

    Raises:
      ValueError: the tables have different sizes on ``axis``, or their other axes do not broadcast.
    """
    shapes = {name: np.shape(p) for name, p in tables.items()}
    axes = [tuple(a % len(s) - len(s) for a in (axis if isinstance(axis, tuple) else (axis,))) for s in shapes.values()]
    outcomes = {(a, tuple(shape[i] for i in a)) for a, shape in zip(axes, shapes.values(), strict=True)}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        outcomes = set()
    if len(outcomes) != 1:
        raise ValueError(f"{', '.join(shapes)}: expected the same outcomes over axis {axis}, got {shapes}")
    return axes[0]


def check_underflow(name: str, q: Any, dtype: Any, p: Any = 1.0) -> None:
    """Refuse positive probabilities q that ``dtype`` takes for 0 where p is not 0: -log q would be +∞."""
    if checks.is_concrete(p, q):
        exact, smallest = np.asarray(q, np.float64), float(jnp.finfo(dtype).tiny)
        is_lost = (exact > 0) & (exact < smallest) & (np.asarray(p, np.float64) >= smallest)
        if np.any(is_lost):
            value, fix = np.min(np.broadcast_to(exact, is_lost.shape)[is_lost]), "enable float64, or pass 0 for none"
            raise ValueError(f"{name}: {value:g} is taken for 0 by {dtype}; {fix}")


def check_logits(name: str, logits: Any) -> None:
    """Refuse logits without a distribution: NaN, +∞, or a row of -∞.

    >>> check_logits("logits", [0.0, float("inf")])
    Traceback (most recent call last):
    ValueError: logits: expected numbers below +∞, one of each row finite, got a row whose largest is inf
    """
    checks.real(name, logits)
    if not np.ndim(logits) or not np.shape(logits)[-1]:
        raise ValueError(f"{name}: expected outcomes along the last axis, got the shape {np.shape(logits)}")
    if checks.is_concrete(logits):
        largest = np.max(np.asarray(logits, np.float64), -1)  # NaN if one is
        if not np.all(is_valid := np.isfinite(largest)):
            value = np.atleast_1d(largest)[~np.atleast_1d(is_valid)][0]
            expected = "numbers below +∞, one of each row finite"
            raise ValueError(f"{name}: expected {expected}, got a row whose largest is {value}")


def as_floating(x: Any) -> Float[Array, "..."]:
    """Convert to a floating-point array; integers and truth values get JAX's default float."""
    array = jnp.asarray(x)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def sum_tolerance(dtype: Any) -> float:
    """Tolerance of a sum of probabilities of a dtype."""
    if not jnp.issubdtype(dtype, jnp.floating) or dtype == np.float64:
        return 1e-9
    return 1e-4 if dtype == np.float32 else 1e-2


def _index(where: tuple[Any, ...]) -> str:
    return str(int(where[0])) if len(where) == 1 else str(tuple(int(i) for i in where))
