"""What is understood of diffusers' configurations, field by field; everything else is refused by name.

A pipeline's folder says how its network is sampled in ``scheduler/scheduler_config.json``. A field that is not read is
a chain that draws something else, so a field counts as understood only where its value has a counterpart here, and the
tests hold the tables and the images against diffusers' own.
"""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from train import ddpm
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
"""What a ``scheduler_config.json`` leaves out; the last two stand in old ones."""

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
"""What a field may be, and in words."""


def settings(described: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """The settings of ``train.ddpm`` of a ``DDPMScheduler``.

    Args:
      described: its scheduler_config.json.
      path: of the file, for the message.

    Raises:
      UsageError: another class, or fields and values that have no counterpart here; all of them.
    """
    if (kind := described.get("_class_name")) != "DDPMScheduler":
        raise config.UsageError(f"{path}: _class_name: expected 'DDPMScheduler', got {kind!r}; others are not covered")
    said = {name: value for name, value in described.items() if not name.startswith("_")}
    wrong = [
        f"{name} {value!r}: not a field that is understood" for name, value in said.items() if name not in DEFAULTS
    ]
    found = {**DEFAULTS, **{name: value for name, value in said.items() if name in DEFAULTS}}
    for name, (fits, expected) in UNDERSTOOD.items():
        if not fits(found[name]):
            wrong.append(f"{name}: expected {expected}, got {found[name]!r}")
    if not wrong and found["beta_schedule"] == "linear" and found["beta_start"] > found["beta_end"]:
        wrong.append(f"beta_start: expected at most beta_end {found['beta_end']}, got {found['beta_start']}")
    if not wrong and found["rescale_betas_zero_snr"] and found["prediction_type"] == "epsilon":
        wrong.append("rescale_betas_zero_snr: with prediction_type 'epsilon' the last step tells nothing of the image")
    if wrong:
        raise config.UsageError("\n  ".join([f"{path}: a process that is not covered:", *wrong]))
    linear = {"beta_start": float(found["beta_start"]), "beta_end": float(found["beta_end"])}
    return {
        "timesteps": found["num_train_timesteps"],
        "beta_schedule": SCHEDULES[found["beta_schedule"]],
        "prediction_type": PREDICTS[found["prediction_type"]],
        "variance": VARIANCES[found["variance_type"]],
        "rescale_zero_terminal_snr": found["rescale_betas_zero_snr"],
        "x0_range": float(found["clip_sample_range"]) if found["clip_sample"] else 0.0,
        **(linear if found["beta_schedule"] == "linear" else {}),
    }


def check_pipeline(described: Mapping[str, Any], path: pathlib.Path) -> None:
    """Refuse a pipeline that draws in another way than step by step through the process.

    Raises:
      UsageError: its class is another than ``DDPMPipeline``.
    """
    if (kind := described.get("_class_name")) != "DDPMPipeline":
        raise config.UsageError(f"{path}: _class_name: expected 'DDPMPipeline', got {kind!r}; others are not covered")


def scheduler(told: ddpm.Config) -> dict[str, Any]:
    """The scheduler_config.json of a run's process; the inverse of ``settings``.

    Raises:
      UsageError: diffusers' ``DDPMScheduler`` has no such process; all the reasons.
    """
    wrong = [
        f"{name} {value}"
        for name, value in (
            ("beta_schedule", told.beta_schedule),
            ("variance", told.variance),
            ("timestep_sampling", told.timestep_sampling),
        )
        if value in ("sigmoid", "learned", "loss_aware")
    ]
    wrong += [f"num_classes {told.num_classes}"] if told.num_classes else []
    if wrong:
        raise config.UsageError(f"export: diffusers' DDPMScheduler has no counterpart of {', '.join(wrong)}")
    back = lambda table, value: next(name for name, ours in table.items() if ours == value)
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": told.timesteps,
        "beta_start": told.beta_start,
        "beta_end": told.beta_end,
        "beta_schedule": back(SCHEDULES, told.beta_schedule),
        "prediction_type": back(PREDICTS, told.prediction_type),
        "variance_type": back(VARIANCES, told.variance),
        "clip_sample": told.x0_range > 0,
        "clip_sample_range": told.x0_range or 1.0,
        "rescale_betas_zero_snr": told.rescale_zero_terminal_snr,
        "timestep_spacing": "trailing",
    }


def json_object(path: pathlib.Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      CheckpointError: there is no such file, or it holds something else.
    """
    try:
        return documents.json_object(path)
    except documents.Unreadable as error:
        raise store.CheckpointError(str(error)) from error
