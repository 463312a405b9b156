"""The ``--help`` of a command, in groups: data, model, training, run."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from typing import Annotated, Any, NoReturn

import tyro

ORDER = ("data", "model", "training", "run")
"""Groups in the order of ``--help``."""


def show(schema: type, default: Any = None, *, prog: str, description: str | None) -> NoReturn:
    """Print the help of a command and end it with exit code 0.

    Args:
      schema: settings of the command; ``GROUPS`` of it and of its base classes name the group of a setting.
      default: settings whose values are shown as defaults; the schema's own by default.
      prog: command as the user types it.
      description: text below the usage.
    """
    options: dict[str, Any] = {"prog": prog, "description": description, "args": ["--help"]}
    if default is None or not hasattr(schema, "GROUPS"):
        tyro.cli(schema, **options)
    else:
        tyro.cli(
            type(groups := _nested(schema, default)), default=groups, config=(tyro.conf.OmitArgPrefixes,), **options
        )
    raise SystemExit(0)


def group_of(schema: type, name: str) -> str:
    """The group of a setting; "model" for a setting that no table names."""
    tables = [vars(part).get("GROUPS", {}) for part in schema.__mro__]
    return next((table[name] for table in tables if name in table), "model")


def text_of(schema: type, name: str) -> str:
    """The help text of a setting: the string below the field, in the most derived class that has one."""
    return next((texts[name] for part in schema.__mro__ if name in (texts := _texts(part))), "")


def _nested(schema: type, default: Any) -> Any:
    """The settings as a tree of one dataclass a group, which tyro shows group by group."""
    hints = typing.get_type_hints(schema, include_extras=True)
    groups: list[tuple[str, Any, Any]] = []
    for group in ORDER:
        names = [field.name for field in dataclasses.fields(schema) if group_of(schema, field.name) == group]
        if names:
            fields = [
                (name, Annotated[hints[name], tyro.conf.arg(help=text_of(schema, name))], getattr(default, name))
                for name in names
            ]
            made = dataclasses.make_dataclass(group, fields, frozen=True, namespace={"__doc__": " "})
            groups.append((f"{group}_group", Annotated[made, tyro.conf.arg(name=group)], made()))
    return dataclasses.make_dataclass(schema.__name__, groups, frozen=True)()


def _texts(part: type) -> dict[str, str]:
    """The strings below the fields of one class, by field."""
    if not dataclasses.is_dataclass(part):
        return {}
    body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
