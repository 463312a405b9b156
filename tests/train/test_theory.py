"""The figures and the numbers of the theory, as a user makes them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from train import theory
from train.run import config

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


def test_files_of_others_are_not_overwritten(drawn, tmp_path):
    """A folder of its own is drawn anew; where somebody's picture or numbers lie, nothing is."""
    assert theory._is_own(drawn[0] / "numbers.json")
    for name, content in (("coin.png", "mine"), ("numbers.json", "[1, 2]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(config.UsageError, match="did not write"):
            theory.main(["--workdir", str(tmp_path)])
        assert (tmp_path / name).read_text() == content
