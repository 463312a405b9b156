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
    # python -m looks for modules in the current folder first, which may hold anybody's data: only our own stays
    if sys.path[:1] == [os.getcwd()] and not os.path.samefile(sys.path[0], os.path.dirname(os.path.dirname(__file__))):
        del sys.path[0]
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    if os.name == "nt":
        sys.stderr.write("the commands of train need Linux or macOS, for their locks; on Windows use them in WSL\n")
        os._exit(2)
    from train.run import terminal

    terminal.prepare()
