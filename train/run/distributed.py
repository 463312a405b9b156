"""A run on several machines: its processes join, agree on what they run, and end together.

Every process of the run tells the others why it stops, and a thread in each process listens. So an error of one process
ends all of them with the same exit code, and no process waits for a machine that is gone.
"""

import atexit
import ctypes
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax._src import distributed  # its client has no public name; orbax takes it from there, too

from train.run import terminal
from train.run.config import Run, UsageError

START = 300
"""Seconds in which the machines must find each other."""
SILENCE = 60
"""Seconds without a sign of life after which a machine counts as gone."""
GRACE = 10
"""Seconds in which a process must end by itself once another one has stopped."""
LOADING = 3600
"""Seconds in which the machines must load their data."""

HARMLESS = {"config", "workdir", "data", "data_dir", "traceback"}
"""Settings that may differ between machines; the content of the data and of the workdir must not."""

LOST = re.compile("gloo|nccl|connection (closed|reset)|socket closed|coordination service|UNAVAILABLE", re.IGNORECASE)
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_heard: list[dict[str, Any]] = []
_finished = threading.Event()


class Gone(Exception):
    """Another machine of the run has died or cannot be reached: exit code 75, as a new start loses nothing."""

    def __init__(self, *args: Any):
        super().__init__(*args or ["another machine of this run is gone; start it again on all"])


def join() -> None:
    """Start JAX's distributed runtime.

    Slurm, MPI, Kubernetes and TPU pods tell each process its number. Elsewhere the variables JAX_COORDINATOR_ADDRESS
    (host:port of the first machine), JAX_NUM_PROCESSES and JAX_PROCESS_ID do.

    Raises:
      UsageError: the number of this process is unknown, or the port of the first machine cannot be opened.
      Gone: the other machines do not join in time.
    """
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    count, number = (int(os.environ[name]) if os.environ.get(name, "").isdigit() else None for name in names)
    library = distributed._jax  # type: ignore[attr-defined]
    make = library.get_distributed_runtime_client
    library.get_distributed_runtime_client = functools.partial(make, missed_heartbeat_callback=_lost)  # else it aborts
    try:
        jax.distributed.initialize(
            num_processes=count,
            process_id=number,
            initialization_timeout=START,
            heartbeat_timeout_seconds=SILENCE,
        )
    except (ValueError, IndexError) as error:  # IndexError: an address without a port
        reason = str(error) if isinstance(error, ValueError) else "expected host:port of the first machine"
        raise UsageError(f"--distributed: {reason}; set JAX_COORDINATOR_ADDRESS, {' and '.join(names)}") from error
    except RuntimeError as error:
        if "RPC server" in str(error):
            address = os.environ.get("JAX_COORDINATOR_ADDRESS", "the first machine")
            raise UsageError(f"--distributed: the port of {address} cannot be opened; choose another") from error
        reason = "" if "bad_cast" in str(error) else f" ({str(error).splitlines()[0]})"  # how jaxlib tells of a timeout
        raise Gone(f"not all machines of this run came within {START} s{reason}; start it again on all") from error
    finally:
        library.get_distributed_runtime_client = make
    ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)
    listener = threading.Thread(target=_listen, name="machines", daemon=True)
    listener.start()
    atexit.register(listener.join)  # a thread that is within the client when Python ends aborts the process
    atexit.register(_finished.set)


def agree(settings: Run, facts: Mapping[str, Any]) -> None:
    """Compare what the processes are about to run; return when all run the same.

    Args:
      settings: settings of the run.
      facts: other values that must be equal, by name, such as the fingerprint of the data.

    Raises:
      UsageError: the processes differ; every one of them raises, naming what differs and where.
      Gone: a process does not come.
    """
    me = jax.process_index()
    _client().key_value_set(f"genjax/facts/{me}", json.dumps(_described(settings) | dict(facts), default=str))
    every = [json.loads(_wait_for(f"genjax/facts/{i}", i)) for i in range(jax.process_count())]
    differences = []
    for name in sorted(set().union(*every)):
        values = [str(one.get(name, "none")) for one in every]
        if len(set(values)) > 1:
            differences.append(f"  {name}: " + ", ".join(f"{value} on process {i}" for i, value in enumerate(values)))
    if differences:
        lines = "\n".join(differences)
        raise UsageError(f"the processes of this run do not agree; start all with the same:\n{lines}")


def verdict(error: BaseException, code: int, message: str) -> tuple[int, str]:
    """The exit code and the message of an error; those of another process, where its end caused the error."""
    if not jax.distributed.is_initialized() or isinstance(error, Gone):
        return code, message
    if LOST.search(str(error)) and code == 1:
        _until(lambda: bool(_heard), 2)
        return (_heard[0]["code"], _sentence(_heard[0])) if _heard else (75, str(Gone()))
    return code, message


def leave(code: int, message: str) -> None:
    """Tell the other processes why this one stops; the first process, which relays messages, leaves last."""
    if not jax.distributed.is_initialized() or code == 75:
        return
    client, me = _client(), distributed.global_state.process_id
    try:
        client.key_value_set("genjax/stopped", json.dumps({"process": me, "code": code, "message": message}))
    except Exception:  # another process was faster, or none is left
        pass
    _left()
    if me == 0:
        others = (distributed.global_state.num_processes or 1) - 1
        _until(lambda: len(client.key_value_dir_get("genjax/left/")) > others, GRACE + 5)


def _described(settings: Run) -> dict[str, Any]:
    chosen = {f"--{k.replace('_', '-')}": v for k, v in vars(settings).items() if k not in HARMLESS}
    kind = getattr(settings, "data", "").partition(":")
    source = hashlib.sha256()
    for path in sorted([*_ROOT.glob("genjax/**/*.py"), *_ROOT.glob("train/**/*.py")]):
        source.update(path.read_bytes())
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        **chosen,
        "kind of --data": kind[0] if kind[0] in ("folder", "npz", "codes") else "".join(kind),
        **{package: importlib.metadata.version(package) for package in packages},
        "python": ".".join(platform.python_version_tuple()[:2]),
        "source code": source.hexdigest()[:12],
        "devices": f"{jax.local_device_count()} {jax.local_devices()[0].device_kind}",
        "float64": jax.config.jax_enable_x64,  # type: ignore[attr-defined]
        "precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
    }


def _wait_for(key: str, process: int) -> str:
    end = time.monotonic() + LOADING
    while time.monotonic() < end:
        try:
            return _client().blocking_key_value_get(key, 1000)
        except Exception as error:
            if "DEADLINE" not in str(error) and "NOT_FOUND" not in str(error):
                raise Gone from error
    raise Gone(f"process {process} of this run did not come within {LOADING} s; start it again on all")


def _listen() -> None:
    """Wait for another process to stop; then end this one too, unless it ends by itself."""
    while not _finished.wait(0.5):
        try:
            stopped = json.loads(_client().key_value_try_get("genjax/stopped"))
        except Exception:  # no process has stopped
            continue
        if stopped["process"] == distributed.global_state.process_id:
            return
        _heard.append(stopped)
        if not _finished.wait(GRACE):
            terminal.write_line(_sentence(stopped), sys.stderr)
            _left()
            os._exit(stopped["code"])


def _lost(status: Any) -> None:
    stopped = _heard[0] if _heard else {"code": 75}
    terminal.write_line(_sentence(stopped) if _heard else str(Gone()), sys.stderr)
    os._exit(stopped["code"])


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    """Answer SIGABRT, which a thread of the runtime raises where the first machine can no longer be reached."""
    _lost(None)


def _sentence(stopped: Mapping[str, Any]) -> str:
    return f"process {stopped['process']} of this run stopped: {stopped['message']}"


def _left() -> None:
    try:
        _client().key_value_set(f"genjax/left/{distributed.global_state.process_id}", "1")
    except Exception:  # said before, or no process is left
        pass


def _client() -> Any:
    return distributed.global_state.client


def _until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if done():
                return
        except Exception:  # no process is left
            return
        time.sleep(0.1)
