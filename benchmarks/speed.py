"""Ours and every installed peer on the same work: ``python -m benchmarks.speed [--suite NAME] [--device gpu]``.

Each suite runs in a process of its own and writes ``results/speed-SUITE-DEVICE.json``; ``--report`` writes the tables
and figures from those files alone. Peers that are not installed are named and left out.
"""

import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import tyro

from benchmarks import harness, peers, report, stamp, work
from train.run import logging, process

SUITES = (
    "ceilings", "vae", "training", "sampling", "pixels", "gan", "environments", "startup", "scaling",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Speed:
    """Measure, and write the tables."""

    suite: tuple[str, ...] = ()
    """Which suites; all by default."""
    device: Literal["", "cpu", "gpu"] = ""
    """Where; the default of JAX by default."""
    size: Literal["", "toy", "cpu", "gpu"] = ""
    """Of the work; that of the device by default. Toy sizes measure nothing, and are written only where --out says."""
    repeats: int = 5
    """Samples of each program."""
    seconds: float = 0.25
    """Of a sample, at least."""
    without: tuple[str, ...] = ()
    """Leave out programs with these words in their names, as torch.compile."""
    out: str = ""
    """Folder of the JSON; benchmarks/results by default."""
    report: bool = False
    """Write the tables and figures from the JSON that is there, and measure nothing."""
    traceback: bool = False
    """Show where in the code an error arose."""


def measure(suite: str, size: str, device: str, settings: harness.Settings) -> Iterator[dict[str, Any]]:
    """The cases of a suite, measured one after the other."""
    module = importlib.import_module(f"benchmarks.suites.{suite}")
    for case in module.cases(module.SIZES[size], device):
        logging.log(f"{suite}: {case.name}")
        found = harness.measure(case, settings)
        for row in found["rows"]:
            busy = "" if row["quiet"] else "  (busy)"
            logging.log(f"  {report.time(row['seconds']):>9}  {row['times']:7.2f}x  {row['name']}{busy}")
        for name, reason in found["failed"].items():
            logging.log(f"  failed: {name}: {reason}")
        yield found


def main(argv: Sequence[str]) -> None:
    """Measure what the command line says, and write the tables."""
    settings = tyro.cli(Speed, prog="python -m benchmarks.speed", args=argv)
    if unknown := [name for name in settings.suite if name not in SUITES]:
        raise ValueError(f"suite: expected some of {', '.join(SUITES)}; got {', '.join(unknown)}")
    folder = pathlib.Path(settings.out) if settings.out else report.RESULTS
    if not settings.report and len(settings.suite) == 1:
        _one(settings, settings.suite[0], folder, argv)
    elif not settings.report:
        for name in settings.suite or SUITES:
            rest = dataclasses.replace(settings, suite=(name,))
            subprocess.run([sys.executable, "-m", "benchmarks.speed", *_flags(rest)], check=True)
    if not settings.out and settings.size != "toy":
        report.write(folder)


def _one(settings: Speed, suite: str, folder: pathlib.Path, argv: Sequence[str]) -> None:
    _choose(settings.device, suite)
    device = jax.default_backend()
    size = settings.size or device
    for name, packages in peers.absent().items():
        logging.log(f"left out: {name}, because {' and '.join(packages)} is not installed")
    told, before = stamp.stamp(argv, work.SEED), time.perf_counter()
    chosen = harness.Settings(settings.repeats, settings.seconds, settings.without)
    found: list[dict[str, Any]] = []
    for case in measure(suite, size, device, chosen):  # what is measured is kept, whatever comes after
        found.append(case)
        told |= {"suite": suite, "size": size, "absent": peers.absent(), "seconds": time.perf_counter() - before}
        if settings.out or size != "toy":
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**told, "cases": found}, indent=1)
            (folder / f"speed-{suite}-{device}.json").write_text(text + "\n", encoding="utf-8")


def _choose(device: str, suite: str) -> None:
    """Before JAX starts: the platform, and for the suite that spreads over devices one for each core."""
    if device:
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
    if suite == "scaling":
        jax.config.update("jax_num_cpu_devices", stamp.cores())


def _flags(settings: Speed) -> list[str]:
    """The command line that says the same."""
    flags = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == field.default:
            continue
        name = f"--{field.name}"
        flags += [name] if value is True else [name, *map(str, value if isinstance(value, tuple) else (value,))]
    return flags


if __name__ == "__main__":
    process.main(main)
