"""The commands of the theory, as a user runs them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent.parent


def command(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", f"train.{script}", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theory")
    code, out, err = command("theory", "--workdir", folder)
    assert code == 0, err
    return folder, out


def test_every_figure_is_drawn(drawn):
    for name in ("coin", "divergence", "likelihood", "bound", "chain", "code-lengths"):
        with Image.open(drawn[0] / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20, name


def test_every_number_is_the_notes(drawn):
    rows = json.loads((drawn[0] / "numbers.json").read_text())
    assert len(rows) == 19
    for row in rows:
        printed = {"no": "0"}.get(row["notes"], row["notes"]).split("=")[-1].strip()
        digits = len(printed.partition(".")[2])
        assert abs(float(row["here"]) - float(printed)) <= 0.5 * 10**-digits or row["here"] == printed, row
        assert row["what"] in drawn[1]


def test_a_file_is_compressed_and_restored(tmp_path):
    source = ROOT / "README.md"
    packed, again = tmp_path / "README.huff", tmp_path / "README"
    code, out, err = command("huffman", source, "--out", packed)
    assert code == 0, err
    numbers = {line.rpartition("   ")[0].strip(): float(line.split()[-4]) for line in out.splitlines()[:3]}
    entropy, ours, whole = (numbers[k] for k in ("entropy of the bytes", "Huffman's code", "the file with header"))
    counts = np.bincount(np.frombuffer(source.read_bytes(), np.uint8))
    p = counts[counts > 0] / counts.sum()
    assert abs(entropy + (p * np.log2(p)).sum()) < 1e-3 and entropy <= ours < entropy + 1 and ours < whole
    assert packed.stat().st_size * 8 / source.stat().st_size == pytest.approx(whole, abs=1e-3)
    assert command("huffman", packed, "--restore")[0] == 0 and again.read_bytes() == source.read_bytes()

    before = again.read_bytes()
    code, _, err = command("huffman", packed, "--restore")
    assert code == 2 and "is there already" in err and "Traceback" not in err
    packed.write_bytes(packed.read_bytes()[:-1])
    code, _, err = command("huffman", packed, "--restore", "--force")
    assert code == 3 and "damaged or cut off" in err and again.read_bytes() == before
    code, _, err = command("huffman", tmp_path / "nowhere")
    assert code == 2 and "No such file" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README", "README.huff"]
