"""Which settings a run reads: a table beside the fields, and what to say of a setting that would have no effect.

A schema names in ``READ_WITH`` the conditions under which a field is read; a field that is not named always is.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple


class Condition(NamedTuple):
    """What must be so for a setting to be read.

    Fields:
      holds: ``(settings) -> bool``.
      words: what would make it so, after "only": "with --network conv".
    """

    holds: Callable[[Any], bool]
    words: str


Conditions = tuple[Condition, ...]
"""All of them must hold; none always does."""


def needs(**wanted: Any) -> Conditions:
    """One condition for each setting: its value, or one of a list of values; True wants any that is not 0 or empty."""
    return tuple(Condition(_is(name, values), _flags(name, values)) for name, values in wanted.items())


def of_runs(*scripts: str) -> Conditions:
    """The run that is asked was trained by one of these scripts."""
    words = " or ".join(f"train.{name}" for name in scripts)
    return (Condition(lambda settings: settings.script in scripts, f"of a run of {words}"),)


def table(schema: type) -> dict[str, Conditions]:
    """The table of a schema, with those of the schemas it extends."""
    tables = [vars(part).get("READ_WITH", {}) for part in reversed(schema.__mro__)]
    return {name: found for table in tables for name, found in table.items()}


def without_effect(table: dict[str, Conditions], settings: Any, given: Collection[str]) -> dict[str, str]:
    """Of the settings that were given those that nothing reads, and why.

    Args:
      table: of ``conditions``.
      settings: all of them, with whatever else the conditions look at.
      given: names.
    """
    found = {}
    for name in given:
        missing = [part.words for part in table.get(name, ()) if not part.holds(settings)]
        if missing:
            found[name] = f"has no effect here; it is read only {' and '.join(missing)}"
    return found


def typed(schema: type, argv: Sequence[str]) -> set[str]:
    """The fields whose flags stand on a command line, in any of the forms: --a-b, --a_b, --a-b=1, --no-a-b."""
    names = {field.name for field in dataclasses.fields(schema)}
    words = [word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")]
    return {word if word in names else word.removeprefix("no_") for word in words} & names


def changed(settings: Any, base: Any) -> set[str]:
    """The names of the settings that differ from those of ``base``."""
    names = [field.name for field in dataclasses.fields(settings)]
    return {name for name in names if getattr(settings, name) != getattr(base, name)}


def flag(name: str) -> str:
    """How a field is typed."""
    return f"--{name.replace('_', '-')}"


def _is(name: str, values: Any) -> Callable[[Any], bool]:
    if values is True:
        return lambda settings: bool(getattr(settings, name))
    options = values if isinstance(values, tuple) else (values,)
    return lambda settings: getattr(settings, name) in options


def _flags(name: str, values: Any) -> str:
    if values is True:
        return f"with {flag(name)}"
    if not values:
        return f"without {flag(name)}"
    return f"with {flag(name)} {' or '.join(values if isinstance(values, tuple) else (values,))}"
