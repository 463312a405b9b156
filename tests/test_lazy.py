"""Packages that import their modules at first use."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ["genjax.nn", "genjax.theory", "genjax.metrics", "genjax.envs"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_listed(package):
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    assert dir(module) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_no_attribute(package):
    module = importlib.import_module(package)
    assert not hasattr(module, "nothing")
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_a_module_is_imported_when_it_is_first_asked_for():
    program = """
import sys
import genjax.theory
assert "genjax.theory.markov" not in sys.modules and "jax" not in sys.modules
simulate = genjax.theory.markov.simulate
from genjax.theory import *
assert markov.simulate is simulate and information is genjax.theory.information
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
