"""Trainers: command line, clock, disk and pictures around the pure library."""

import os
import signal
import sys


def _interrupted(number, frame):
    """Ctrl-C while a command still imports what it needs: there is nothing to save."""
    os.write(2, b"interrupted\n")
    os._exit(130)


# A command of ours begins; who imports a module of ours is left alone.
if sys.argv[:1] == ["-m"] and any(part.startswith(("train.", "-mtrain.")) for part in sys.orig_argv):
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    if os.name == "nt":
        sys.stderr.write("the commands of train need Linux or macOS, for their locks; on Windows use them in WSL\n")
        os._exit(2)
    from train import streams

    streams.prepare()
