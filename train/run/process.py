"""The process of a command: devices, compilation cache, exit codes."""

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
    """A loss, an image or a result is not finite: exit code 5."""


def check_finite(what: str, numbers: Mapping[str, Any]) -> None:
    """Refuse results that are not finite, before they are shown or written.

    Args:
      what: description of the results, for the message.
      numbers: numbers by name; lists and nested mappings too.

    Raises:
      NonFinite: a number is NaN or infinite; the message names the first one.
    """
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            check_finite(f"{what}: {name}", value)
        elif not isinstance(value, str) and not np.isfinite(value).all():
            at = f" at {np.argmin(np.isfinite(value))}" if np.ndim(value) else ""
            raise NonFinite(f"{what}: {name.replace('_', ' ')} is no number{at}; nothing is written")


class Preempted(Exception):
    """SIGTERM has stopped the run, which is saved: exit code 75."""


EXIT_CODES: list[tuple[type[BaseException], int]] = [
    (UsageError, 2),
    (store.WorkdirError, 2),
    (data.DataError, 3),
    (NonFinite, 5),
    (store.NonFiniteState, 5),
    (store.CheckpointError, 4),
    (Preempted, 75),
    (distributed.Gone, 75),
    (KeyboardInterrupt, 130),
    (Exception, 1),
]


def main(script: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a command and end the process: exit code 0, or one line on stderr and the exit code of the error."""
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
    """The devices to train on: the first ``num`` of this machine, or all of them for 0.

    Raises:
      UsageError: there are fewer devices, or the batch does not split over them.
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
    """Keep compiled programs in the user's cache folder, so that a second start need not compile them again.

    JAX leaves an unreadable entry in place and warns at every start. Here the entry is removed, so that JAX writes it
    anew.
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
"""Warning of JAX, with the name of the program; the files of the entry begin with that name."""


def _show_warning(folder: pathlib.Path, otherwise: Callable[..., None], message: Warning | str, *args: Any) -> None:
    """Remove the entry that JAX could not read; show any other warning."""
    match = re.match(UNREADABLE, str(message))
    if match is None:
        return otherwise(message, *args)
    for path in folder.glob(f"{glob.escape(match[1])}-*"):
        with contextlib.suppress(OSError):
            path.unlink()


def run_once() -> dict[str, int]:
    """Compiler options for a program that runs once.

    On CPU, XLA unrolls random draws of small arrays; compiling that takes many times as long as running it.
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
    """End the process now, without waiting for a compiled loop in the background."""
    for stream in (sys.stdout, sys.stderr):
        terminal.write_line("", stream, end="")
    if code:
        os._exit(code)
