"""The process around a run: devices, compilation cache, machines, exit codes."""

import contextlib
import functools
import glob
import os
import pathlib
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genjax import data
from genjax.training import parallel
from train.checkpoint import store
from train.run import distributed, signals, terminal
from train.run.config import UsageError


class NonFinite(Exception):
    """The loss, an image or a result is no number: exit code 5."""


def check_finite(what: str, numbers: Mapping[str, Any]) -> None:
    """Refuse results that are no numbers, before anybody takes them for some.

    Args:
      what: they are of.
      numbers: by name, or lists of them, or mappings again.

    Raises:
      NonFinite: names the first that is none.
    """
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            check_finite(f"{what}: {name}", value)
        elif not isinstance(value, str) and not np.isfinite(value).all():
            at = f" at {np.argmin(np.isfinite(value))}" if np.ndim(value) else ""
            raise NonFinite(f"{what}: {name.replace('_', ' ')} is no number{at}; nothing is written")


class Preempted(Exception):
    """SIGTERM came and the run is saved: exit code 75."""


EXIT_CODES: list[tuple[type[BaseException], int]] = [
    (UsageError, 2),
    (store.WorkdirError, 2),
    (data.DataError, 3),
    (NonFinite, 5),
    (store.NonFinite, 5),
    (store.CheckpointError, 4),
    (Preempted, 75),
    (distributed.Gone, 75),
    (KeyboardInterrupt, 130),
    (Exception, 1),
]


def main(script: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a script and end the process: 0, or one line on stderr and the code of what went wrong."""
    argv = sys.argv[1:] if argv is None else argv
    terminal.prepare()
    with signals.watched():
        try:
            remember_compilations()
            script(argv)
            code: object = 0
        except SystemExit as error:
            code = error.code
        except BrokenPipeError:  # the reader has left, as `| head -1` does
            code = 141
        except (Exception, KeyboardInterrupt) as error:
            code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
            if "--traceback" in argv:
                traceback.print_exc()
            code, message = distributed.verdict(error, code, _message(error))
            terminal.write_line(message, sys.stderr)
            distributed.leave(code, message)
        _leave(code if isinstance(code, int) else int(code is not None))


def devices(num: int, batch_size: int) -> list[jax.Device]:
    """The devices to train on: the first ``num`` of this machine, 0 for all.

    Raises:
      UsageError: there are fewer, or the batch does not split over them.
    """
    local = jax.local_devices()
    if num > len(local):
        raise UsageError(
            f"devices {num}: this machine has {len(local)} ({local[0].platform}); use at most that, or 0 for all"
        )
    chosen = local[: num or len(local)]
    try:
        parallel.check_split(batch_size, len(chosen) * jax.process_count())
    except ValueError as error:
        raise UsageError(str(error)) from error
    return chosen


def remember_compilations() -> None:
    """Keep compiled programs in the user's cache folder, so that a second start need not compile again.

    JAX leaves an entry that it cannot read where it is, and complains at every start; here it is removed, so that the
    program is written anew.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genjax" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
            warnings.filterwarnings("always", UNREADABLE)
            warnings.showwarning = functools.partial(_show_warning, folder, warnings.showwarning)


UNREADABLE = "Error reading persistent compilation cache entry for '([^']+)'"
"""What JAX warns of, with the name of the program, which its entries' files begin with."""


def _show_warning(folder: pathlib.Path, otherwise: Callable, message: Warning | str, *args: Any) -> None:
    found = re.match(UNREADABLE, str(message))
    if found is None:
        return otherwise(message, *args)
    for path in folder.glob(f"{glob.escape(found[1])}-*"):
        with contextlib.suppress(OSError):
            path.unlink()


def run_once() -> dict[str, int]:
    """Compiler options for a program that runs once.

    On CPU, XLA unrolls random draws of small arrays, and compiling those takes many times as long as running them.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if "RESOURCE_EXHAUSTED" in str(error):
        return f"out of memory: reduce --batch-size\n{str(error).splitlines()[0]}"
    if any(isinstance(error, kind) for kind, _ in EXIT_CODES[:-1]):
        return str(error)
    return f"{type(error).__name__}: {error}\n(--traceback shows where)"


def _leave(code: int) -> None:
    """End the process now: a compiled loop that is still running in the background is not waited for."""
    for stream in (sys.stdout, sys.stderr):
        terminal.write_line("", stream, end="")
    if code:
        os._exit(code)
