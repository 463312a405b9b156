"""The entrance: what `import genjax` gives, and what it leaves alone."""

import importlib
import importlib.metadata
import pathlib
import subprocess
import sys
import tomllib

import pytest

import genjax

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ["data", "diffusion", "envs", "metrics", "models", "nn", "theory", "training"]
MODULES = ["genjax", *(f"genjax.{name}" for name in PACKAGES)]


def test_the_entrance_shows_the_version_and_every_package():
    folders = sorted(path.parent.name for path in (ROOT / "genjax").glob("*/__init__.py"))
    assert folders == PACKAGES and sorted(genjax.__all__) == ["__version__", *PACKAGES]


@pytest.mark.parametrize("name", MODULES)
def test_dir_shows_what_is_public_and_nothing_else(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__) > 0
    assert {entry for entry in dir(module) if not entry.startswith("__")} == {*module.__all__} - {"__version__"}
    assert {"__version__"} & {*dir(module)} == {"__version__"} & {*module.__all__}
    for entry in module.__all__:
        assert getattr(module, entry) is not None
    names = {}
    exec(f"from {name} import *", names)
    assert names.keys() >= {*module.__all__}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_the_version_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert genjax.__version__ == project["version"]


@pytest.mark.parametrize("beside", ["", '[project]\nname = "another"\nversion = "9.9"\n', "no TOML ["])
def test_without_a_pyproject_of_its_own_the_version_is_that_of_the_installed_package(tmp_path, monkeypatch, beside):
    if beside:
        (tmp_path / "pyproject.toml").write_text(beside)
    monkeypatch.setattr(genjax, "__file__", str(tmp_path / "genjax" / "__init__.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"jax-genmodels": "1.2.3"}[name])
    assert genjax.__version__ == "1.2.3"


def test_the_import_is_light_until_a_package_is_asked_for():
    script = """
import sys
before = set(sys.modules)
import genjax
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert new == {"genjax"}, new
assert "theory" in dir(genjax) and genjax.__version__ and "jax" not in sys.modules
assert callable(genjax.theory.information.entropy)
assert "jax" in sys.modules and not {"flax", "genjax.theory.markov", "genjax.models"} & {*sys.modules}
from genjax.theory import *
assert information is genjax.theory.information and markov is sys.modules["genjax.theory.markov"]
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
