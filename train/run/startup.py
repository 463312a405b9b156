"""The first moments of a command, before anything heavy is imported."""

import contextlib
import importlib.util
import os
import signal
import sys
from types import FrameType

NEEDED = {"orbax": "orbax-checkpoint"} | {name: name for name in ("tyro", "tqdm", "matplotlib", "safetensors")}
"""Modules that the commands import and the library does not, with the packages that hold them: the extra `train`."""

DOORS = ("genjax", "python -m train")
"""Programs that take a command as their first word; ``sys.argv[0]`` is then one of them and the command."""


def prepare() -> None:
    """Protect a command that begins: its imports, its streams, and the terminal of a user who presses Ctrl-C at once.

    ``python -m`` looks for modules in the current folder first, which may hold anybody's files; only a checkout of
    this project stays on the path. Where the process cannot run a command at all, it ends with exit code 2.
    """
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if sys.path[:1] == [os.getcwd()] and not os.path.samefile(sys.path[0], home):
        del sys.path[0]
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if os.name == "nt":
        _refuse("the commands of train need Linux or macOS, for their locks; on Windows use them in WSL")
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        _refuse(f'train needs {", ".join(missing)}: pip install "jax-genmodels[train]"')
    from train.run import terminal

    terminal.prepare()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the process at Ctrl-C while a command still imports its modules: there is nothing to save yet."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def _refuse(message: str) -> None:
    """Say why no command can run, and end the process with exit code 2."""
    with contextlib.suppress(OSError):  # nobody need be there to read it
        os.write(2, f"{message}\n".encode())
    os._exit(2)


def program(command: str) -> str:
    """Name a command as the user starts it: ``genjax ddpm``, ``python -m train.ddpm``, or ``python my_model.py``."""
    door = sys.argv[0].rpartition(" ")[0]
    if door in DOORS:
        return f"{door} {command}"
    own = os.path.exists(os.path.join(os.path.dirname(os.path.dirname(__file__)), f"{command}.py"))
    return f"python -m train.{command}" if own else f"python {sys.argv[0]}"
