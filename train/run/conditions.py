"""Conditions under which settings are read; a setting that has no effect is refused by name.

A schema lists in ``READ_WITH`` the conditions of its settings. A setting that is not listed is always read.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol


class Settings(Protocol):
    """An instance of a flat dataclass of settings."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Condition(NamedTuple):
    """A condition under which a setting is read.

    Attributes:
      holds: predicate on the settings, ``(settings) -> bool``.
      words: description for a message, after "only": "with --network conv".
    """

    holds: Callable[[Any], bool]
    words: str


Conditions = tuple[Condition, ...]
"""Conditions that must all hold; an empty tuple always holds."""


def needs(**values: Any) -> Conditions:
    """Conditions on other settings: each has this value, or one of a tuple; True stands for any but 0 or empty."""
    return tuple(Condition(_predicate(name, value), _words(name, value)) for name, value in values.items())


def table(schema: type) -> dict[str, Conditions]:
    """The conditions of a schema by setting, those of its base classes included."""
    tables = [vars(part).get("READ_WITH", {}) for part in reversed(schema.__mro__)]
    return {name: conditions for table in tables for name, conditions in table.items()}


def without_effect(table: dict[str, Conditions], settings: object, given: Collection[str]) -> dict[str, str]:
    """Find the given settings that nothing reads: the reason by name.

    Args:
      table: conditions by setting.
      settings: all settings, with whatever else the conditions look at.
      given: names of the given settings.
    """
    reasons = {}
    for name in given:
        missing = [condition.words for condition in table.get(name, ()) if not condition.holds(settings)]
        if missing:
            reasons[name] = f"has no effect here; it is read only {' and '.join(missing)}"
    return reasons


def typed(schema: type, argv: Sequence[str]) -> set[str]:
    """The settings whose flags stand on a command line, in any of the forms --a-b, --a_b, --a-b=1, --no-a-b."""
    names = {field.name for field in dataclasses.fields(schema)}
    words = [word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")]
    return {word if word in names else word.removeprefix("no_") for word in words} & names


def changed(settings: Settings, base: Settings) -> set[str]:
    """The names of the settings that differ from those of ``base``."""
    names = [field.name for field in dataclasses.fields(settings)]
    return {name for name in names if getattr(settings, name) != getattr(base, name)}


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def _predicate(name: str, value: Any) -> Callable[[Any], bool]:
    if value is True:
        return lambda settings: bool(getattr(settings, name))
    options = value if isinstance(value, tuple) else (value,)
    return lambda settings: getattr(settings, name) in options


def _words(name: str, value: Any) -> str:
    if value is True:
        return f"with {flag(name)}"
    if not value:
        return f"without {flag(name)}"
    return f"with {flag(name)} {' or '.join(value if isinstance(value, tuple) else (value,))}"
