"""A folder of pictures: which, in what order, with which labels, and what when some are bad."""

import hashlib
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from genjax import data


def put(root, name, level=0, size=(4, 4)):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path, "PNG")


def levels(split):
    return split["image"][:, 0, 0, 0].tolist()


def test_all_images_below_are_found_in_the_order_of_their_bytes(tmp_path):
    names = [
        "b.png",
        "B.PNG",
        "a/z.JpEg",
        "a/b/c.gif",
        "a-b.png",
        "ä.png",
        "\U0001f600.png",
        "new\nline.png",
        "é/é.bmp",
    ]
    expected = sorted(names, key=lambda name: name.encode())
    for name in names:
        put(tmp_path, name, 10 * expected.index(name) + 1)
    for other in ("Thumbs.db", "notes.txt", ".hidden.png", ".cache/x.png", "a/.x/y.png", "archive.zip"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes(b"no picture")
    found = data.folder(tmp_path, 4, heldout_fraction=0.5)
    held = sorted(levels(found.heldout))
    assert levels(found.heldout) == held and levels(found.train) == sorted(levels(found.train))
    assert sorted(levels(found.train) + held) == [10 * i + 1 for i in range(len(names))]
    assert held == [
        10 * i + 1 for i, name in enumerate(expected) if int(hashlib.sha256(name.encode()).hexdigest(), 16) < 2**255
    ]


def test_names_that_are_no_text_are_read(tmp_path):
    put(tmp_path, "a.png")
    try:
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    except OSError:
        pytest.skip("this file system takes only text for names")
    assert len(data.folder(tmp_path, 4).train["image"]) == 1


def test_place_of_the_folder_does_not_matter(tmp_path):
    for place in ("here", "there/below"):
        for i in range(20):
            put(tmp_path / place, f"{i}.png", i)
    here, there = (data.fingerprint(data.folder(tmp_path / place, 4)) for place in ("here", "there/below"))
    assert here == there


def test_subfolders_are_classes_only_when_every_image_lies_in_one(tmp_path):
    for i, name in enumerate(["cat/1.png", "dog/1.png", "dog/2.png", "Ant/1.png"]):
        put(tmp_path, name, i)
    found = data.folder(tmp_path, 4, heldout_fraction=1e-6)
    label = [*found.train["label"], *found.heldout["label"]]
    level = levels(found.train) + levels(found.heldout)
    assert sorted(zip(level, label, strict=True)) == [(0, 1), (1, 2), (2, 2), (3, 0)]
    assert found.train["label"].dtype == np.int32
    put(tmp_path, "stray.png")
    assert "label" not in data.folder(tmp_path, 4).train


def test_mixed_sizes_and_modes_become_one_array(tmp_path):
    for i, size in enumerate([(1, 9), (30, 7), (64, 64), (5, 5)]):
        put(tmp_path, f"{i}.png", 9, size)
    Image.new("RGBA", (8, 8), (1, 2, 3, 0)).save(tmp_path / "4.png")
    found = data.folder(tmp_path, 6, channels=1, background=(9, 9, 9))
    assert found.train["image"].shape[1:] == (6, 6, 1) and found.train["image"].dtype == np.uint8
    assert set(np.unique(found.train["image"])) == {9}


def test_one_image_is_for_training(tmp_path):
    put(tmp_path, "only.png", 5)
    found = data.folder(tmp_path, 4)
    assert levels(found.train) == [5] and found.heldout["image"].shape == (0, 4, 4, 3)
    assert len(data.fingerprint(found)) == 64


def test_two_images_are_on_both_sides(tmp_path):
    put(tmp_path, "1.png"), put(tmp_path, "2.png")
    found = data.folder(tmp_path, 4)
    assert len(found.train["image"]) == len(found.heldout["image"]) == 1


def test_missing_and_empty_folders_are_data_errors(tmp_path):
    with pytest.raises(data.DataError, match="not a folder"):
        data.folder(tmp_path / "none", 4)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(data.DataError, match="not a folder"):
        data.folder(tmp_path / "notes.txt", 4)
    with pytest.raises(data.DataError, match="no images.*png"):
        data.folder(tmp_path, 4)


def test_arguments_out_of_range_are_named(tmp_path):
    put(tmp_path, "1.png")
    for arguments in ({"size": 0}, {"size": 4, "channels": 2}, {"size": 4, "heldout_fraction": 1.5}):
        with pytest.raises(ValueError, match="size, channels|heldout_fraction"):
            data.folder(tmp_path, **arguments)


def spoil(root):
    """Every kind of bad file; returns their names."""
    whole = (root / "0.png").read_bytes()
    (root / "half.png").write_bytes(whole[: len(whole) // 2])
    (root / "text.png").write_text("no picture")
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    return ["half.png", "text.png", "dangling.png"]


def test_all_bad_files_are_listed(tmp_path):
    put(tmp_path, "0.png")
    bad = spoil(tmp_path)
    with pytest.raises(data.DataError, match=r"3 of 4 images") as error:
        data.folder(tmp_path, 4)
    assert all(repr(name) in str(error.value) for name in bad) and "'0.png'" not in str(error.value)
    assert "on_bad_image" in str(error.value)


def test_folders_named_like_images_are_folders(tmp_path):
    put(tmp_path, "x.png/inside.png", 7)
    (tmp_path / "empty.png").mkdir()
    assert levels(data.folder(tmp_path, 4).train) == [7]


def test_few_bad_files_are_skipped_with_a_warning(tmp_path):
    for i in range(100):
        put(tmp_path, f"class{i % 2}/{i}.png", i)
    whole = data.folder(tmp_path, 4)
    put(tmp_path, "class0/bad.png")
    (tmp_path / "class0/bad.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"(?s)1 of 101 .*class0/bad.png"):
        found = data.folder(tmp_path, 4, on_bad_image="skip")
    assert data.fingerprint(found) == data.fingerprint(whole)


def test_many_bad_files_are_refused_even_so(tmp_path):
    for i in range(98):
        put(tmp_path, f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with warnings.catch_warnings(), pytest.raises(data.DataError, match="more than 1%"):
        warnings.simplefilter("ignore")
        data.folder(tmp_path, 4, on_bad_image="skip")


def test_loops_of_links_end(tmp_path):
    put(tmp_path, "a/1.png")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert len(data.folder(tmp_path, 4).train["image"]) == 1


def both(found):
    return len(found.train["image"]) + len(found.heldout["image"])


def test_what_is_left_out_is_counted_and_said(tmp_path):
    for i in range(6):
        put(tmp_path, f"class{i % 2}/{i}.png", i)
    whole = data.folder(tmp_path, 4)
    for name in ("a.heic", "b.HEIC", "c.heic", "Thumbs.db", "desktop.ini", "notes", "é.txt"):
        (tmp_path / "class0" / name).write_bytes(b"\xef\xbb\xbfwhatever")
    for name in (
        ".DS_Store",
        "._0.png",
        "~$0.png",
        ".nfs0001.png",
        ".fuse_hidden01.png",
        "__MACOSX/0.png",
        "@eaDir/0.jpg",
    ):
        put(tmp_path, f"class1/{name}")
    (tmp_path / "class1/empty.png").write_bytes(b"")
    found = data.folder(tmp_path, 4)
    assert data.fingerprint(found) == data.fingerprint(whole)
    rest = {".db": 1, ".ini": 1, ".txt": 1, "without suffix": 1, "empty": 1}
    assert found.left_out == {".heic": 3, "hidden": 7} | rest
    num = len(whole.train["image"])
    assert data.summary(whole) == f"{tmp_path.name}: {num} to train, {6 - num} held out, 2 classes"
    assert data.summary(found) == (
        f"{data.summary(whole)}; left out: 15 files (hidden 7, .heic 3, .db 1, .ini 1, .txt 1, empty 1, …)"
    )


def test_a_folder_of_nothing_that_can_be_read_says_what_is_there(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.heic").write_bytes(b"x")
    with pytest.raises(data.DataError, match=r"no images.*\.avif.*there are '\.heic' 3"):
        data.folder(tmp_path, 4)


def test_links_to_folders_are_followed_once(tmp_path):
    for name, level in (("a/1.png", 1), ("b/1.png", 2), ("there/1.png", 3)):
        put(tmp_path / ("pics" if name != "there/1.png" else "."), name, level)
    (tmp_path / "pics" / "c").symlink_to(tmp_path / "there")
    (tmp_path / "pics" / "d").symlink_to(tmp_path / "pics" / "a")  # read already
    (tmp_path / "there" / "loop").symlink_to(tmp_path / "pics")
    (tmp_path / "pics" / "0").symlink_to(tmp_path / "pics")
    found = data.folder(tmp_path / "pics", 4)
    label = [*found.train["label"], *found.heldout["label"]]
    assert sorted(zip(levels(found.train) + levels(found.heldout), label, strict=True)) == [(1, 0), (2, 1), (3, 2)]


def test_many_links_to_one_folder_are_one(tmp_path):
    put(tmp_path / "there", "1.png")
    (tmp_path / "pics").mkdir()
    for name in "zay":
        (tmp_path / "pics" / name).symlink_to(tmp_path / "there")
    assert both(data.folder(tmp_path / "pics", 4)) == 1


def test_names_with_commands_for_a_terminal_are_printed_harmlessly(tmp_path):
    root = tmp_path / "a\x1b[31m"
    put(root, "x.png", 3)
    (root / "bad\x1b]0;owned\x07.png").write_bytes(b"no picture")
    (root / "x.\x1b[2J").write_bytes(b"x")
    with pytest.raises(data.DataError) as error:
        data.folder(root, 4)
    (root / "bad\x1b]0;owned\x07.png").unlink()
    for text in (str(error.value), data.summary(data.folder(root, 4))):
        assert text.replace("\n", "").isprintable() and "x1b" in text
