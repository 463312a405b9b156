"""Speed of genjax and its peers on the same work: ``python -m benchmarks.speed [--suite NAME] [--device gpu]``.

Each suite runs in its own process and writes ``results/speed-SUITE-DEVICE.json``; ``--report`` only writes the tables
and figures from these files. Peers that are not installed are named and left out.
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

from benchmarks import harness, peers, provenance, report, workload
from train.run import logging, process

SUITES = (
    "ceilings", "vae", "training", "sampling", "pixels", "gan", "environments", "startup", "scaling",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Speed:
    """Measure, and write the tables."""

    suite: tuple[str, ...] = ()
    """Names of suites; all by default."""
    device: Literal["", "cpu", "gpu"] = ""
    """Device to measure on; that of JAX by default."""
    size: Literal["", "toy", "cpu", "gpu"] = ""
    """Size of the work; that of the device by default. Toy sizes measure nothing, and are written only with --out."""
    repeats: int = 5
    """Number of samples of each program."""
    seconds: float = 0.25
    """Minimum duration of a sample."""
    without: tuple[str, ...] = ()
    """Words of programs to leave out, such as torch.compile."""
    out: str = ""
    """Folder of the JSON; benchmarks/results by default."""
    report: bool = False
    """Write the tables and figures from the existing JSON, and measure nothing."""
    traceback: bool = False
    """Show where in the code an error arose."""


def measure(suite: str, size: str, device: str, settings: harness.Settings) -> Iterator[dict[str, Any]]:
    """Measure the cases of a suite, one after the other."""
    module = importlib.import_module(f"benchmarks.suites.{suite}")
    for case in module.cases(module.SIZES[size], device):
        logging.log(f"{suite}: {case.name}")
        result = harness.measure(case, settings)
        for row in result["rows"]:
            busy = "" if row["quiet"] else "  (busy)"
            logging.log(f"  {report.time(row['seconds']):>9}  {row['times']:7.2f}x  {row['name']}{busy}")
        for name, reason in result["failed"].items():
            logging.log(f"  failed: {name}: {reason}")
        yield result


def main(argv: Sequence[str]) -> None:
    """Run the command."""
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
    about, before = provenance.record(argv, workload.SEED), time.perf_counter()
    chosen = harness.Settings(settings.repeats, settings.seconds, settings.without)
    results: list[dict[str, Any]] = []
    for case in measure(suite, size, device, chosen):  # each case is written at once, in case a later one fails
        results.append(case)
        about |= {"suite": suite, "size": size, "absent": peers.absent(), "seconds": time.perf_counter() - before}
        if settings.out or size != "toy":
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**about, "cases": results}, indent=1)
            (folder / f"speed-{suite}-{device}.json").write_text(text + "\n", encoding="utf-8")


def _choose(device: str, suite: str) -> None:
    """Choose the platform before JAX starts; for the suite of several devices, one device for each core."""
    if device:
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
    if suite == "scaling":
        jax.config.update("jax_num_cpu_devices", provenance.cores())


def _flags(settings: Speed) -> list[str]:
    """Command line of the settings."""
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
