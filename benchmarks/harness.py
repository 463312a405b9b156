"""Timing of programs that do the same work, and the load of the machine meanwhile.

A case is one piece of work; its variants are programs that do it, ours first. Every variant is called once, so that it
compiles, and the outputs are compared. A second call measures its duration and its memory. Then the variants take
turns, in samples long enough to measure. A sample is busy if other processes used more than ``QUIET`` cores meanwhile.
Medians and quartiles are over the samples that are not busy; a row without such samples is marked busy.
"""

import contextlib
import math
import os
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

QUIET = 0.12
"""Maximum number of cores that other processes may use during a sample that counts."""

Run = Callable[[], Any]
"""Function that does the work, waits until it is done, and returns the output."""


class Variant(NamedTuple):
    """Program to measure.

    Attributes:
      name: name of the program.
      build: function that prepares the program, unmeasured, and returns the run.
      units: number of units of work in one run; 0 for that of the case.
    """

    name: str
    build: Callable[[], Run]
    units: float = 0.0


class Goal(NamedTuple):
    """Speed that our program aims at.

    Attributes:
      times: aim for the ratio of a variant's time to ours.
      reason: explanation if the goal is not met.
    """

    times: float
    reason: str = ""


class Case(NamedTuple):
    """Piece of work.

    Attributes:
      name: description of the work, with its sizes.
      unit: unit of work; times are given for one unit.
      units: number of units in one run.
      variants: programs, ours first.
      check: ``(outputs by name of variant) -> differences by name``; raises AssertionError if they are too large.
      flops: floating-point operations of one unit; 0 if unknown.
      goals: goals of our program by the name of the variant.
      axis: name of the quantity that varies from case to case, for an exponent; "" for none.
      value: value of this quantity.
    """

    name: str
    unit: str
    units: float
    variants: Sequence[Variant]
    check: Callable[[Mapping[str, Any]], dict[str, float]] = lambda outputs: {}
    flops: float = 0.0
    goals: Mapping[str, Goal] = {}
    axis: str = ""
    value: float = 0.0


class Settings(NamedTuple):
    """Settings of a measurement.

    Attributes:
      repeats: number of samples of each variant.
      seconds: minimum duration of a sample.
      without: words; variants with one of them in their names are left out.
    """

    repeats: int = 5
    seconds: float = 0.25
    without: tuple[str, ...] = ()


class Sample(NamedTuple):
    """Sample of a variant.

    Attributes:
      seconds: duration of one run.
      others: number of cores that other processes used meanwhile; NaN if unknown.
    """

    seconds: float
    others: float


def close(output: Any, expected: Any, tolerance: float, what: str) -> float:
    """Return the largest difference relative to the largest value, at most the tolerance.

    Raises:
      AssertionError: the difference is larger, or the shapes differ.
    """
    output, expected = np.asarray(output, np.float64), np.asarray(expected, np.float64)
    assert output.shape == expected.shape, f"{what}: shapes {output.shape} and {expected.shape}"
    difference = float(np.abs(output - expected).max() / max(np.abs(expected).max(), 1e-30))
    assert difference <= tolerance, f"{what}: differ by {difference:.2g} of the largest value, {tolerance:g} allowed"
    return difference


def measure(case: Case, settings: Settings) -> dict[str, Any]:
    """Measure a case; the result is ready for JSON.

    Raises:
      AssertionError: the outputs of the variants differ.
    """
    runs, first, outputs, failed = _start(case, settings.without)
    differences = case.check(outputs)
    outputs.clear()
    memory, calls = {}, {}
    for name, run in runs.items():
        before = time.perf_counter()
        memory[name] = _peak_memory(run)
        calls[name] = max(1, math.ceil(settings.seconds / (time.perf_counter() - before)))
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
    for i in range(settings.repeats):
        for name in list(runs)[
            :: 1 if i % 2 == 0 else -1
        ]:  # alternate the order, so that no variant always follows the same one
            samples[name].append(_sample(runs[name], calls[name]))
    units = {variant.name: variant.units or case.units for variant in case.variants}
    rows = [_row(name, samples[name], units[name], first[name], memory[name], calls[name]) for name in runs]
    ours = rows[0]["seconds"]
    for row in rows:
        row["times"] = row["seconds"] / ours
    goals = {name: goal._asdict() for name, goal in case.goals.items()}
    return {
        "name": case.name, "unit": case.unit, "units": case.units, "flops": case.flops, "axis": case.axis,
        "value": case.value, "goals": goals, "agreement": differences, "failed": failed, "rows": rows,
    }  # fmt: skip


def _start(
    case: Case, without: Sequence[str]
) -> tuple[dict[str, Run], dict[str, float], dict[str, Any], dict[str, str]]:
    """Build and call the variants; return runs, seconds and outputs of the first calls, and errors of failed peers."""
    runs, first, outputs, failed = {}, {}, {}, {}
    for variant in case.variants:
        if any(word in variant.name for word in without):
            continue
        try:
            run = variant.build()
            before = time.perf_counter()
            outputs[variant.name] = run()
            first[variant.name] = time.perf_counter() - before
            runs[variant.name] = run
        except Exception as error:  # a failed peer becomes a line of the result
            if variant is case.variants[0]:
                raise
            failed[variant.name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return runs, first, outputs, failed


def _row(
    name: str, samples: Sequence[Sample], units: float, first: float, memory: Mapping[str, float], calls: int
) -> dict[str, Any]:
    quiet = [sample.seconds for sample in samples if not sample.others > QUIET]
    chosen = quiet or [sample.seconds for sample in samples]
    quartiles = [float(seconds) / units for seconds in np.quantile(chosen, [0.25, 0.75])]
    median = statistics.median(chosen)
    return {
        "name": name, "seconds": median / units, "quartiles": quartiles, "units": units, "calls": calls,
        "compile_seconds": max(0.0, first - median), "quiet": len(quiet), "memory_mib": dict(memory),
        "samples": [[sample.seconds, None if math.isnan(sample.others) else sample.others] for sample in samples],
    }  # fmt: skip


def _sample(run: Run, calls: int) -> Sample:
    before, own, everyone = time.perf_counter(), _own(), _everyone()
    for _ in range(calls):
        run()
    seconds = time.perf_counter() - before
    others = ((_everyone() - everyone) - (_own() - own)) / seconds
    return Sample(seconds / calls, max(0.0, others) if not math.isnan(others) else others)


def _own() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _everyone() -> float:
    """CPU seconds of all processes of the machine; NaN without /proc."""
    try:
        line = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    except OSError:
        return math.nan
    user, nice, system, _, _, irq, softirq = (int(number) for number in line[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _peak_memory(run: Run) -> dict[str, float]:
    """Peak memory of one warm run in MiB: of the process, and of JAX's and PyTorch's allocators if they report it.

    JAX reports the peak since the start of the process.
    """
    peaks: dict[str, float] = {}
    process = pathlib.Path("/proc/self")
    with contextlib.suppress(OSError):
        (process / "clear_refs").write_text("5", encoding="ascii")  # reset the peak
    with _torch_peak(peaks):
        run()
    with contextlib.suppress(OSError):
        status = (process / "status").read_text(encoding="ascii")
        peaks["process"] = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peaks["jax_so_far"] = stats["peak_bytes_in_use"] / 2**20
    return peaks


@contextlib.contextmanager
def _torch_peak(peaks: dict[str, float]) -> Iterator[None]:
    torch: Any = sys.modules.get("torch")
    counts = torch is not None and torch.cuda.is_available()
    if counts:
        torch.cuda.reset_peak_memory_stats()
    yield
    if counts:
        peaks["torch"] = torch.cuda.max_memory_allocated() / 2**20
