"""Adapters of peer libraries that do the same work; those that are not installed are named as absent."""

import importlib
import importlib.util
from typing import Any


def adapter(name: str) -> Any:
    """Import ``benchmarks.peers.<name>``; None if the package that it adapts is not installed."""
    if any(importlib.util.find_spec(package) is None for package in NEEDS[name]):
        return None
    return importlib.import_module(f"benchmarks.peers.{name}")


NEEDS = {
    "notes": ("torch",),
    "pixelwise": ("torch",),
    "hub": ("torch", "diffusers"),
    "lucidrains": ("torch", "denoising_diffusion_pytorch"),
    "gym": ("gymnasium",),
    "a2c": ("torch", "gymnasium"),
}
"""The adapters, and the packages each of them needs."""


def absent() -> dict[str, list[str]]:
    """Adapters that cannot be used here, with the packages that they miss."""
    missing = {name: [p for p in needs if importlib.util.find_spec(p) is None] for name, needs in NEEDS.items()}
    return {name: packages for name, packages in missing.items() if packages}
