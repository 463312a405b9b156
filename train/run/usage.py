"""Refusal of wrong flags and settings before any work, in the words of the user."""

import contextlib
import dataclasses
import difflib
import dis
import math
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import genjax
from train.run import conditions, renamed


class UsageError(Exception):
    """A flag or a configuration is wrong: exit code 2. The message says what to change."""


MOST = {
    "seed": 2**32 - 1, "timesteps": 10**6, "size": 8192, "batch_size": 10**6, "num_samples": 10**4, "num_seeds": 10**4,
    "num": 10**6, "samples": 10**6, "times": 10**5, "levels": 2**16, "width": 8192, "channel_mults": 256,
    "num_res_blocks": 100, "layers": 1000, "kernel_size": 255, "fourier": 30, "features": 2**16, "head": 2**16,
    "hidden": 2**20, "conv_channels": 2**16, "components": 1000, "latent_dim": 2**20, "codebook_size": 2**20,
    "embedding_dim": 2**16, "num_classes": 2**20, "rollout_length": 10**6, "eval_episodes": 10**6,
}  # fmt: skip
"""Largest values of whole numbers, by setting; a larger value is a typing error, and no machine has the memory."""

LONGEST = 100
"""Largest number of elements in a list."""

DESTRUCTIVE = {"restart", "override_resume", "force"}
"""Settings that no message proposes in place of a mistyped one."""


def show(value: Any, most: int = 80) -> str:
    """Format a value for a message: one short line, whatever the value is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = "something too large to show"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def closest(name: str, names: Collection[str]) -> str | None:
    """The most similar of some names, or None; never a name that deletes or overrides."""
    return next(iter(difflib.get_close_matches(name, [*{*names} - DESTRUCTIVE], n=1, cutoff=0.7)), None)


def check_flags(schema: type, script: str, argv: Sequence[str]) -> None:
    """Refuse words that look like flags and are none.

    Args:
      schema: settings of the command.
      script: name of the command, whose renamed flags are refused with their new names.
      argv: words after the command.

    Raises:
      UsageError: there are such words; the message proposes flags for them.
    """
    if {"--help", "-h"} & {*argv}:
        return
    names = {field.name for field in dataclasses.fields(schema)}
    new_names = renamed.new_names(script)
    messages = []
    for word in (word.partition("=")[0] for word in argv if re.match("--[a-z]", word)):
        name = word[2:].replace("-", "_")
        if not ({name, name.removeprefix("no_")} & names or name.startswith("tyro_")):
            new_name = new_names.get(name.removeprefix("no_"), "")
            messages.append(f"{word}: {_advice(name, new_name, names)}")
    if messages:
        raise UsageError("\n".join([*messages, "--help lists them all"]))


def _advice(name: str, new_name: str, names: Collection[str]) -> str:
    if new_name in names:
        return f"renamed; use {conditions.flag(new_name)}"
    similar = closest(name, names)
    return "no such flag" + (f"; did you mean {conditions.flag(similar)}?" if similar else "")


def at_least(settings: object, lowest: Mapping[str, float]) -> list[str]:
    """Return an error message for each setting below its minimum (tuples: any element)."""
    messages = []
    for name, low in lowest.items():
        value = getattr(settings, name)
        if not all(element >= low for element in _elements(value)):
            messages.append(f"{name}: expected at least {low}, got {value}")
    return messages


def extremes(settings: conditions.Settings) -> list[str]:
    """Return an error message for each number or text that no program can take, whatever it is for."""
    messages = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, tuple) and len(value) > LONGEST:
            messages.append(f"{field.name}: expected at most {LONGEST} of them, got {len(value)}")
        reasons = (_extreme(element, MOST.get(field.name, 2**31 - 1)) for element in _elements(value))
        messages += [f"{field.name}: {reason}" for reason in reasons if reason]
    return messages


def _extreme(value: Any, most: int) -> str:
    """The reason why no program can take a value; empty for a value that is fine."""
    if type(value) is int and not -(2**31) <= value <= most:
        return f"expected at most {most}, got {show(value)}"
    if type(value) is float and not math.isfinite(value):
        return f"expected a finite number, got {value}"
    if type(value) is str and "\0" in value:
        return f"expected text, got {show(value)}"
    return ""


def _elements(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def refuse(table: dict[str, conditions.Conditions], settings: object, given: Collection[str], prefix: str = "") -> None:
    """Refuse settings that were given although nothing reads them.

    Args:
      table: conditions under which settings are read, of ``conditions.table``.
      settings: all settings, with whatever else the conditions look at.
      given: names of the settings that were given.
      prefix: words before each message, such as the file that gives the setting.

    Raises:
      UsageError: there are such settings; the message says under which condition each is read.
    """
    if idle := conditions.without_effect(table, settings, sorted(given)):
        raise UsageError("\n".join(f"{prefix}{conditions.flag(name)}: {reason}" for name, reason in idle.items()))


@contextlib.contextmanager
def library_errors() -> Iterator[None]:
    """Turn a ValueError that the library raises into a UsageError, for work with the user's settings.

    A ValueError from below the library, out of JAX or NumPy, is a defect, and passes.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is ValueError and _raised_by_library(error):
            raise UsageError(str(error)) from error
        raise


def _raised_by_library(error: ValueError) -> bool:
    """True if a ``raise`` statement of genjax made the error."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    inside = pathlib.Path(code.co_filename).is_relative_to(pathlib.Path(genjax.__file__).parent)
    return inside and code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
