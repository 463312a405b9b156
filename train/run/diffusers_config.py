"""Configurations of diffusers, field by field; a field that has no counterpart here is refused by name.

A pipeline's folder says how its network is sampled in ``scheduler/scheduler_config.json``. Ignoring a field there would
mean another chain, so a field is accepted only where its value has a counterpart here. The tests compare the tables and
the images with those of diffusers.
"""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from train.checkpoint import store
from train.run import config, documents

SCHEDULES = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
PREDICTS = {"epsilon": "noise", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}

DEFAULTS: Mapping[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None,
    "variance_type": "fixed_small", "clip_sample": True, "clip_sample_range": 1.0, "prediction_type": "epsilon",
    "thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "timestep_spacing": "leading",
    "steps_offset": 0, "rescale_betas_zero_snr": False, "predict_epsilon": True, "tensor_format": "pt",
}  # fmt: skip
"""Values of the fields that a ``scheduler_config.json`` leaves out; the last two fields stand in old files."""

_LARGEST = 1_000_000


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and math.isfinite(value) and low < value < high


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(one) and value == one for one in values)


UNDERSTOOD: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "num_train_timesteps": (_whole(1, _LARGEST), f"a whole number from 1 to {_LARGEST}"),
    "beta_start": (_number(0, 1), "a number between 0 and 1"),
    "beta_end": (_number(0, 1), "a number between 0 and 1"),
    "beta_schedule": (_one_of(*SCHEDULES), f"one of {', '.join(SCHEDULES)}"),
    "trained_betas": (_one_of(None), "null"),
    "variance_type": (_one_of(*VARIANCES), f"one of {', '.join(VARIANCES)}"),
    "clip_sample": (_one_of(True, False), "true or false"),
    "clip_sample_range": (_number(0, math.inf), "a positive number"),
    "prediction_type": (_one_of(*PREDICTS), f"one of {', '.join(PREDICTS)}"),
    "thresholding": (_one_of(False), "false"),
    "dynamic_thresholding_ratio": (lambda value: True, ""),  # of thresholding
    "sample_max_value": (lambda value: True, ""),  # of thresholding
    "timestep_spacing": (_one_of("leading", "linspace", "trailing"), "leading, linspace or trailing"),
    "steps_offset": (_one_of(0), "0"),
    "rescale_betas_zero_snr": (_one_of(True, False), "true or false"),
    "predict_epsilon": (_one_of(True), "true; prediction_type says what else"),
    "tensor_format": (lambda value: True, ""),  # of old versions, which returned arrays of either kind
}
"""Test of a field's value, and the expected value in words."""


class ProcessSettings(Protocol):
    """The settings of ``train.ddpm`` that describe the process."""

    @property
    def timesteps(self) -> int:
        """Number T of steps."""

    @property
    def beta_schedule(self) -> str:
        """Name of the schedule of β."""

    @property
    def beta_start(self) -> float:
        """β of the linear schedule at time 0."""

    @property
    def beta_end(self) -> float:
        """β of the linear schedule at time T - 1."""

    @property
    def rescale_zero_terminal_snr(self) -> bool:
        """True to leave nothing of the image at time T - 1."""

    @property
    def prediction_type(self) -> str:
        """Output of the network."""

    @property
    def variance(self) -> str:
        """Variance of the reverse steps."""

    @property
    def x0_range(self) -> float:
        """Bound of x̂_0; 0 for none."""

    @property
    def timestep_sampling(self) -> str:
        """Times of a training step."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for none."""


def settings(described: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Convert a ``DDPMScheduler`` to settings of ``train.ddpm``.

    Args:
      described: object in its scheduler_config.json.
      path: path of the file, for the message.

    Raises:
      UsageError: it is another class, or has fields or values without a counterpart here; all are named.
    """
    values = _checked(described, path)
    linear = {"beta_start": float(values["beta_start"]), "beta_end": float(values["beta_end"])}
    return {
        "timesteps": values["num_train_timesteps"],
        "beta_schedule": SCHEDULES[values["beta_schedule"]],
        "prediction_type": PREDICTS[values["prediction_type"]],
        "variance": VARIANCES[values["variance_type"]],
        "rescale_zero_terminal_snr": values["rescale_betas_zero_snr"],
        "x0_range": float(values["clip_sample_range"]) if values["clip_sample"] else 0.0,
        **(linear if values["beta_schedule"] == "linear" else {}),
    }


def _checked(described: Mapping[str, Any], path: pathlib.Path) -> Mapping[str, Any]:
    """Return the value of every field, and refuse values that have no counterpart here."""
    if (kind := described.get("_class_name")) != "DDPMScheduler":
        raise config.UsageError(f"{path}: _class_name: expected 'DDPMScheduler', got {kind!r}; others are not covered")
    values = {name: described.get(name, default) for name, default in DEFAULTS.items()}
    unknown = [name for name in described if not name.startswith("_") and name not in DEFAULTS]
    wrong = [f"{name} {described[name]!r}: not a field that is understood" for name in unknown]
    wrong += _misfits(values)
    if wrong := wrong or _contradictions(values):
        raise config.UsageError("\n  ".join([f"{path}: a process that is not covered:", *wrong]))
    return values


def _misfits(values: Mapping[str, Any]) -> list[str]:
    """List values that have no counterpart here."""
    return [
        f"{name}: expected {expected}, got {values[name]!r}"
        for name, (fits, expected) in UNDERSTOOD.items()
        if not fits(values[name])
    ]


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """List fields that each may be so, but not together."""
    if values["beta_schedule"] == "linear" and values["beta_start"] > values["beta_end"]:
        return [f"beta_start: expected at most beta_end {values['beta_end']}, got {values['beta_start']}"]
    if values["rescale_betas_zero_snr"] and values["prediction_type"] == "epsilon":
        return ["rescale_betas_zero_snr: with prediction_type 'epsilon' the last step tells nothing of the image"]
    return []


def check_pipeline(described: Mapping[str, Any], path: pathlib.Path) -> None:
    """Refuse a pipeline that does not draw step by step through the process.

    Raises:
      UsageError: its class is not ``DDPMPipeline``.
    """
    if (kind := described.get("_class_name")) != "DDPMPipeline":
        raise config.UsageError(f"{path}: _class_name: expected 'DDPMPipeline', got {kind!r}; others are not covered")


def scheduler(settings: ProcessSettings) -> dict[str, Any]:
    """Convert settings of ``train.ddpm`` to a scheduler_config.json; the inverse of ``settings``.

    Raises:
      UsageError: diffusers' ``DDPMScheduler`` has no such process; all reasons are named.
    """
    wrong = [
        f"{name} {value}"
        for name, value in (
            ("beta_schedule", settings.beta_schedule),
            ("variance", settings.variance),
            ("timestep_sampling", settings.timestep_sampling),
        )
        if value in ("sigmoid", "learned", "loss_aware")
    ]
    wrong += [f"num_classes {settings.num_classes}"] if settings.num_classes else []
    if wrong:
        raise config.UsageError(f"export: diffusers' DDPMScheduler has no counterpart of {', '.join(wrong)}")
    back = lambda table, value: next(name for name, own in table.items() if own == value)
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": settings.timesteps,
        "beta_start": settings.beta_start,
        "beta_end": settings.beta_end,
        "beta_schedule": back(SCHEDULES, settings.beta_schedule),
        "prediction_type": back(PREDICTS, settings.prediction_type),
        "variance_type": back(VARIANCES, settings.variance),
        "clip_sample": settings.x0_range > 0,
        "clip_sample_range": settings.x0_range or 1.0,
        "rescale_betas_zero_snr": settings.rescale_zero_terminal_snr,
        "timestep_spacing": "trailing",
    }


def json_object(path: pathlib.Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
      CheckpointError: there is no such file, or it holds something else.
    """
    try:
        return documents.json_object(path)
    except documents.Unreadable as error:
        raise store.CheckpointError(str(error)) from error
