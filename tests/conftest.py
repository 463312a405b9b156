"""Shapes and types of every function of genjax are checked at run time in the tests; fixtures of several files.

The only conftest: pytest, looking for doctests, takes two files of one name for one module.
"""

import contextlib
import gzip
import importlib
import io
import os
import pathlib
import struct

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":  # what is tested is small, and most of the time would go into optimising it
    flags = "backend_optimization_level=0 llvm_disable_expensive_passes=true cpu_multi_thread_eigen=false"
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in flags.split()))

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

install_import_hook("genjax", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def forget_the_programs():
    """Programs of one file are of no use to the next, and thousands of them slow a worker down."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real data sets, named by the variable GENJAX_DATA."""
    path = os.environ.get("GENJAX_DATA", "")
    if not path:
        pytest.skip("GENJAX_DATA does not name a folder with the original MNIST, Fashion-MNIST, CIFAR-10 files")
    if not pathlib.Path(path).is_dir():
        pytest.skip(f"GENJAX_DATA={path} is not a folder")
    return pathlib.Path(path)


def run_command(script, *argv):
    """The exit code, what was printed, and the message of ``python -m train.SCRIPT ARGV``, no process."""
    from train.run import process  # after the hook above

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            importlib.import_module(f"train.{script}").main([str(part) for part in argv])
    except Exception as error:
        code = next(code for kind, code in process.EXIT_CODES if isinstance(error, kind))
        if code == 1:  # nothing that a command is meant to end with
            raise
        return code, printed.getvalue(), str(error)
    return 0, printed.getvalue(), ""


@pytest.fixture(scope="session")
def command():
    return run_command


def idx_encode(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def put_idx_files(folder, num_train=5, num_test=3, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, num in (("train", num_train), ("t10k", num_test)):
        label = np.arange(num, dtype=np.uint8)
        image = np.broadcast_to(label[:, None, None], (num, 4, 6))
        (folder / f"{name}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_encode(image)))
        (folder / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_encode(label)))


@pytest.fixture
def idx_bytes():
    """An array of bytes in the IDX format."""
    return idx_encode


@pytest.fixture
def put_mnist():
    """Puts the four files of MNIST into a folder: labels 0, 1, ..., and image i, 4 by 6 pixels, of level i."""
    return put_idx_files
