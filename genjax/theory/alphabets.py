"""Alphabets of codes: checks of symbols, of their frequencies, and of code words of 0 and 1."""

import decimal
import numbers
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np


def frequency(symbol: Any, value: Any) -> Fraction | int:
    """Convert a frequency to an exact number.

    >>> frequency("a", 0.5)
    Fraction(1, 2)

    Raises:
      ValueError: ``value`` is no real number, negative or not finite.
    """
    if not isinstance(value, numbers.Rational):
        try:
            if isinstance(value, str | bytes) or np.iscomplexobj(value):
                raise TypeError
            value = Fraction(value) if isinstance(value, decimal.Decimal) else Fraction(float(value))
        except (TypeError, ValueError, OverflowError) as error:  # no number, NaN, infinity
            raise ValueError(f"frequencies: expected a finite number for {symbol!r}, got {value}") from error
    if value < 0:
        raise ValueError(f"frequencies: expected nothing negative, got {value} for {symbol!r}")
    return int(value) if value.denominator == 1 else Fraction(value)


def ordered(symbols: list[Any]) -> list[Any]:
    """Sort symbols.

    Raises:
      ValueError: the symbols have no order, for example NaN, or text beside numbers.
    """
    try:
        if any(symbol != symbol for symbol in symbols):
            raise TypeError("NaN has no order")
        return sorted(symbols)
    except TypeError as error:
        raise ValueError(f"frequencies: expected symbols of one kind that can be sorted: {error}") from error


def words(code: Mapping[Any, Any]) -> list[str]:
    """Check the words of a code and return them.

    Raises:
      ValueError: a word holds anything but 0 and 1.
    """
    for symbol, word in code.items():
        if not isinstance(word, str) or set(word) - {"0", "1"}:
            raise ValueError(f"code: expected words of 0 and 1, got {word!r} for {symbol!r}")
    return list(code.values())
