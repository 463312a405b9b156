"""The process around a command: signals, streams, exit codes, the environments that it finds itself in."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from train.run import files, signals
from train.run import process as run_process

ROOT = pathlib.Path(__file__).parents[2]
WAITING = """
import sys
import jax, jax.numpy as jnp
from train.run import process, signals
signals.GRACE = 1.0

def for_ever():
    return jax.jit(lambda: jax.lax.while_loop(lambda x: x >= 0, lambda x: (x * 5 + 3) % 7, 0))()

def script(argv):
    with signals.on_sigterm():
        print("waiting", flush=True)
        for_ever().block_until_ready()

process.main(script, [])
"""


def environment(**more):
    """A command's own: nothing of the tests' flags for XLA, and no cache."""
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "XDG_CACHE_HOME")}
    return env | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": "", "PYTHONPATH": str(ROOT)} | more


def start(*command, **options):
    options = {"cwd": ROOT, "env": environment(), "text": True, "stdout": -1, "stderr": -1} | options
    return subprocess.Popen([sys.executable, *map(str, command)], **options)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_call_that_never_comes_back_is_ended_by_a_signal(number, code):
    process = start("-c", WAITING)
    assert process.stdout.readline() == "waiting\n"
    time.sleep(1)  # for the program to be compiled; the signal is answered before, too
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    (line,) = err.splitlines()
    assert line.startswith(f"{number.name}: no answer for 1 s from ") and "ended without saving" in line, line


def test_a_second_signal_ends_it_at_once():
    process = start("-c", WAITING.replace("GRACE = 1.0", "GRACE = 1e6"))
    process.stdout.readline()
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.parametrize("restart", [False, True])
def test_who_is_interrupted_is_told_which_command_goes_on(restart):
    """With --restart the same command would delete what it is to go on from."""
    with pytest.raises(KeyboardInterrupt) as caught, signals.on_sigterm(restart):
        raise KeyboardInterrupt
    assert ("without --restart" in str(caught.value)) == restart and "goes on from the last" in str(caught.value)
    assert run_process._message(caught.value) == str(caught.value)
    assert run_process._message(KeyboardInterrupt()) == "interrupted"


def test_an_interrupt_while_a_command_imports_is_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("import time; print('importing', flush=True); time.sleep(600)")
    process = start("-m", "train.sample", env=environment(PYTHONPATH=str(tmp_path)))
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "interrupted\n") and process.returncode == 130


def test_who_imports_train_keeps_the_handlers():
    script = "import signal, train; assert signal.getsignal(signal.SIGINT) == signal.default_int_handler"
    process = start("-c", script)
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 0


TELL = (
    "from train.run import terminal; terminal.prepare(); "
    "terminal.write_line('a ± b'); terminal.write_line('±'); terminal.write_line('end')"
)


@pytest.mark.parametrize(
    ("shell", "env", "said"),
    [
        ("", {"PYTHONIOENCODING": "ascii"}, "a ? b\n?\nend\n"),
        ("", {"PYTHONIOENCODING": "ascii:surrogateescape"}, "a ? b\n?\nend\n"),
        ("", {"PYTHONIOENCODING": "latin-1"}, "a \xb1 b\n\xb1\nend\n"),
        ("| head -1", {"PYTHONIOENCODING": "utf-8"}, "a ± b\n"),
        (">&-", {}, ""),
        ("<&- >&- 2>&-", {}, ""),
        (">/dev/full", {}, "warning: stdout cannot be written to (No space left on device); nothing more is shown"),
    ],
)
def test_nothing_said_can_end_a_command(shell, env, said):
    command = f'set -o pipefail; "{sys.executable}" -c "{TELL}" {shell}'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment(**env), capture_output=True, timeout=60)
    encoding = "latin-1" if "latin" in str(env) else "utf-8"
    found = (done.stdout + done.stderr).decode(encoding)
    assert (found == said or said.startswith("warning") and found.startswith(said)) and done.returncode == 0


def test_help_into_a_pipe_that_nobody_reads_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    process = start("-m", "train.sample", "--help", stdout=writer, env=environment(PYTHONIOENCODING="ascii"))
    os.close(writer)
    assert process.communicate(timeout=120)[1] == "" and process.returncode in (0, 141)


def test_what_would_move_the_cursor_is_written_out():
    assert files.shown("a\x1b[31m\r\x07b\u202e\udc80 é\tc\n", keep="\n\t") == "a\\x1b[31m\\r\\x07b\\u202e\\udc80 é\tc\n"


def test_without_a_home_nothing_is_kept_and_nothing_fails(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pathlib.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    run_process.remember_compilations()


CACHED = """
import jax
from train.run import process
process.remember_compilations()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
def cached(x): return x * 2 + 1
print(jax.jit(cached)(1.0))
"""


def test_a_damaged_entry_of_the_compilation_cache_is_written_anew(tmp_path):
    env = environment(XDG_CACHE_HOME=str(tmp_path))
    del env["JAX_COMPILATION_CACHE_DIR"]
    run = lambda: subprocess.run(
        [sys.executable, "-c", CACHED], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert run().stderr == ""
    entries = list((tmp_path / "genjax" / "xla").glob("jit_cached-*"))
    whole = {path: path.stat().st_size for path in entries}
    assert whole
    for path in entries:
        path.write_bytes(path.read_bytes()[:9])
    again = run()
    assert again.stdout == "3.0\n" and again.stderr == ""
    assert {path: path.stat().st_size for path in entries} == whole


def test_a_command_imports_nothing_of_the_folder_that_it_stands_in(tmp_path):
    """``python -m`` looks there first, and a folder that somebody handed over may hold a jax.py."""
    for name in ("jax", "array_record", "tensorboardX", "orbax"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    process = start("-m", "train.evaluate", "--workdir", ".", cwd=tmp_path)
    assert "holds no run" in process.communicate()[1] and process.returncode == 4
    assert not (tmp_path / "mark").exists()
