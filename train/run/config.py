"""Configurations: a flat frozen dataclass is the schema, the documentation and the command line of a script.

``--config`` names a file of ``train/configs/<script>/``, any ``.toml``, or a run's own ``config.json``; what it says
replaces the dataclass's defaults, and flags replace what it says. A setting that nothing would read is refused: see
``reads``.
"""

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar

import tyro

from train.run import conditions, data_forms, default_workdir, startup, usage
from train.run.configfile import CONFIGS, is_record, read
from train.run.usage import UsageError, at_least

__all__ = [
    "CONFIGS",
    "CHANGEABLE",
    "ImageRun",
    "Run",
    "UNetRun",
    "UsageError",
    "at_least",
    "changes",
    "command",
    "parse",
    "read",
]


@dataclasses.dataclass(frozen=True)
class Run:
    """What every script takes."""

    config: str = "digits"
    """Name of a file in train/configs/<script>/, path of a .toml, or a run's config.json."""
    workdir: str = ""
    """Folder of the run; a run that is there goes on. Default: runs/<script>-<config>, and what differs from it."""
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
    grad_clip: float = 0.0
    """Largest global norm of the gradient; 0 does not clip."""
    ema_decay: float = 0.0
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

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"override_resume": conditions.needs(restart=False)}
    """When a setting is read that is not always; see ``reads``."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one line each."""
        ones = dict.fromkeys(("steps", "every", "log_every", "steps_per_call", "batch_size", "num_seeds"), 1)
        found = at_least(self, ones | {"warmup": 0, "seed": 0, "devices": 0})
        if not (math.isfinite(self.lr) and self.lr > 0):
            found.append(f"lr: expected a positive number, got {self.lr}")
        if not (math.isfinite(self.grad_clip) and self.grad_clip >= 0):
            found.append(f"grad_clip: expected 0 (no clipping) or a positive number, got {self.grad_clip}")
        if not 0 <= self.ema_decay < 1:
            found.append(f"ema_decay: expected 0 (no average) to below 1, got {self.ema_decay}")
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
    size: int = 0
    """Height and width that images are brought to. 0 leaves them as they are; pictures of a folder, and sets of the
    catalogue other than MNIST's kin and CIFAR-10, then come to 64."""
    channels: Literal[0, 1, 3] = 0
    """1 for grey, 3 for colour. 0 leaves images as they are; pictures of a folder then come in colour."""
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    """A picture of a folder that cannot be read: refuse the folder, or skip it if no more than 1 % are so."""
    flip: bool = False
    """Mirror half of the training images."""
    exclude_class: int = -1
    """A class that training never sees; the held-out split keeps it. -1 for none."""

    kinds: ClassVar[tuple[str, ...]] = ()  # of data that the model takes beside images; see sources.MORE
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        name: (
            conditions.Condition(functools.partial(data_forms.heeds, name), f"with --data {data_forms.heeding(name)}"),
        )
        for name in ("data_dir", "size", "channels", "on_bad_image", "flip", "exclude_class")
    }

    def problems(self) -> list[str]:
        """Everything wrong with the values, one line each."""
        return super().problems() + at_least(self, {"size": 0, "exclude_class": -1})


@dataclasses.dataclass(frozen=True)
class UNetRun(ImageRun):
    """What every script takes that trains the U-Net of Ho et al. 2020."""

    width: int = 32
    """Channels at full resolution."""
    channel_mults: tuple[int, ...] = (1, 2, 2)
    """Channels at each resolution, from the full one down, as multiples of the width."""
    num_res_blocks: int = 2
    """Residual blocks per resolution."""
    attention_resolutions: tuple[int, ...] = ()
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
        found = super().problems() + at_least(
            self, {"width": 1, "channel_mults": 1, "num_res_blocks": 1, "num_samples": 1}
        )
        if not self.channel_mults:
            found.append("channel_mults: expected a positive number for each resolution, got none")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout: expected 0 to below 1, got {self.dropout}")
        return found


CHANGEABLE = {
    "config", "workdir", "restart", "override_resume", "data_dir", "on_bad_image", "steps", "every", "log_every",
    "steps_per_call", "lr", "grad_clip", "devices", "distributed", "traceback",
}  # fmt: skip
"""Settings that may change on resume; a change of any other setting makes another run."""

C = TypeVar("C", bound=Run)
S = TypeVar("S")


def changeable(settings: Run) -> set[str]:
    """The settings that a resumed run may change: with a cosine, not the steps that it ends at."""
    return CHANGEABLE - ({"steps"} if settings.schedule == "cosine" else set())


def parse(schema: type[C], script: str, argv: Sequence[str] | None = None) -> C:
    """The configuration that a command line asks for.

    Raises:
      UsageError: no such file, values that cannot be, or settings that nothing would read; all of a kind at once.
      SystemExit: 2 where a flag is not one (tyro says which is meant), 0 after ``--help``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(startup.program(script), add_help=False, allow_abbrev=False)
    first.add_argument("--config", default=schema.config)
    base = read(schema, script, first.parse_known_args(argv)[0].config)
    settings, typed = _said(schema, script, argv, base)
    problems = settings.problems()
    named = {line.partition(":")[0] for line in problems}
    problems += [line for line in usage.extremes(settings) if line.partition(":")[0] not in named]
    if problems:
        raise UsageError("\n".join(problems))
    _refuse_idle(settings, base, typed)
    if settings.workdir:
        return settings
    own = conditions.changed(settings, base) - changeable(settings)
    if own and settings.override_resume:  # another run would begin, in a folder of its own
        raise UsageError(
            f"--override-resume: say by --workdir which run is to go on with other {', '.join(sorted(own))}"
        )
    differs = {name: value for name, value in vars(settings).items() if name in own}
    return dataclasses.replace(settings, workdir=default_workdir.default_workdir(script, settings.config, differs))


def command(schema: type[S], script: str, argv: Sequence[str]) -> tuple[S, set[str]]:
    """What a command line says, ~ expanded, and the names of the settings that were typed.

    Raises:
      UsageError: a value that no program could take.
      SystemExit: 2 where a flag is not one, 0 after ``--help``.
    """
    settings, typed = _said(schema, script, argv)
    if problems := usage.extremes(settings):
        raise UsageError("\n".join(problems))
    return settings, typed


def _said(schema: type[S], script: str, argv: Sequence[str], default: S | None = None) -> tuple[S, set[str]]:
    usage.check_flags(schema, script, argv)
    more: dict[str, Any] = {} if default is None else {"default": default}
    settings = tyro.cli(schema, prog=startup.program(script), description=schema.__doc__, args=argv, **more)
    return usage.at_home(settings), conditions.typed(schema, argv)


def _refuse_idle(settings: Run, base: Run, typed: set[str]) -> None:
    """Refuse what was typed and has no effect, and what a file says that has none, neither there nor with the flags."""
    table = conditions.table(type(settings))
    swept = settings.sweep.partition("=")[0].strip().replace("-", "_")
    if swept in typed:
        raise UsageError(f"{conditions.flag(swept)}: --sweep {swept} says its values; leave one of the two out")
    usage.refuse(table, settings, typed)
    if not is_record(settings.config):
        filed = conditions.changed(base, type(base)(config=base.config)) - typed
        idle = (
            conditions.without_effect(table, base, filed).keys()
            & conditions.without_effect(table, settings, filed).keys()
        )
        usage.refuse(table, settings, idle, f"{settings.config}: ")


def changes(old: dict[str, Any], new: dict[str, Any], free: set[str]) -> tuple[list[str], list[str]]:
    """What differs between two configurations, as ``key: old -> new``: what may, and what may not."""
    differ = [key for key in sorted(old.keys() | new.keys()) if _plain(old.get(key)) != _plain(new.get(key))]
    lines = {key: f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in differ}
    return [lines[key] for key in differ if key in free], [lines[key] for key in differ if key not in free]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
