"""``python -m train.huffman`` as a user runs it: real files, what goes wrong, what is left behind."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from genjax import data
from genjax.theory import huffman
from train import huffman as command
from train.run import config

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = b"it was the best of times, it was the worst of times; " * 40


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "train.huffman", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def call(*arguments):
    command.main([str(argument) for argument in arguments])


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "times.txt"
    path.write_bytes(TEXT)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_real_file_is_compressed_and_restored(tmp_path):
    source = ROOT / "genjax" / "theory" / "huffman.py"
    packed, again = tmp_path / "packed.huff", tmp_path / "again.py"
    code, out, err = run(source, "--out", packed)
    assert code == 0, err
    lines = out.splitlines()
    entropy, length, whole = (float(line.split()[-4]) for line in lines[:3])
    content = source.read_bytes()
    reference = scipy.stats.entropy(np.bincount(np.frombuffer(content, np.uint8)), base=2)
    assert abs(entropy - reference) < 1e-3 and entropy <= length < entropy + 1 and length < whole
    assert f"{len(content)} -> {packed.stat().st_size} bytes" in lines[3] and " s; it restores the file" in lines[3]
    code, out, err = run("--restore", packed, "--out", again)
    assert code == 0, err
    assert again.read_bytes() == content
    assert names(tmp_path) == ["again.py", "packed.huff"]


def test_a_damaged_file_is_one_line_and_exit_code_3(tmp_path):
    damaged = tmp_path / "damaged.huff"
    damaged.write_bytes(huffman.encode(TEXT)[:-1])
    code, out, err = run("--restore", damaged)
    assert code == 3 and not out and err.count("\n") == 1 and "damaged.huff: damaged or cut off" in err
    assert names(tmp_path) == ["damaged.huff"]


@pytest.mark.parametrize(
    "content", [b"", b"a", bytes(range(256)) * 3, TEXT], ids=["empty", "one byte", "all bytes", "text"]
)
def test_it_lies_beside_the_file_and_comes_back(tmp_path, content, capsys):
    source = tmp_path / "x.bin"
    source.write_bytes(content)
    call(source)
    assert "restores the file" in capsys.readouterr().out
    source.unlink()
    call(tmp_path / "x.bin.huff", "--restore")
    assert source.read_bytes() == content
    assert names(tmp_path) == ["x.bin", "x.bin.huff"]


def test_nothing_is_overwritten_unless_forced(tmp_path, source):
    out = tmp_path / "times.txt.huff"
    out.write_bytes(b"precious")
    with pytest.raises(config.UsageError, match="is there already.*--force"):
        call(source)
    assert out.read_bytes() == b"precious"
    call(source, "--force")
    source.write_bytes(b"changed since")
    with pytest.raises(config.UsageError, match="is there already"):
        call(out, "--restore")
    assert source.read_bytes() == b"changed since"
    call(out, "--restore", "--force")
    assert source.read_bytes() == TEXT


def test_a_file_is_not_replaced_by_its_own_code(tmp_path, source):
    (tmp_path / "other.txt").hardlink_to(source)
    os.mkfifo(tmp_path / "pipe")
    for out in (source, tmp_path / "." / "times.txt", tmp_path / "other.txt"):
        for argv in ([source, "--out", out, "--force"], [source, "--out", out]):
            with pytest.raises(config.UsageError, match="is the file itself"):
                call(*argv)
    with pytest.raises(config.UsageError, match="pipe: expected a plain file"):
        call(tmp_path / "pipe")
    assert source.read_bytes() == TEXT


def test_other_peoples_files_stay(tmp_path, source):
    for name in ("times.txt.huff.partial", "nowhere.huff.partial"):
        (tmp_path / name).write_bytes(b"precious")
    before = names(tmp_path)
    with pytest.raises(config.UsageError):
        call(tmp_path / "nowhere")
    call(source)
    assert names(tmp_path) == sorted([*before, "times.txt.huff"])
    assert (tmp_path / "times.txt.huff.partial").read_bytes() == b"precious"


def test_what_cannot_be_is_said_and_leaves_nothing(tmp_path, source, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for arguments, message in [
        (["nowhere"], "nowhere: No such file"),
        (["folder"], "folder is a folder"),
        (["."], "is a folder"),
        ([source, "--out", "folder", "--force"], "folder: is a folder"),
        ([source, "--out", "no/where"], "there is no folder"),
        ([source, "--restore"], "does not end in .huff"),
    ]:
        with pytest.raises(config.UsageError, match=message):
            call(*arguments)
    for content, message in [(b"", "does not begin"), (TEXT, "does not begin"), (huffman.encode(TEXT)[:-9], "damaged")]:
        (tmp_path / "x.huff").write_bytes(content)
        with pytest.raises(data.DataError, match=f"x.huff: .*{message}"):
            call("x.huff", "--restore")
    assert names(tmp_path) == ["folder", "times.txt", "x.huff"]


def test_a_code_that_does_not_restore_the_file_is_not_kept(tmp_path, source, monkeypatch, capsys):
    monkeypatch.setattr(huffman, "encode", lambda content, encode=huffman.encode: encode(content[:-1]))
    with pytest.raises(AssertionError, match="does not decode to the file"):
        call(source)
    assert names(tmp_path) == ["times.txt"] and not capsys.readouterr().out
