"""What is written is all there or not at all, in nobody else's file; and what could not be written is refused early."""

import fcntl
import os
import resource
import stat

import pytest

from train.run import config, files


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replace_writes_bytes_and_text_and_leaves_nothing_else(tmp_path):
    for content, expected in ((b"\x00\xff", b"\x00\xff"), ("±", "±".encode()), (b"", b"")):
        files.replace(tmp_path / "a.txt", content)
        assert (tmp_path / "a.txt").read_bytes() == expected and listing(tmp_path) == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_neighbours_with_the_names_of_half_written_files_stay(tmp_path):
    for name in ("a.partial", "a.png.partial", "a.tmp"):
        (tmp_path / name).write_text("mine")
    files.replace(tmp_path / "a.png", b"picture")
    assert listing(tmp_path) == ["a.partial", "a.png", "a.png.partial", "a.tmp"]
    assert {(tmp_path / name).read_text() for name in ("a.partial", "a.png.partial", "a.tmp")} == {"mine"}


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_neither_followed_nor_replaced(tmp_path, there):
    target = tmp_path / "target"
    if there:
        target.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="link"):
        files.replace(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and target.exists() == there
    assert not there or target.read_text() == "precious"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError):
            files.replace(tmp_path / "a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_bytes() == b"old" and listing(tmp_path) == ["a"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        files.replace(tmp_path / "folder", b"new")
    assert listing(tmp_path) == ["a", "folder"]


def test_leftovers_of_a_killed_write_go_and_what_is_being_written_stays(tmp_path):
    left, busy = tmp_path / ".0123456789abcdef.partial", tmp_path / ".fedcba9876543210.partial"
    for path in (left, busy, tmp_path / ".mine.partial", tmp_path / "a.partial"):
        path.write_text("")
    (tmp_path / ".00000000000000ab.partial").symlink_to(busy)
    with open(busy) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files.clean(tmp_path)
    assert listing(tmp_path) == [".00000000000000ab.partial", busy.name, ".mine.partial", "a.partial"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gif", "ends in .png or .npz"),
        ("no/a.png", "there is no folder"),
        ("folder.png", "is a folder"),
        ("link.png", "is a link to"),
        ("dangling.png", "is a link to"),
        ("pipe.png", "is a device or a pipe"),
        ("a\0.png", "null"),
        (252 * "x" + ".png", "too long"),
    ],
)
def test_an_output_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "old.png").write_text("old")
    (tmp_path / "link.png").symlink_to(tmp_path / "old.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    before = listing(tmp_path)
    with pytest.raises(config.UsageError, match=f"(?i)--out .*{words}"):
        files.check_output(f"{tmp_path}/{name}", (".png", ".npz"))
    assert listing(tmp_path) == before


def test_an_output_that_can_be_is_given_back_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "old.json").write_text("old")
    for given in ("a.json", "~/a.json", tmp_path / "a.json"):
        assert files.check_output(given, (".json",)) == tmp_path / "a.json"
    assert files.check_output("old.json") == tmp_path / "old.json"
    assert listing(tmp_path) == ["old.json"] and (tmp_path / "old.json").read_text() == "old"


def test_a_folder_that_cannot_be_written_to_is_refused():
    with pytest.raises(config.UsageError, match="cannot be written"):
        files.check_output("/proc/a.json")
