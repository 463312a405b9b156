"""Trainers: command line, clock, disk and pictures around the pure library."""

import sys

# A command begins with `python -m train.NAME` or `python -m train NAME`; other importers are left alone.
if sys.argv[:1] == ["-m"] and any(f"{part}.".startswith(("train.", "-mtrain.")) for part in sys.orig_argv):
    from train.run import startup

    startup.prepare()
