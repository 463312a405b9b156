"""States to save, folders with steps, and fixtures of the tests of checkpoints."""

import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from train.checkpoint import manifest, store

ROOT = pathlib.Path(__file__).parents[2]


class TrainState(NamedTuple):
    step: Any
    params: Any
    ema_params: Any
    opt_state: Any


OPTIMIZER = optax.multi_transform({"a": optax.adam(1e-3), "b": optax.sgd(1e-2)}, {"Dense_0": "a", "Dense_1": "b"})


def state_at(step, width=3):
    def layer(i):
        kernel = jax.random.normal(jax.random.key(step + i), (2, width))
        return {"kernel": kernel, "bias": jnp.full(width, step, jnp.bfloat16), "none": jnp.zeros((0, width))}

    params = {"Dense_0": layer(0), "Dense_1": layer(1)}
    return TrainState(jnp.int32(step), params, jax.tree.map(jnp.negative, params), OPTIMIZER.init(params))


def save(folder, *steps, run_id="run", **options):
    with store.Checkpoints(folder, run_id=run_id, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step), {"loss": 0.1 * step})
    return folder / "checkpoints"


def restored(checkpoints, template):
    found = checkpoints.restore(template)
    assert found is not None
    return found


def same(found, step):
    return found.step == step and store.digest(found.state) == store.digest(state_at(step))


def listing(root):
    return sorted(path.name for path in root.iterdir())


def everything(folder):
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in [folder, *folder.rglob("*")]}


@pytest.fixture(scope="session")
def steps(tmp_path_factory):
    """A workdir with steps 2 and 4, to be copied."""
    folder = tmp_path_factory.mktemp("steps")
    save(folder, 2, 4)
    return folder


@pytest.fixture
def workdir(steps, tmp_path):
    return shutil.copytree(steps, tmp_path / "run")


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def opened(workdir, warnings):
    with store.Checkpoints(workdir, run_id="run", on_warning=warnings.append) as checkpoints:
        yield checkpoints


def reseal(folder, **changes):
    """What somebody does who knows the format: change the step, and make manifest and seal fit."""
    record = manifest.Manifest(**json.loads((folder / "manifest.json").read_text()))
    manifest.seal(folder, record._replace(**changes))


FIXTURES = steps, workdir, warnings, opened
"""Fixtures, to be assigned to the same names in a module of tests."""
