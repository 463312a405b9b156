"""Settings of a command: the defaults of its schema, replaced by those of a file, replaced by flags.

``--config`` names a file of ``train/configs/<script>/``, any ``.toml``, or a run's own ``config.json``. A setting that
nothing would read is refused: see ``conditions``.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from train.run import conditions, default_workdir, grouped_help, paths, startup, usage
from train.run.configfile import CONFIGS, is_record, read
from train.run.schemas import CHANGEABLE, ImageRun, Run, UNetRun, changeable, changes
from train.run.usage import UsageError, at_least

__all__ = [
    "CHANGEABLE",
    "CONFIGS",
    "ImageRun",
    "Run",
    "UNetRun",
    "UsageError",
    "at_least",
    "changeable",
    "changes",
    "command",
    "parse",
    "read",
]

C = TypeVar("C", bound=Run)
S = TypeVar("S", bound=conditions.Settings)


def parse(schema: type[C], script: str, argv: Sequence[str] | None = None, configs: pathlib.Path | None = None) -> C:
    """Read the settings of a trainer from a command line and the file that it names.

    Args:
      schema: settings of the trainer.
      script: name of the command.
      argv: words after the command; by default those of this process.
      configs: folder of the files that ``--config`` takes by name; None for ``train/configs/<script>``.

    Raises:
      UsageError: there is no such file, values are invalid, or nothing would read a setting; all of a kind at once.
      SystemExit: 0 after ``--help``, 2 for a flag that tyro refuses.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(startup.program(script), add_help=False, allow_abbrev=False)
    first.add_argument("--config", default=schema.config)
    base = read(schema, script, first.parse_known_args(argv)[0].config, configs)
    settings, typed = _parse(schema, script, argv, base)
    messages = settings.problems()
    named = {line.partition(":")[0] for line in messages}
    messages += [line for line in usage.extremes(settings) if line.partition(":")[0] not in named]
    if messages:
        raise UsageError("\n".join(messages))
    _refuse_without_effect(settings, base, typed)
    return settings if settings.workdir else _with_default_workdir(settings, base, script)


def command(schema: type[S], script: str, argv: Sequence[str]) -> tuple[S, set[str]]:
    """Read the settings of a command that takes no file.

    Returns:
      settings, and the names of the settings that were typed.

    Raises:
      UsageError: a value that no program could take.
      SystemExit: 0 after ``--help``, 2 for a flag that tyro refuses.
    """
    settings, typed = _parse(schema, script, argv)
    if messages := usage.extremes(settings):
        raise UsageError("\n".join(messages))
    return settings, typed


def _parse(schema: type[S], script: str, argv: Sequence[str], default: S | None = None) -> tuple[S, set[str]]:
    usage.check_flags(schema, script, argv)
    options: dict[str, Any] = {"prog": startup.program(script), "description": schema.__doc__}
    if {"--help", "-h"} & {*argv}:
        grouped_help.show(schema, default, **options)
    more: dict[str, Any] = {} if default is None else {"default": default}
    settings = tyro.cli(schema, args=argv, **options, **more)
    return paths.expand_all(settings), conditions.typed(schema, argv)


def _refuse_without_effect(settings: Run, base: Run, typed: set[str]) -> None:
    """Refuse a setting that was typed and has no effect, and a setting of a file that has none, flags or no flags."""
    table = conditions.table(type(settings))
    swept = settings.sweep.partition("=")[0].strip().replace("-", "_")
    if swept in typed:
        raise UsageError(f"{conditions.flag(swept)}: --sweep {swept} says its values; leave one of the two out")
    usage.refuse(table, settings, typed)
    if not is_record(settings.config):
        filed = conditions.changed(base, type(base)(config=base.config)) - typed
        idle = {*conditions.without_effect(table, base, filed)} & {*conditions.without_effect(table, settings, filed)}
        usage.refuse(table, settings, idle, f"{settings.config}: ")


def _with_default_workdir(settings: C, base: C, script: str) -> C:
    """Name the folder of the run after its config, and after the settings that make it another run."""
    differing = conditions.changed(settings, base) - changeable(settings)
    if differing and settings.override_resume:  # a new run would begin, in a folder of its own
        raise UsageError(
            f"--override-resume: say by --workdir which run is to go on with other {', '.join(sorted(differing))}"
        )
    values = {name: value for name, value in vars(settings).items() if name in differing}
    return dataclasses.replace(settings, workdir=default_workdir.name(script, settings.config, values))
