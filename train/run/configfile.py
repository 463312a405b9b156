"""Settings in a file: ``train/configs/<script>/<name>.toml``, any other ``.toml``, or a run's ``config.json``."""

import dataclasses
import difflib
import os
import pathlib
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from train.run import conditions, data_forms, documents, files, paths, renamed, usage
from train.run.usage import UsageError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"

FLAGS_ONLY = ("config", "restart", "override_resume", "traceback")
"""Settings of one start: typed, and never read from a file."""

C = TypeVar("C", bound=conditions.Settings)


def read(schema: type[C], script: str, name: str, configs: pathlib.Path | None = None) -> C:
    """Read the settings in a file; a setting that the file lacks has its default.

    Args:
      schema: settings of the trainer.
      script: name of the command.
      name: name of a shipped file, or path of a ``.toml`` or a ``config.json``.
      configs: folder of the shipped files; None for ``train/configs/<script>``.

    Raises:
      UsageError: the file is missing or broken, or has unknown keys or values of another type.
    """
    path = _find(name, configs or CONFIGS / script)
    values = _values(path, script, is_record(name))
    types = typing.get_type_hints(schema)
    hints = {field.name: types[field.name] for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    messages = []
    for key, value in values.items():
        try:
            values[key] = _setting(hints, key, value)
        except (ValueError, OverflowError) as error:
            messages.append(f"{path}: {files.shown(key)}: {error}")
    if messages:
        raise UsageError("\n".join(messages))
    settings = schema(**(values | {"config": name}))
    if problems := usage.extremes(settings):
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return paths.expand_all(settings)


def is_record(name: str) -> bool:
    """True for a run's config.json, which has every setting, read or not."""
    return name.lower().endswith(".json")


def _find(name: str, shipped: pathlib.Path) -> pathlib.Path:
    names = sorted(path.stem for path in shipped.glob("*.toml"))
    if name in names:
        return shipped / f"{name}.toml"
    path = pathlib.Path(paths.expand("config", name))
    if path.suffix.lower() in (".toml", ".json") and os.path.lexists(path):
        return path
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    hint = f"; did you mean {close[0]}?" if close else ""
    known = f"expected one of {', '.join(names)}, or the path of a .toml or config.json file"
    raise UsageError(f"--config {files.shown(name)}: {known}{hint}")


def _values(path: pathlib.Path, script: str, recorded: bool) -> dict[str, Any]:
    """The settings that a file names, under today's names."""
    try:
        values = renamed.translate(script, _recorded(path, script) if recorded else documents.toml(path))
    except documents.Unreadable as error:
        raise UsageError(f"not a configuration: {error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if not recorded:
        return values
    of_start = (*FLAGS_ONLY, "workdir")
    return {key: value for key, value in data_forms.upgrade(values).items() if key not in of_start}


def _recorded(path: pathlib.Path, script: str) -> dict[str, Any]:
    content = documents.json_object(path)
    if not isinstance(values := content.get("config"), dict):
        raise documents.Unreadable(path, f"config: expected an object, got {usage.show(values)}")
    if (other := content.get("script", script)) != script:
        raise UsageError(f"{path} was written by train.{files.shown(str(other))}; expected one of train.{script}")
    return values


def _setting(hints: Mapping[str, Any], key: str, value: Any) -> Any:
    """Check one setting of a file, and return its value.

    Raises:
      ValueError: there is no such setting, it cannot stand in a file, or its value has another type.
    """
    if key not in hints:
        close = usage.closest(key, hints)
        raise ValueError("no such setting" + (f"; did you mean {close}?" if close else ""))
    if key in FLAGS_ONLY:
        raise ValueError(f"no setting of a file; type {conditions.flag(key)} where you mean it")
    return _conform(hints[key], value)


def _conform(hint: Any, value: Any) -> Any:
    """Check that a value has a type, strictly: a file knows its types. A whole number passes for a number."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _one_of(options, value)
    if origin is tuple:
        if isinstance(value, list):
            return tuple(_conform(options[0], element) for element in value)
        raise ValueError(f"expected a list, got {usage.show(value)}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"expected {_NAMES.get(hint, hint)}, got {usage.show(value)}")
    return value


def _one_of(options: tuple[Any, ...], value: Any) -> Any:
    if any(value == option and type(value) is type(option) for option in options):
        return value
    raise ValueError(f"expected one of {', '.join(map(repr, options))}; got {usage.show(value)}")


_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
