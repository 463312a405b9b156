"""Settings that several trainers share: flat frozen dataclasses, from which flags, files and ``--help`` are made."""

import dataclasses
import functools
import math
from typing import Any, ClassVar, Literal

from train.run import conditions, data_forms
from train.run.usage import at_least


@dataclasses.dataclass(frozen=True)
class Run:
    """Settings of every trainer."""

    config: str = "digits"
    """Settings to start from: a name in train/configs/<script>/, the path of a .toml, or a run's config.json."""
    workdir: str = ""
    """Folder of the run; a run that is already there resumes. Default: runs/<script>-<config>, with the settings that
    differ from the config in its name."""
    restart: bool = False
    """Delete the run in the workdir and start over."""
    override_resume: bool = False
    """Resume even though settings differ from the checkpoint's."""
    steps: int = 1000
    """Training steps in total, those before a resume included."""
    every: int = 100
    """Steps between two reports; a report writes the held-out loss, figures and a checkpoint."""
    log_every: int = 10
    """Steps averaged into one line of metrics.jsonl."""
    steps_per_call: int = 10
    """Steps in one compiled call; a signal waits until the current call ends."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    warmup: int = 0
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or a cosine decay to 0 at the last step."""
    grad_clip: float = 0.0
    """Largest global norm of the gradient; 0 for no clipping."""
    ema_decay: float = 0.0
    """Decay of the moving average of the parameters, which samples are drawn with; 0 for no average."""
    seed: int = 0
    """Seed of all randomness."""
    num_seeds: int = 1
    """Number of seeds to train in one program, from --seed upwards."""
    sweep: str = ""
    """NAME=V1,V2,...: train once for each value of the numeric setting NAME, in one program."""
    devices: int = 0
    """Number of this machine's devices to train on; 0 for all."""
    distributed: bool = False
    """Join a run on several machines: start JAX's distributed runtime first."""
    traceback: bool = False
    """Show the traceback of an error."""

    GROUPS: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            ("steps", "batch_size", "lr", "warmup", "schedule", "grad_clip", "ema_decay", "seed", "num_seeds", "sweep"),
            "training",
        ),
        **dict.fromkeys(
            ("config", "workdir", "restart", "override_resume", "every", "log_every", "steps_per_call", "num_samples",
             "devices", "distributed", "traceback"),
            "run",
        ),
    }  # fmt: skip
    """Group of each setting in ``--help``; a setting that no table names is in the group "model"."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"override_resume": conditions.needs(restart=False)}
    """Conditions under which a setting is read; a setting that no table names is always read."""

    def problems(self) -> list[str]:
        """Return an error message for each invalid value."""
        ones = dict.fromkeys(("steps", "every", "log_every", "steps_per_call", "batch_size", "num_seeds"), 1)
        messages = at_least(self, ones | {"warmup": 0, "seed": 0, "devices": 0})
        if not (math.isfinite(self.lr) and self.lr > 0):
            messages.append(f"lr: expected a positive number, got {self.lr}")
        if not (math.isfinite(self.grad_clip) and self.grad_clip >= 0):
            messages.append(f"grad_clip: expected 0 (no clipping) or a positive number, got {self.grad_clip}")
        if not 0 <= self.ema_decay < 1:
            messages.append(f"ema_decay: expected 0 (no average) to below 1, got {self.ema_decay}")
        if self.seed + self.num_seeds > 2**32:
            messages.append(f"seed: expected below 2**32, got {self.seed + self.num_seeds - 1}")
        return messages


@dataclasses.dataclass(frozen=True)
class ImageRun(Run):
    """Settings of every trainer of a model of images."""

    data: str = "digits"
    """Data set: digits, tfds:NAME, folder:PATH or npz:PATH."""
    data_dir: str = ""
    """Folder of data sets, for reading and downloads. Default: the folder of tensorflow-datasets."""
    size: int = 0
    """Height and width to resize images to; 0 keeps their size. With 0, pictures of a folder, and sets of the catalogue
    other than MNIST's kin and CIFAR-10, are resized to 64."""
    channels: Literal[0, 1, 3] = 0
    """Channels to convert images to: 1 for grey, 3 for colour; 0 keeps theirs. With 0, pictures of a folder become
    colour."""
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    """Treatment of unreadable pictures in a folder: refuse the folder, or skip them if they are at most 1 %."""
    flip: bool = False
    """Mirror half of the training images."""
    exclude_class: int = -1
    """Class to leave out of training; the held-out split keeps it. -1 for none."""

    kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of data that the model takes beside images; see ``sources.MORE``."""

    GROUPS: ClassVar[dict[str, str]] = dict.fromkeys(
        ("data", "data_dir", "size", "channels", "on_bad_image", "flip", "exclude_class"), "data"
    )
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        name: (
            conditions.Condition(
                functools.partial(data_forms.is_read, name), f"with --data {data_forms.readers(name)}"
            ),
        )
        for name in ("data_dir", "size", "channels", "on_bad_image", "flip", "exclude_class")
    }

    def problems(self) -> list[str]:
        """Return an error message for each invalid value."""
        return super().problems() + at_least(self, {"size": 0, "exclude_class": -1})


@dataclasses.dataclass(frozen=True)
class UNetRun(ImageRun):
    """Settings of every trainer of the U-Net of Ho et al. 2020."""

    width: int = 32
    """Channels at full resolution."""
    channel_mults: tuple[int, ...] = (1, 2, 2)
    """Channels at each resolution, from the full resolution down, as multiples of the width."""
    num_res_blocks: int = 2
    """Residual blocks per resolution."""
    attention_resolutions: tuple[int, ...] = ()
    """Heights of the feature maps with self-attention; the height of the images, halved 0, 1, 2, ... times."""
    dropout: float = 0.0
    """Share of activations dropped in training."""
    fourier: tuple[int, ...] = ()
    """Values of n for Fourier features sin(2^n π x_t) and cos(2^n π x_t) of the input (Kingma et al. 2021)."""
    bfloat16: bool = False
    """Compute the network in bfloat16; parameters, optimizer and average stay float32."""
    num_samples: int = 64
    """Number of images to draw for the figures of a report."""

    def problems(self) -> list[str]:
        """Return an error message for each invalid value."""
        ones = dict.fromkeys(("width", "channel_mults", "num_res_blocks", "num_samples"), 1)
        messages = super().problems() + at_least(self, ones)
        if not self.channel_mults:
            messages.append("channel_mults: expected a positive number for each resolution, got none")
        if not 0 <= self.dropout < 1:
            messages.append(f"dropout: expected 0 to below 1, got {self.dropout}")
        return messages


CHANGEABLE = {
    "config", "workdir", "restart", "override_resume", "data_dir", "on_bad_image", "steps", "every", "log_every",
    "steps_per_call", "lr", "grad_clip", "devices", "distributed", "traceback",
}  # fmt: skip
"""Settings that may change on resume; a change of any other setting makes another run."""


def changeable(settings: Run) -> set[str]:
    """The settings that may change on resume; with a cosine schedule, ``steps`` may not."""
    return CHANGEABLE - ({"steps"} if settings.schedule == "cosine" else set())


def changes(old: dict[str, Any], new: dict[str, Any], allowed: set[str]) -> tuple[list[str], list[str]]:
    """Diff two configurations, one line ``name: old -> new`` for each setting that differs.

    Returns:
      lines of the changes that are allowed, and lines of the changes that are not.
    """
    differing = [name for name in sorted(old.keys() | new.keys()) if _plain(old.get(name)) != _plain(new.get(name))]
    lines = {name: f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in differing}
    return [lines[name] for name in differing if name in allowed], [
        lines[name] for name in differing if name not in allowed
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
