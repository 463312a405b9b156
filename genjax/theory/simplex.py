"""Probability tables: arrays that are not negative and sum to one. Checked outside ``jit``, where values are known."""

from typing import Any

import numpy as np

from genjax.checks import known

Axis = int | tuple[int, ...]
"""The axis, or axes, that a distribution lives on."""


def check(name: str, p: Any, axis: Axis = -1) -> None:
    """Refuse what is no distribution over ``axis``; does nothing where the values are not known yet.

    >>> check("transition", [[0.5, 0.5], [0.7, 0.4]])
    Traceback (most recent call last):
    ValueError: transition: row 1 sums to 1.1, 0.1 too much; divide each row by its sum

    Args:
      name: of the argument, for the message.
      p: probabilities; the sum may be off by rounding, which is 1e-4 in float32 and 1e-9 in float64.
      axis: what sums to one.

    Raises:
      ValueError: says which row (which index of the other axes), and by how much.
    """
    if not known(p):
        return
    table = np.asarray(p)
    if not np.issubdtype(table.dtype, np.floating):
        table = table.astype(np.float64)
    axes = tuple(np.atleast_1d(axis))
    if table.ndim == 0 or any(not -table.ndim <= a < table.ndim for a in axes):
        raise ValueError(f"{name}: expected probabilities over axis {axis}, got an array of shape {table.shape}")
    if not np.all(table >= 0):  # also NaN
        where = np.unravel_index(np.argmax(~(table >= 0)), table.shape)
        raise ValueError(f"{name}: expected probabilities, got {table[where]:g} at {_index(where)}")
    tolerance = 1e-9 if table.dtype == np.float64 else 1e-4 if table.dtype == np.float32 else 1e-2
    excess = np.asarray(table.sum(axis=axes, dtype=np.float64) - 1)
    if np.all(np.abs(excess) <= tolerance):
        return
    where = np.unravel_index(np.argmax(np.abs(excess)), excess.shape)
    row = f"row {_index(where)} sums" if where else "the probabilities sum"
    side = "too much" if excess[where] > 0 else "too little"
    divide = "divide each row by its sum" if where else "divide by the sum"
    raise ValueError(f"{name}: {row} to {1 + excess[where]:g}, {abs(excess[where]):g} {side}; {divide}")


def check_probability(name: str, p: Any) -> None:
    """Refuse numbers outside [0, 1]; does nothing where the values are not known yet.

    Raises:
      ValueError: says which number, and where.
    """
    if not known(p):
        return
    table = np.asarray(p, np.float64)
    if not np.all((table >= 0) & (table <= 1)):
        where = np.unravel_index(np.argmax(~((table >= 0) & (table <= 1))), table.shape)
        place = f" at {_index(where)}" if where else ""
        raise ValueError(f"{name}: expected probabilities in [0, 1], got {table[where]:g}{place}")


def _index(where: tuple[Any, ...]) -> str:
    return str(int(where[0])) if len(where) == 1 else str(tuple(int(i) for i in where))
