"""Trainers: command line, clock, disk and pictures around the pure library."""

import sys
from typing import Any

# A command begins with `python -m train.NAME` or `python -m train NAME`; other importers are left alone.
if sys.argv[:1] == ["-m"] and any(f"{part}.".startswith(("train.", "-mtrain.")) for part in sys.orig_argv):
    from train.run import startup

    startup.prepare()


def __getattr__(name: str) -> Any:
    """Import ``load`` and ``register`` when they are first asked for; a command does not wait for them."""
    if name == "load":
        from train.run.load import load

        return load
    if name == "register":
        from train.run.registry import register

        return register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
