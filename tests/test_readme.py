"""The README's code runs as printed."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_code_of_the_readme_runs(number):
    names = {}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)
    if "drawn" in names:
        assert names["drawn"].shape == (16, 8, 8, 1) and names["metrics"]["loss"][-1] < names["metrics"]["loss"][0]


def test_the_library_fits_in_fifteen_lines():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15


def test_every_file_the_readme_names_exists():
    root = pathlib.Path(__file__).parent.parent
    for name in re.findall(r"`((?:tests|train|genjax)/[\w/.]+)`", README) + re.findall(r"\]\(([\w/.]+)\)", README):
        assert (root / name).exists(), name
