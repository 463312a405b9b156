"""Shapes and types of every function of genjax are checked at run time in the tests."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":  # what is tested is small, and most of the time would go into optimising it
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import pytest
from jaxtyping import install_import_hook

install_import_hook("genjax", "beartype.beartype")


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real data sets, named by the variable GENJAX_DATA."""
    path = os.environ.get("GENJAX_DATA", "")
    if not path:
        pytest.skip("GENJAX_DATA does not name a folder with the original MNIST, Fashion-MNIST, CIFAR-10 files")
    if not pathlib.Path(path).is_dir():
        pytest.skip(f"GENJAX_DATA={path} is not a folder")
    return pathlib.Path(path)
