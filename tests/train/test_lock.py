"""One run per folder, and a folder that can be written to, before anything slow begins."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from train.checkpoint import lock

ROOT = pathlib.Path(__file__).parents[2]
HOLDER = """
import sys, time
from train.checkpoint import lock
with lock.lock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def another_run(folder):
    run = subprocess.Popen([sys.executable, "-c", HOLDER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None and run.stdout.readline() == "locked\n"
        yield run
    finally:
        run.kill()
        run.communicate()


def test_second_run_is_refused_at_once_by_pid_and_host_and_a_killed_one_leaves_no_lock(tmp_path):
    with another_run(tmp_path) as run:
        started = time.monotonic()
        with pytest.raises(lock.WorkdirError, match=f"pid {run.pid} on {socket.gethostname()}"):
            with lock.lock(tmp_path):
                pass
        with pytest.raises(lock.WorkdirError):
            with lock.hold(tmp_path):
                pass
        assert time.monotonic() - started < 1
    with lock.lock(tmp_path) as path:
        assert path == tmp_path


def test_lock_excludes_within_a_process_and_ends_with_its_block(tmp_path):
    with lock.lock(tmp_path):
        with pytest.raises(lock.WorkdirError, match=f"pid {os.getpid()} "), lock.lock(tmp_path):
            pass
    with lock.lock(tmp_path):
        pass


def test_hold_takes_the_lock_or_shares_that_of_its_own_process(tmp_path):
    with lock.lock(tmp_path), lock.hold(tmp_path) as path:
        assert path == tmp_path
    with lock.hold(tmp_path):
        with pytest.raises(lock.WorkdirError), lock.lock(tmp_path):
            pass


@pytest.mark.parametrize("note", [b"", b"not json", b"[1]", b'{"pid": 1}'])
def test_unreadable_note_in_the_lock_file_still_refuses(tmp_path, note):
    with lock.lock(tmp_path):
        (tmp_path / ".lock").write_bytes(note)
        with pytest.raises(lock.WorkdirError, match="another run"), lock.hold(tmp_path):
            pass


def test_stale_note_of_this_very_pid_is_not_taken_for_a_lock(tmp_path):
    with lock.lock(tmp_path):
        pass
    assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    with lock.hold(tmp_path):  # takes the lock, for the note alone is none
        with pytest.raises(lock.WorkdirError), lock.lock(tmp_path):
            pass


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_file_instead_of_a_folder_is_refused(tmp_path, where):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(lock.WorkdirError, match="expected a folder, got a file"), lock.lock(tmp_path / where):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_lock_file_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(lock.WorkdirError), lock.lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("options, reason", [("ro", "Read-only file system"), ("size=4k,nr_inodes=2", "No space left")])
def test_folder_that_cannot_be_written_to_is_refused_before_anything(tmp_path, options, reason):
    program = "import sys; from train.checkpoint import lock\ntry: lock.lock(sys.argv[1]).__enter__()\n"
    program += "except lock.WorkdirError as error: print(error)"
    fill = "" if options == "ro" else f"touch {tmp_path}/a {tmp_path}/b 2>/dev/null;"
    command = (
        f"mount -t tmpfs -o {options} tmpfs {tmp_path} || exit 77; {fill} {sys.executable} -c '{program}' {tmp_path}"
    )
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no right to mount a file system here")
    assert "cannot be written to" in done.stdout and reason in done.stdout, done
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["mine", "[1]", '{"a": 1}'])
def test_lock_file_that_no_run_wrote_is_not_overwritten(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    with pytest.raises(lock.WorkdirError, match="no run wrote"), lock.lock(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == text


def test_name_that_no_folder_can_have_is_refused():
    with pytest.raises(lock.WorkdirError, match="null"):
        lock.resolve("a\0b")
    with pytest.raises(lock.WorkdirError, match=r"a\\udcff: .* surrogates"):
        lock.resolve("a\udcff")  # a byte that is no UTF-8, which orbax would trip over at the first save


def test_held_is_false_once_the_folder_is_another(tmp_path):
    with lock.lock(tmp_path / "run") as path:
        assert lock.held(path)
        (path / ".lock").rename(tmp_path / "kept")
        assert not lock.held(path)
        (path / ".lock").write_text("another's")
        assert not lock.held(path)
        (tmp_path / "kept").replace(path / ".lock")
        assert lock.held(path)
