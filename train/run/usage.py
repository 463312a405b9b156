"""What was typed or stands in a file and cannot be: refused before anything is done, in words of who reads it."""

import contextlib
import dataclasses
import difflib
import dis
import math
import os
import pathlib
import re
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import genjax
from train.run import conditions, renamed


class UsageError(Exception):
    """A flag or a configuration that cannot be: exit code 2. The message says what to change."""


PATHS = ("config", "workdir", "data_dir", "out", "terms", "classifier", "inception", "source", "export", "file")
"""The fields that name a place on disk; in ``data`` it stands after the colon."""

MOST = {
    "seed": 2**32 - 1, "timesteps": 10**6, "size": 8192, "batch_size": 10**6, "num_samples": 10**4, "num_seeds": 10**4,
    "num": 10**6, "samples": 10**6, "times": 10**5, "levels": 2**16, "width": 8192, "channel_mults": 256,
    "num_res_blocks": 100, "layers": 1000, "kernel_size": 255, "fourier": 30, "features": 2**16, "head": 2**16,
    "hidden": 2**20, "conv_channels": 2**16, "components": 1000, "latent_dim": 2**20, "codebook_size": 2**20,
    "embedding_dim": 2**16, "num_classes": 2**20, "rollout_length": 10**6, "eval_episodes": 10**6,
}  # fmt: skip
"""The largest values of whole numbers, by name; beyond them is a slip of the hand, and no machine has the memory."""

DESTRUCTIVE = {"restart", "override_resume", "force"}
"""What no message proposes to who mistyped something else."""

LONGEST = 100
"""Numbers in a list of them."""

S = TypeVar("S")


def show(value: Any, most: int = 80) -> str:
    """A value as a message shows it: in one short line, whatever it is."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):
        shown = "something too large to show"
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def closest(name: str, names: Collection[str]) -> str | None:
    """The name that was meant, if one is close; never one that deletes or overrides."""
    return next(iter(difflib.get_close_matches(name, [*{*names} - DESTRUCTIVE], n=1, cutoff=0.7)), None)


def check_flags(schema: type, script: str, argv: Sequence[str]) -> None:
    """Refuse words that look like flags and are none.

    Raises:
      UsageError: names them all, and what may be meant.
    """
    names = {field.name for field in dataclasses.fields(schema)}
    words = [word.partition("=")[0] for word in argv if re.match("--[a-z]", word)]
    if {"--help", "-h"} & {*argv}:
        return
    found = []
    for word in words:
        name = word[2:].replace("-", "_")
        if {name, name.removeprefix("no_")} & names or name.startswith("tyro_"):
            continue
        new = renamed.new_names(script).get(name.removeprefix("no_"))
        if new in names:
            found.append(f"{word}: renamed; use {conditions.flag(new)}")
        else:
            meant = closest(name, names)
            found.append(f"{word}: no such flag" + (f"; did you mean {conditions.flag(meant)}?" if meant else ""))
    if found:
        raise UsageError("\n".join([*found, "--help lists them all"]))


def at_least(settings: object, lowest: Mapping[str, int]) -> list[str]:
    """What is wrong with settings that are below what they may be, or no number; with tuples, with any of theirs."""
    found = []
    for name, low in lowest.items():
        value = getattr(settings, name)
        if not all(one >= low for one in (value if isinstance(value, tuple) else (value,))):
            found.append(f"{name}: expected at least {low}, got {value}")
    return found


def extremes(settings: Any) -> list[str]:
    """What is wrong with numbers and texts that no program can take, whatever they are for."""
    found = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        most = MOST.get(field.name, 2**31 - 1)
        if isinstance(value, tuple) and len(value) > LONGEST:
            found.append(f"{field.name}: expected at most {LONGEST} of them, got {len(value)}")
        for one in value if isinstance(value, tuple) else (value,):
            if type(one) is int and not -(2**31) <= one <= most:
                found.append(f"{field.name}: expected at most {most}, got {show(one)}")
            if type(one) is float and not math.isfinite(one):
                found.append(f"{field.name}: expected a finite number, got {one}")
            if type(one) is str and "\0" in one:
                found.append(f"{field.name}: expected text, got {show(one)}")
    return found


def refuse(table: dict[str, conditions.Conditions], settings: Any, given: Collection[str], place: str = "") -> None:
    """Refuse settings that were given and that nothing reads.

    Args:
      table: of ``conditions.table``.
      settings: all of them, with whatever else the table looks at.
      given: names.
      place: where they were given, for the message; on the command line by default.

    Raises:
      UsageError: names them all, and says what reads them.
    """
    if idle := conditions.without_effect(table, settings, sorted(given)):
        raise UsageError("\n".join(f"{place}{conditions.flag(name)}: {why}" for name, why in idle.items()))


def refuse_idle(settings: Any, run: Any, typed: Collection[str], data: str = "") -> None:
    """Refuse what was asked of a run that does not read it: what was typed, and what is not the default.

    Args:
      settings: of the command.
      run: the ``trained.Record`` of who is asked.
      typed: names.
      data: that are looked at, where they are not the run's.

    Raises:
      UsageError: names it, and says which runs read it.
    """
    told = {name: getattr(run.settings, name, None) for name in ("num_classes", "data", "variance")}
    told |= {"data": data} if data else {}
    asked = types.SimpleNamespace(**{**told, **vars(settings), "script": run.script})
    given = {*typed, *conditions.changed(settings, type(settings)(settings.workdir))}
    refuse(conditions.table(type(settings)), asked, given)


def at_home(settings: S) -> S:
    """With ~ as the home folder wherever a place on disk stands.

    Raises:
      UsageError: there is no such home folder.
    """
    changed: Any = settings
    found: dict[str, Any] = {}
    for field in dataclasses.fields(changed):
        text = getattr(settings, field.name)
        if field.name in PATHS:
            found[field.name] = home(field.name, text)
        elif field.name == "data":
            kind, colon, path = text.partition(":")
            found["data"] = kind + colon + home("data", path)
    return dataclasses.replace(changed, **found)


def home(name: str, path: str) -> str:
    """A path, ~ expanded.

    Raises:
      UsageError: there is no such home folder.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UsageError(f"{name} {path}: there is no such home folder; ./{path} is a file of that name")
    return expanded


@contextlib.contextmanager
def of_library() -> Iterator[None]:
    """Around work with what was typed: a ValueError that the library itself raises speaks of that, whenever it comes.

    One that comes from below the library, out of JAX or NumPy, is a defect, and passes.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is ValueError and _refused(error):
            raise UsageError(str(error)) from error
        raise


def _refused(error: ValueError) -> bool:
    """Whether a ``raise`` in genjax made the error."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    inside = pathlib.Path(code.co_filename).is_relative_to(pathlib.Path(genjax.__file__).parent)
    return inside and code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
