"""Every entrance of the library, spoiled input by spoiled input: a value, a refusal, or what says that it is none."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_no_entrance_lets_a_wrong_number_through_and_the_page_says_what_each_does(tmp_path):
    """In a process of its own, without the type checks of the tests, as users have the library."""
    page = tmp_path / "entrances.md"
    out = subprocess.run(
        [sys.executable, ROOT / "tests" / "entrances.py", "--out", page], capture_output=True, text=True, cwd=tmp_path
    )
    assert out.returncode == 0, out.stdout + out.stderr
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "entrances.md").read_text(encoding="utf-8"), (
        "docs/entrances.md is not what happens; python tests/entrances.py writes it anew"
    )
