"""Provenance of a measurement: commit, versions, device, command."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import jax

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "torch", "diffusers", "denoising-diffusion-pytorch", "gymnasium",
)  # fmt: skip


def record(argv: Sequence[str], seed: int) -> dict[str, Any]:
    """Record of commit, command, versions and machine, for the results."""
    root = pathlib.Path(__file__).parent.parent
    git = lambda *words: subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()
    device = jax.devices()[0]
    return {
        "commit": git("rev-parse", "HEAD") or "unknown",
        "changed": [line for line in git("status", "--porcelain", "--untracked-files=no").splitlines() if line],
        "command": " ".join(["python", "-m", "benchmarks.speed", *argv]),
        "seed": seed,
        "versions": {"python": platform.python_version(), **versions()},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "processor": processor(),
        "cores": cores(),
        "load_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Version of each package, or "absent"."""
    result = {}
    for name in PACKAGES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = "absent"
    return result


def processor() -> str:
    """Name of the processor, if the system reports it."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
