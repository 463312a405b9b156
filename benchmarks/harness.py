"""Times programs that do the same work: in turns, warm, waited for, with what else the machine did meanwhile.

A case is one piece of work and the variants are the programs that do it, ours first. Every variant is called once, so
that it compiles; what they return is compared; a second call shows how long one takes and how much memory; then they
take turns, in samples long enough to measure. A sample during which other processes took more than ``QUIET`` of a core
is busy; medians and quartiles are over the others, and where there are none the row says that it is busy.
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
"""Cores that other processes may use while a sample counts."""

Run = Callable[[], Any]
"""Does the work, waits until it is done, and returns what came out."""


class Variant(NamedTuple):
    """One program.

    Fields:
      name: what it is.
      build: makes what it needs, outside every measurement, and returns the run.
      units: of the case that one run does; 0 for as many as the case says.
    """

    name: str
    build: Callable[[], Run]
    units: float = 0.0


class Goal(NamedTuple):
    """How many times faster than a variant ours is to be, and why it is not where it is not."""

    times: float
    reason: str = ""


class Case(NamedTuple):
    """One piece of work.

    Fields:
      name: what the work is, sizes included.
      unit, units: what is counted, and how many of them one run does; times are given for one.
      variants: the programs, ours first.
      check: ``(outputs by name of variant) -> differences by name``; raises AssertionError where they are too large.
      flops: floating-point operations of one unit, 0 where nobody counted.
      goals: of ours against variants, by name.
      axis, value: what is varied from case to case, for an exponent; "" for nothing.
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
    """How to measure: ``repeats`` samples of each variant, of ``seconds`` at least, but not of those ``without``."""

    repeats: int = 5
    seconds: float = 0.25
    without: tuple[str, ...] = ()


class Sample(NamedTuple):
    """Seconds of one run, and the cores that others used meanwhile (NaN where the system does not tell)."""

    seconds: float
    others: float


def close(found: Any, expected: Any, tolerance: float, what: str) -> float:
    """The largest difference as a share of the largest value; AssertionError where it is above the tolerance."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"{what}: shapes {found.shape} and {expected.shape}"
    difference = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    assert difference <= tolerance, f"{what}: differ by {difference:.2g} of the largest value, {tolerance:g} allowed"
    return difference


def measure(case: Case, settings: Settings) -> dict[str, Any]:
    """The case measured, ready for JSON.

    Raises:
      AssertionError: the variants do not do the same.
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
        for name in list(runs)[:: 1 if i % 2 == 0 else -1]:  # there and back: no one always follows the same other
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
    """Runs, seconds of their first calls, what these returned, and the errors of the peers that broke."""
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
        except Exception as error:  # a peer that breaks is a line of the result, not the end of it
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
    before, ours, all_of_it = time.perf_counter(), _own(), _everyone()
    for _ in range(calls):
        run()
    seconds = time.perf_counter() - before
    others = ((_everyone() - all_of_it) - (_own() - ours)) / seconds
    return Sample(seconds / calls, max(0.0, others) if not math.isnan(others) else others)


def _own() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _everyone() -> float:
    """CPU seconds of all processes of the machine; NaN where there is no /proc."""
    try:
        line = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    except OSError:
        return math.nan
    user, nice, system, _, _, irq, softirq = (int(number) for number in line[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _peak_memory(run: Run) -> dict[str, float]:
    """MiB at the peak of one warm run: of the process, and of JAX's and PyTorch's allocators where they count.

    JAX's own count is the highest since the process began.
    """
    found = {}
    process = pathlib.Path("/proc/self")
    with contextlib.suppress(OSError):
        (process / "clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew
    with _torch_peak(found):
        run()
    with contextlib.suppress(OSError):
        status = (process / "status").read_text(encoding="ascii")
        found["process"] = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        found["jax_so_far"] = stats["peak_bytes_in_use"] / 2**20
    return found


@contextlib.contextmanager
def _torch_peak(found: dict[str, float]) -> Iterator[None]:
    torch: Any = sys.modules.get("torch")
    counts = torch is not None and torch.cuda.is_available()
    if counts:
        torch.cuda.reset_peak_memory_stats()
    yield
    if counts:
        found["torch"] = torch.cuda.max_memory_allocated() / 2**20
