"""Tables and figures of what ``speed`` measured, from its JSON alone."""

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
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return "0"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def write(folder: pathlib.Path) -> None:
    """Put the tables between their marks in the README, and draw the figures."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("speed-*.json"))]
    order = ("ceilings", "vae", "training", "sampling", "pixels", "gan", "environments", "startup", "scaling")
    found.sort(key=lambda one: (one["device"]["platform"], order.index(one["suite"])))
    if not found:
        return
    quality.write_table("speed", "\n\n".join(section(one, found) for one in found))
    for device in {one["device"]["platform"] for one in found}:
        _figure(folder / f"speed-{device}.png", [one for one in found if one["device"]["platform"] == device])


def section(one: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """A suite: what it was measured with, then a table."""
    device, versions = one["device"], one["versions"]
    what = f"{one['processor']}, {one['cores']} cores" if device["platform"] == "cpu" else device["kind"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "absent")
    lines = [
        f"### {one['suite']}, {device['platform']}",
        "",
        f"{what}; commit {one['commit'][:10]}{' with changes' if one['changed'] else ''}; seed {one['seed']}; "
        f"{packages}. "
        f"`{one['command']}`, {one['seconds']:.0f} s.",
    ]
    if one["absent"]:
        lines.append(
            "Left out, not installed: " + ", ".join(sorted({p for ps in one["absent"].values() for p in ps})) + "."
        )
    ceiling = _ceiling(found, device["platform"])
    lines += [
        "",
        "| work, program | time for one | quartiles | times ours | first call | memory, MiB | of the ceiling | goal |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for case in one["cases"]:
        lines.append(f"| **{case['name']}**, for one {case['unit']} | | | | | | | |")
        lines += [_line(row, case, ceiling) for row in case["rows"]]
        lines += [
            f"| {name} | failed: {reason.replace('|', '/')} | | | | | | |" for name, reason in case["failed"].items()
        ]
    if agreement := _agreement(one["cases"]):
        lines += ["", agreement]
    if slopes := exponents(one["cases"]):
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


def _ceiling(found: Sequence[dict[str, Any]], platform: str) -> float:
    """The fastest float32 matrix product measured on this platform, in operations per second; 0 for none."""
    return max(
        (
            case["flops"] / row["seconds"]
            for one in found
            if one["suite"] == "ceilings" and one["device"]["platform"] == platform
            for case in one["cases"]
            if case["name"].startswith("matrix product, float32")
            for row in case["rows"]
        ),
        default=0.0,
    )


def exponents(cases: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """p of seconds ∝ valueᵖ for each axis and program, by least squares on logarithms."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for case in cases:
        for row in case["rows"]:
            if case["axis"]:
                points.setdefault((case["axis"], row["name"]), []).append((case["value"], row["seconds"]))
    return {name: float(np.polyfit(*np.log(np.array(many)).T, 1)[0]) for name, many in points.items() if len(many) > 1}


def _figure(path: pathlib.Path, found: Sequence[dict[str, Any]]) -> None:
    """How many times as long as ours each peer takes, case by case."""
    cases = [
        (one["suite"], case) for one in found for case in one["cases"] if len(case["rows"]) > 1 and not case["axis"]
    ]
    with plots.figure(path, size=(8.6, 1.2 + 0.42 * len(cases))) as ((panel,),):
        for place, (_, case) in enumerate(reversed(cases)):
            rows = case["rows"][1:]
            panel.plot([row["times"] for row in rows], [place] * len(rows), "o", color="C0", alpha=0.7)
        panel.axvline(1, color="0.3", lw=1)
        panel.set_yticks(range(len(cases)), [f"{suite}: {case['name']}" for suite, case in reversed(cases)], fontsize=7)
        panel.set(xscale="log", xlabel="time over ours")
