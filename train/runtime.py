"""The process around a run: devices, compilation cache, signals, exit codes."""

import contextlib
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.experimental import multihost_utils

from genjax import data
from genjax.training import parallel
from train import checkpoint, files
from train.config import UsageError


class NonFinite(Exception):
    """The loss is no longer a number: exit code 5."""


class Preempted(Exception):
    """SIGTERM came and the run is saved: exit code 75."""


EXIT_CODES: list[tuple[type[BaseException], int]] = [
    (UsageError, 2),
    (checkpoint.WorkdirError, 2),
    (data.DataError, 3),
    (NonFinite, 5),
    (checkpoint.NonFinite, 5),
    (checkpoint.CheckpointError, 4),
    (Preempted, 75),
    (KeyboardInterrupt, 130),
    (Exception, 1),
]


def main(script: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a script and end the process: 0, or one line on stderr and the code of what went wrong."""
    argv = sys.argv[1:] if argv is None else argv
    code = 0
    _open_streams()
    try:
        remember_compilations()
        script(argv)
    except (Exception, KeyboardInterrupt) as error:
        code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
        if "--traceback" in argv:
            traceback.print_exc()
        with contextlib.suppress(BrokenPipeError):
            print(files.shown(_message(error), keep="\n"), file=sys.stderr, flush=True)
    _leave(code)


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
    """Keep compiled programs in the user's cache folder, so that a second start need not compile again."""
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genjax" / "xla"
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def join_machines() -> None:
    """Start JAX's distributed runtime.

    Slurm, MPI, Kubernetes and TPU pods say who is who; elsewhere the variables JAX_COORDINATOR_ADDRESS (host:port of
    the first machine), JAX_NUM_PROCESSES and JAX_PROCESS_ID do.

    Raises:
      UsageError: nobody says.
    """
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    count, number = (int(os.environ[name]) if os.environ.get(name, "").isdigit() else None for name in names)
    try:
        jax.distributed.initialize(num_processes=count, process_id=number)
    except ValueError as error:
        raise UsageError(f"--distributed: {error}; set JAX_COORDINATOR_ADDRESS, {' and '.join(names)}") from error


def run_once() -> dict[str, int]:
    """Compiler options for a program that runs once.

    On CPU, XLA unrolls random draws of small arrays, and compiling those takes many times as long as running them.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}


class Stop:
    """Whether a signal has asked the run to stop: ``stop()`` on any machine, ``stop.here()`` on this one."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def here(self) -> bool:
        """Whether this process was asked."""
        return bool(self.asked)

    def __call__(self) -> bool:
        """Whether any process was asked; all of them are to ask, and stop after the same step."""
        if jax.process_count() > 1:
            return bool(multihost_utils.process_allgather(jax.numpy.asarray(self.here())).any())
        return self.here()


@contextlib.contextmanager
def on_sigterm() -> Iterator[Stop]:
    """Inside, SIGTERM only sets a flag, which the yielded function reads; a second one ends the process at once."""
    stop = Stop()

    def handle(number, frame):
        if stop.asked:
            os._exit(128 + number)
        stop.asked.append(number)

    try:
        previous = signal.signal(signal.SIGTERM, handle)
    except ValueError:  # not the main thread: signals are somebody else's
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on from the last checkpoint"
    if "RESOURCE_EXHAUSTED" in str(error):
        return f"out of memory: reduce --batch-size\n{str(error).splitlines()[0]}"
    if any(isinstance(error, kind) for kind, _ in EXIT_CODES[:-1]):
        return str(error)
    return f"{type(error).__name__}: {error}\n(--traceback shows where)"


def _open_streams() -> None:
    """Give the standard streams that are closed to nobody, lest a file that is opened later takes their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _leave(code: int) -> None:
    """End the process now: a compiled loop that is still running in the background is not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None where it was closed from the start
            stream.flush()
    if code:
        os._exit(code)
