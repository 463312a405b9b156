"""Configurations: a flat frozen dataclass is the schema, the documentation and the command line of a script.

``--config`` names a file of ``train/configs/<script>/``, any ``.toml``, or a run's own ``config.json``; what it says
replaces the dataclass's defaults, and flags replace what it says.
"""

import argparse
import dataclasses
import difflib
import json
import math
import pathlib
import sys
import tomllib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import tyro

CONFIGS = pathlib.Path(__file__).parent / "configs"


class UsageError(Exception):
    """A flag or a configuration that cannot be: exit code 2. The message says what to change."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What every script takes."""

    config: str = "digits"
    """Name of a file in train/configs/<script>/, path of a .toml, or a run's config.json."""
    workdir: str = ""
    """Folder of the run; a run that is there goes on. Default: runs/<script>-<config>."""
    restart: bool = False
    """Delete the run in the workdir and start over."""
    override_resume: bool = False
    """Go on with a run although settings changed that its checkpoints were made with."""
    steps: int = 1000
    """Training steps in all, those before a resume included."""
    every: int = 100
    """Steps between two reports: held-out loss, pictures, checkpoint."""
    log_every: int = 10
    """Steps averaged into one line of metrics.jsonl."""
    steps_per_call: int = 10
    """Steps in one compiled call; a signal waits for the call in flight."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    lr: float = 1e-3
    """Learning rate, after warm-up."""
    warmup: int = 0
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after warm-up: constant, or a cosine to 0 at the last step."""
    clip: float = 0.0
    """Largest global norm of the gradient; 0 does not clip."""
    ema: float = 0.0
    """Decay of the moving average of the parameters that samples are drawn from; 0 takes the parameters themselves."""
    seed: int = 0
    """Of everything random."""
    num_seeds: int = 1
    """Train so many seeds, this one and the following, in one program."""
    sweep: str = ""
    """NAME=V1,V2,...: train once for each value of a number, in one program."""
    devices: int = 0
    """Devices of this machine to train on; 0 is all."""
    distributed: bool = False
    """One of several machines: start JAX's distributed runtime first."""
    traceback: bool = False
    """Show where in the code an error arose."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one line each."""
        ones = dict.fromkeys(("steps", "every", "log_every", "steps_per_call", "batch_size", "num_seeds"), 1)
        found = at_least(self, ones | {"warmup": 0, "seed": 0, "devices": 0})
        if not (math.isfinite(self.lr) and self.lr > 0):
            found.append(f"lr: expected a positive number, got {self.lr}")
        if not (math.isfinite(self.clip) and self.clip >= 0):
            found.append(f"clip: expected 0 (no clipping) or a positive number, got {self.clip}")
        if not 0 <= self.ema < 1:
            found.append(f"ema: expected 0 (no average) to below 1, got {self.ema}")
        if self.seed + self.num_seeds > 2**32:
            found.append(f"seed: expected below 2**32, got {self.seed + self.num_seeds - 1}")
        return found


@dataclasses.dataclass(frozen=True)
class ImageRun(Run):
    """What every script takes that trains on images."""

    data: str = "digits"
    """digits, tfds:NAME, folder:PATH or npz:PATH."""
    data_dir: str = ""
    """Where data sets lie or are downloaded to. Default: the folder of tensorflow-datasets."""
    size: int = 64
    """Height and width that the images of a folder are brought to."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour: images of a folder."""
    flip: bool = False
    """Mirror half of the training images."""
    without: int = -1
    """A class that training never sees; the held-out split keeps it. -1 for none."""

    kinds: ClassVar[tuple[str, ...]] = ()  # of data that the model takes beside images; see sources.MORE

    def problems(self) -> list[str]:
        """Everything wrong with the values, one line each."""
        return super().problems() + at_least(self, {"size": 1, "without": -1})


@dataclasses.dataclass(frozen=True)
class UNetRun(ImageRun):
    """What every script takes that trains the U-Net of Ho et al. 2020."""

    width: int = 32
    """Channels at full resolution."""
    multipliers: tuple[int, ...] = (1, 2, 2)
    """Channels at each resolution, from the full one down, as multiples of the width."""
    blocks: int = 2
    """Residual blocks per resolution."""
    attention: tuple[int, ...] = ()
    """Heights with self-attention, of those that the image comes to as it is halved."""
    dropout: float = 0.0
    """Share of activations dropped in training."""
    fourier: tuple[int, ...] = ()
    """Show the network sin(2^n π x_t) and cos(2^n π x_t) for these n as well (Kingma et al. 2021)."""
    bfloat16: bool = False
    """Compute the network in bfloat16; parameters, optimizer and average stay float32."""

    num_samples: int = 64
    """Images drawn for the pictures of a report."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one line each."""
        found = super().problems() + at_least(self, {"width": 1, "multipliers": 1, "blocks": 1, "num_samples": 1})
        if not self.multipliers:
            found.append("multipliers: expected a positive number for each resolution, got none")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout: expected 0 to below 1, got {self.dropout}")
        return found


def at_least(settings: object, lowest: Mapping[str, int]) -> list[str]:
    """What is wrong with settings that are below what they may be, or no number; with tuples, with any of theirs."""
    found = []
    for name, low in lowest.items():
        value = getattr(settings, name)
        if not all(one >= low for one in (value if isinstance(value, tuple) else (value,))):
            found.append(f"{name}: expected at least {low}, got {value}")
    return found


# What a resumed run may be asked to do differently; anything else would not be the same run.
FREE = {"config", "workdir", "restart", "override_resume", "data_dir", "steps", "every", "log_every", "steps_per_call",
        "lr", "clip", "devices", "distributed", "traceback"}  # fmt: skip

C = TypeVar("C", bound=Run)


def parse(schema: type[C], script: str, argv: Sequence[str] | None = None) -> C:
    """The configuration that a command line asks for.

    Raises:
      UsageError: no such file, or values that cannot be; all of them at once.
      SystemExit: 2 where a flag is not one (tyro says which is meant), 0 after ``--help``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", default=schema.config)
    named, _ = first.parse_known_args(argv)
    config = tyro.cli(
        schema,
        prog=f"python -m train.{script}",
        description=schema.__doc__,
        args=argv,
        default=read(schema, script, named.config),
    )
    if problems := config.problems():
        raise UsageError("\n".join(problems))
    return config if config.workdir else dataclasses.replace(config, workdir=_default_workdir(script, config.config))


def read(schema: type[C], script: str, name: str) -> C:
    """The configuration in a file.

    Raises:
      UsageError: the file is missing or broken, or has unknown keys or values of another type.
    """
    path = _find(script, name)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)["config"] if path.suffix == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a configuration: {error}") from error
    if path.suffix == ".json":
        values = {key: value for key, value in values.items() if key not in ("workdir", "restart", "override_resume")}
    types, found = typing.get_type_hints(schema), []
    hints = {field.name: types[field.name] for field in dataclasses.fields(schema)}
    for key, value in values.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1, cutoff=0.4)
            found.append(f"{path}: {key}: no such setting" + (f"; did you mean {close[0]}?" if close else ""))
            continue
        try:
            values[key] = _conform(hints[key], value)
        except ValueError as error:
            found.append(f"{path}: {key}: {error}")
    if found:
        raise UsageError("\n".join(found))
    return schema(**(values | {"config": name}))


def changes(old: dict[str, Any], new: dict[str, Any], free: set[str]) -> tuple[list[str], list[str]]:
    """What differs between two configurations, as ``key: old -> new``: what may, and what may not."""
    differ = [key for key in sorted(old.keys() | new.keys()) if _plain(old.get(key)) != _plain(new.get(key))]
    lines = {key: f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in differ}
    return [lines[key] for key in differ if key in free], [lines[key] for key in differ if key not in free]


def _find(script: str, name: str) -> pathlib.Path:
    shipped = CONFIGS / script
    names = sorted(path.stem for path in shipped.glob("*.toml"))
    if name in names:
        return shipped / f"{name}.toml"
    path = pathlib.Path(name)
    if path.suffix in (".toml", ".json") and path.is_file():
        return path
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(
        f"--config {name}: expected one of {', '.join(names)}, or the path of a .toml or config.json file{hint}"
    )


def _default_workdir(script: str, name: str) -> str:
    return str(pathlib.Path("runs") / f"{script}-{pathlib.Path(name).stem}")


def _conform(hint: Any, value: Any) -> Any:
    """The value as the type; strict, for a file knows its types."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in options:
            return value
        raise ValueError(f"expected one of {', '.join(map(repr, options))}; got {value!r}")
    if origin is tuple:
        if isinstance(value, list):
            return tuple(_conform(options[0], item) for item in value)
        raise ValueError(f"expected a list, got {value!r}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"expected {_NAMES.get(hint, hint)}, got {value!r}")
    return value


_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
