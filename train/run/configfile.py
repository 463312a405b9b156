"""Settings as they stand in a file: ``train/configs/<script>/<name>.toml``, any ``.toml``, or a run's config.json."""

import dataclasses
import difflib
import os
import pathlib
import typing
from typing import Any, Literal, TypeVar

from train.run import conditions, data_forms, documents, files, renamed, usage
from train.run.usage import UsageError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"

FLAGS_ONLY = ("config", "restart", "override_resume", "traceback")
"""What is asked of one start: typed, and never read from a file."""

C = TypeVar("C")


def read(schema: type[C], script: str, name: str) -> C:
    """The configuration in a file.

    Raises:
      UsageError: the file is missing or broken, or has unknown keys or values of another type.
    """
    path = _find(script, name)
    recorded = is_record(name)
    try:
        values = _recorded(path, script) if recorded else documents.toml(path)
        values = renamed.translate(script, values)
    except documents.Unreadable as error:
        raise UsageError(f"not a configuration: {error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if recorded:
        values = {
            key: value for key, value in data_forms.recorded(values).items() if key not in (*FLAGS_ONLY, "workdir")
        }
    types, found = typing.get_type_hints(schema), []
    hints = {field.name: types[field.name] for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in hints:
            close = usage.closest(key, hints)
            hint = f"; did you mean {close}?" if close else ""
            found.append(f"{path}: {files.shown(key)}: no such setting{hint}")
        elif key in FLAGS_ONLY:
            found.append(f"{path}: {key}: no setting of a file; type {conditions.flag(key)} where you mean it")
        else:
            try:
                values[key] = _conform(hints[key], value)
            except (ValueError, OverflowError) as error:
                found.append(f"{path}: {key}: {error}")
    if found:
        raise UsageError("\n".join(found))
    made = schema(**(values | {"config": name}))
    if problems := usage.extremes(made):
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return usage.at_home(made)


def is_record(name: str) -> bool:
    """Whether a configuration is a run's config.json, which has every setting, read or not."""
    return name.lower().endswith(".json")


def _recorded(path: pathlib.Path, script: str) -> dict[str, Any]:
    found = documents.json_object(path)
    if not isinstance(values := found.get("config"), dict):
        raise documents.Unreadable(path, f"config: expected an object, got {usage.show(values)}")
    if (other := found.get("script", script)) != script:
        raise UsageError(f"{path} was written by train.{files.shown(str(other))}; expected one of train.{script}")
    return values


def _find(script: str, name: str) -> pathlib.Path:
    shipped = CONFIGS / script
    names = sorted(path.stem for path in shipped.glob("*.toml"))
    if name in names:
        return shipped / f"{name}.toml"
    path = pathlib.Path(usage.home("config", name))
    if path.suffix.lower() in (".toml", ".json") and os.path.lexists(path):
        return path
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    hint = f"; did you mean {close[0]}?" if close else ""
    known = f"expected one of {', '.join(names)}, or the path of a .toml or config.json file"
    raise UsageError(f"--config {files.shown(name)}: {known}{hint}")


def _conform(hint: Any, value: Any) -> Any:
    """The value as the type; strict, for a file knows its types."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in options):
            return value
        raise ValueError(f"expected one of {', '.join(map(repr, options))}; got {usage.show(value)}")
    if origin is tuple:
        if isinstance(value, list):
            return tuple(_conform(options[0], item) for item in value)
        raise ValueError(f"expected a list, got {usage.show(value)}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"expected {_NAMES.get(hint, hint)}, got {usage.show(value)}")
    return value


_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
