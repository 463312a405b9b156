"""Tables and figures of the speed benchmarks, from their JSON files."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import quality
from train.run import plots

RESULTS = quality.HERE / "results"


def time(seconds: float) -> str:
    """Format seconds with three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return "0"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def write(folder: pathlib.Path) -> None:
    """Write the tables between their marks in the README, and draw the figures."""
    suites = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("speed-*.json"))]
    order = ("ceilings", "vae", "training", "sampling", "pixels", "gan", "environments", "startup", "scaling")
    suites.sort(key=lambda suite: (suite["device"]["platform"], order.index(suite["suite"])))
    if not suites:
        return
    quality.write_table("speed", "\n\n".join(section(suite, suites) for suite in suites))
    for device in {suite["device"]["platform"] for suite in suites}:
        _figure(folder / f"speed-{device}.png", [suite for suite in suites if suite["device"]["platform"] == device])


def section(suite: dict[str, Any], suites: Sequence[dict[str, Any]]) -> str:
    """Format a suite: machine and versions, then a table."""
    device, versions = suite["device"], suite["versions"]
    what = f"{suite['processor']}, {suite['cores']} cores" if device["platform"] == "cpu" else device["kind"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "absent")
    lines = [
        f"### {suite['suite']}, {device['platform']}",
        "",
        f"{what}; commit {suite['commit'][:10]}{' with changes' if suite['changed'] else ''}; seed {suite['seed']}; "
        f"{packages}. "
        f"`{suite['command']}`, {suite['seconds']:.0f} s.",
    ]
    if suite["absent"]:
        lines.append(
            "Left out, not installed: " + ", ".join(sorted({p for ps in suite["absent"].values() for p in ps})) + "."
        )
    ceiling = _ceiling(suites, device["platform"])
    lines += [
        "",
        "| work, program | time for one | quartiles | times ours | first call | memory, MiB | of the ceiling | goal |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for case in suite["cases"]:
        lines.append(f"| **{case['name']}**, for one {case['unit']} | | | | | | | |")
        lines += [_line(row, case, ceiling) for row in case["rows"]]
        lines += [
            f"| {name} | failed: {reason.replace('|', '/')} | | | | | | |" for name, reason in case["failed"].items()
        ]
    if agreement := _agreement(suite["cases"]):
        lines += ["", agreement]
    if slopes := exponents(suite["cases"]):
        lines += ["", "| varied | program | exponent |", "|---|---|---|"]
        lines += [f"| {axis} | {name} | {slope:.2f} |" for (axis, name), slope in slopes.items()]
    return "\n".join(lines)


def _line(row: dict[str, Any], case: dict[str, Any], ceiling: float) -> str:
    low, high = row["quartiles"]
    busy = "" if row["quiet"] else " (busy)"
    memory = ", ".join(
        f"{value:.0f}{'' if name == 'process' else ' ' + name}" for name, value in row["memory_mib"].items()
    )
    rate = case["flops"] / row["seconds"]
    share = f"{rate / ceiling:.0%} ({rate / 1e9:.0f} GFLOP/s)" if case["flops"] and ceiling else ""
    goal = case["goals"].get(row["name"])
    verdict = ""
    if goal:
        met = row["times"] >= goal["times"]
        verdict = f"{goal['times']:g}: " + ("met" if met else f"**not met**. {goal['reason']}")
    numbers = f"{time(row['seconds'])}{busy} | {time(low)} to {time(high)} | {row['times']:.2f}"
    return f"| {row['name']} | {numbers} | {time(row['compile_seconds'])} | {memory} | {share} | {verdict} |"


def _agreement(cases: Sequence[dict[str, Any]]) -> str:
    largest: dict[str, float] = {}
    for case in cases:
        for name, value in case["agreement"].items():
            largest[name] = max(largest.get(name, 0.0), value)
    return "Largest differences, as a share of the largest value: " * bool(largest) + "; ".join(
        f"{name} {value:.1g}" for name, value in largest.items()
    )


def _ceiling(suites: Sequence[dict[str, Any]], platform: str) -> float:
    """Operations per second of the fastest measured float32 matrix product on a platform; 0 for none."""
    return max(
        (
            case["flops"] / row["seconds"]
            for suite in suites
            if suite["suite"] == "ceilings" and suite["device"]["platform"] == platform
            for case in suite["cases"]
            if case["name"].startswith("matrix product, float32")
            for row in case["rows"]
        ),
        default=0.0,
    )


def exponents(cases: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Fit p of seconds ∝ valueᵖ for each axis and program, by least squares on logarithms."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for case in cases:
        for row in case["rows"]:
            if case["axis"]:
                points.setdefault((case["axis"], row["name"]), []).append((case["value"], row["seconds"]))
    slopes = {}
    for name, pairs in points.items():
        if len(pairs) > 1:
            value, seconds = np.log(np.array(pairs)).T
            slopes[name] = float(np.polyfit(value, seconds, 1)[0])
    return slopes


def _figure(path: pathlib.Path, suites: Sequence[dict[str, Any]]) -> None:
    """Draw the ratio of each peer's time to ours, case by case."""
    cases = [
        (suite["suite"], case)
        for suite in suites
        for case in suite["cases"]
        if len(case["rows"]) > 1 and not case["axis"]
    ]
    with plots.figure(path, size=(8.6, 1.2 + 0.42 * len(cases))) as ((panel,),):
        for y, (_, case) in enumerate(reversed(cases)):
            rows = case["rows"][1:]
            panel.plot([row["times"] for row in rows], [y] * len(rows), "o", color="C0", alpha=0.7)
        panel.axvline(1, color="0.3", lw=1)
        panel.set_yticks(range(len(cases)), [f"{suite}: {case['name']}" for suite, case in reversed(cases)], fontsize=7)
        panel.set(xscale="log", xlabel="time over ours")
