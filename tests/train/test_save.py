"""What was saved comes back bit for bit; and what could not come back is refused before it is written."""

import contextlib
import json
import resource
import subprocess
import sys
import threading
import time
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import FIXTURES, ROOT, TrainState, everything, listing, restored, same, state_at
from hypothesis import strategies as st

from train.checkpoint import arrays, store

steps, workdir, warnings, opened = FIXTURES


# ---------------------------------------------------------------- identity

dtypes = st.sampled_from(["float32", "bfloat16", "float16", "int32", "uint32", "int8", "bool", "float64", "complex64"])
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
leaves = st.builds(
    lambda dtype, shape, n: np.full(shape, n).astype(jnp.dtype(dtype)), dtypes, shapes, st.integers(0, 99)
)
keys = st.text("abc_0", min_size=1, max_size=3)
trees = st.recursive(
    leaves | st.none(),
    lambda child: st.dictionaries(keys, child, max_size=3) | st.lists(child, max_size=3) | st.tuples(child, child),
    max_leaves=6,
)
metas = st.dictionaries(
    st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text() | st.none()
)


@hypothesis.settings(max_examples=15, deadline=None, derandomize=True, database=None)
@hypothesis.given(tree=trees, meta=metas)
def test_restore_after_save_is_the_identity(tmp_path_factory, tree, meta):
    state = TrainState(np.uint32(7), tree, {}, [np.float32(0.1)])
    folder = tmp_path_factory.mktemp("identity")
    with store.Checkpoints(folder, run_id="run") as checkpoints:
        checkpoints.save(7, state, meta)
        step, found, back = restored(checkpoints, jax.tree.map(np.zeros_like, state))
    assert step == 7 and back == meta and str(jax.tree.structure(found)) == str(jax.tree.structure(state))
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
        assert type(new) is np.ndarray and (new.dtype, new.shape) == (old.dtype, old.shape)
        assert new.tobytes() == np.asarray(old).tobytes()


def test_state_of_an_optimizer_with_labels_comes_back(workdir, opened):
    step, state, meta = opened.restore(jax.eval_shape(lambda: state_at(0)))
    assert step == 4 and meta == {"loss": 0.1 * 4}
    jax.tree.map(np.testing.assert_array_equal, state, jax.device_get(state_at(4)))


def test_no_steps_are_no_error(tmp_path):
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        assert checkpoints.restore(state_at(0)) is None


def test_steps_are_ordinary_orbax_checkpoints(workdir):
    import orbax.checkpoint as ocp

    item = {"params": {"Dense_0": {"kernel": np.zeros((2, 3), np.float32)}}}
    with ocp.CheckpointManager(workdir / "checkpoints", item_handlers=ocp.PyTreeCheckpointHandler()) as reader:
        assert reader.latest_step() == 4
    with ocp.CheckpointManager(workdir / "checkpoints") as reader:
        args = ocp.args.Composite(state=ocp.args.PyTreeRestore(item, partial_restore=True))
        kernel = reader.restore(4, args=args).state["params"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(kernel, state_at(4).params["Dense_0"]["kernel"])


# ---------------------------------------------------------------- digest


def test_digest_changes_with_every_bit_type_shape_and_name():
    tree: dict[str, Any] = {"a": np.zeros((2, 2), np.float32), "b": [np.zeros(0, np.int32), np.zeros((), jnp.bfloat16)]}
    one = np.float32(-0.0)  # equals 0.0, but is not the same
    others = [
        {**tree, "a": np.zeros((4, 1), np.float32)},
        {**tree, "a": np.zeros((2, 2), np.int32)},
        {**tree, "a": np.array([[0, 0], [0, one]], np.float32)},
        {**tree, "b": [np.zeros((0, 2), np.int32), np.zeros((), jnp.bfloat16)]},
        {**tree, "b": [np.zeros(0, np.int32), np.ones((), jnp.bfloat16)]},
        {"c": tree["a"], "b": tree["b"]},
        {"a": tree["a"]},
    ]
    assert len({store.digest(each) for each in [tree, *others]}) == len(others) + 1
    assert store.digest(jax.tree.map(jnp.asarray, tree)) == store.digest(tree)
    assert store.digest({"b": tree["b"], "a": tree["a"][:, ::-1]}) == store.digest(tree)


def test_digest_in_the_manifest_is_that_of_the_state(workdir):
    record = json.loads((workdir / "checkpoints/4/manifest.json").read_text())
    assert record["digest"] == store.digest(state_at(4))


# ---------------------------------------------------------------- saving


def test_save_returns_before_the_disk_and_keeps_what_was_there_when_called(tmp_path, monkeypatch):
    gate, write = threading.Event(), arrays.write
    monkeypatch.setattr(arrays, "write", lambda *args: (gate.wait(), write(*args)))
    advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state, expected = state_at(1), store.digest(state_at(1))
    on_host, seen = np.zeros(3), [1]
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        checkpoints.save(1, (state, on_host), {"seen": seen})
        state = jax.block_until_ready(advance(state))
        on_host += 1
        seen.append(2)
        checkpoints.check()
        assert listing(tmp_path / "checkpoints") == []
        gate.set()
        checkpoints.wait()
        step, (found, array), meta = restored(checkpoints, (state, on_host))
        assert store.digest(found) == expected != store.digest(state)
        assert not array.any() and meta == {"seen": [1]}


def test_latest_and_best_are_kept_and_the_best_never_evict_the_latest(tmp_path):
    scores = {1: 5.0, 2: 1.0, 3: 4.0, 4: float("nan"), 5: None, 6: 2.0, 7: 9.0}
    kept = []
    with store.Checkpoints(tmp_path, run_id="run", keep_latest=2, keep_best=1) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, {"step": np.int32(step)}, {}, score=score)
            checkpoints.wait()
            kept.append(listing(tmp_path / "checkpoints"))
    assert kept == [["1"], ["1", "2"], ["2", "3"], ["2", "3", "4"], ["2", "4", "5"], ["2", "5", "6"], ["2", "6", "7"]]
    with store.Checkpoints(tmp_path, run_id="run", keep_latest=1, keep_best=2) as checkpoints:
        checkpoints.save(8, {"step": np.int32(8)}, {}, score=1.0)  # the scores of the run before still count
        checkpoints.wait()
        assert listing(tmp_path / "checkpoints") == ["2", "8"]
    assert store.read(tmp_path, {"step": np.int32(0)}, step="best").step == 8  # of equals the newer
    assert store.read(tmp_path, {"step": np.int32(0)}, step=2).step == 2
    with pytest.raises(store.CheckpointError, match="there is no 3 step; there are 8, 2"):
        store.read(tmp_path, {"step": np.int32(0)}, step=3)


def test_step_that_is_not_newer_is_an_error_and_never_skipped_silently(workdir, opened):
    opened.save(4, state_at(4), {})  # the same again: nothing to do
    for step, state in (4, state_at(5)), (3, state_at(3)):
        with pytest.raises(store.CheckpointError, match="not newer"):
            opened.save(step, state, {})
    assert listing(workdir / "checkpoints") == ["2", "4"] and same(opened.restore(state_at(0)), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_state_that_is_not_finite_is_refused_by_name(workdir, opened, value, dtype):
    before = everything(workdir)
    bad = state_at(6)._replace(ema_params={"w": jnp.array([0, value], dtype)})
    with pytest.raises(store.NonFiniteState, match="ema_params/w"):
        opened.save(6, bad, {})
    assert everything(workdir) == before


@pytest.mark.parametrize(
    "state, meta",
    [
        ({"a": np.ones(1)}, {"loss": float("nan")}),
        ({"a": np.ones(1)}, {"shape": (1, 2)}),
        ({"a": np.ones(1)}, {1: "one"}),
        ({"a": np.ones(1)}, {"x": np.float32(1)}),
        ({"a": "text"}, {}),
        ({"a": jax.random.key(0)}, {}),
        ({"a/b": np.ones(1)}, {}),
        ({"a.b": np.ones(1), "a": {"b": np.ones(1)}}, {}),
    ],
)
def test_what_could_not_come_back_as_it_was_is_refused(opened, state, meta):
    with pytest.raises(ValueError, match="expected"):
        opened.save(9, state, meta)


@pytest.mark.parametrize("options", [{"keep_latest": 0}, {"keep_best": -1}])
def test_keeping_nothing_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match="expected"):
        store.Checkpoints(tmp_path, run_id="run", **options)


# ---------------------------------------------------------------- a disk that fails


@contextlib.contextmanager
def largest_file(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_failed_save_is_reported_once_and_leaves_the_older_steps_and_nothing_else(tmp_path):
    big = {"a": np.random.default_rng(0).normal(size=200_000)}
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        checkpoints.save(1, big, {})
        checkpoints.wait()
        with largest_file(1 << 20):
            checkpoints.save(2, big, {})
            with pytest.raises(store.CheckpointError, match=r"checkpoints/2 could not be saved.*are intact"):
                checkpoints.wait()
            checkpoints.check()
            assert listing(tmp_path / "checkpoints") == ["1"]
            checkpoints.save(2, big, {})
            while (last := checkpoints._last) and not last.done():
                time.sleep(0.01)
            with pytest.raises(store.CheckpointError, match="could not be saved"):
                checkpoints.check()
        assert restored(checkpoints, big).step == 1
        checkpoints.save(2, big, {})
        checkpoints.wait()
        assert listing(tmp_path / "checkpoints") == ["1", "2"] and restored(checkpoints, big).step == 2


def test_failure_of_the_last_save_ends_the_block_but_does_not_hide_another_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "write", full)
    warnings: list[str] = []
    with pytest.raises(store.CheckpointError, match="No space left"):
        with store.Checkpoints(tmp_path, run_id="run", on_warning=warnings.append) as checkpoints:
            checkpoints.save(1, state_at(1), {})
    with pytest.raises(KeyError):
        with store.Checkpoints(tmp_path, run_id="run", on_warning=warnings.append) as checkpoints:
            checkpoints.save(1, state_at(1), {})
            raise KeyError
    assert len(warnings) == 1 and "No space left" in warnings[0]


FULL = """
import resource, sys
import numpy as np
from train.checkpoint import store
assert "orbax" not in sys.modules, "half a second that a mistyped flag need not wait for"
state = {"a": np.random.default_rng(0).normal(size=200_000)}
with store.Checkpoints(sys.argv[1], run_id="run") as checkpoints:
    for step in range(100):
        checkpoints.save(step, {**state, "b": np.zeros(step + 1)}, {})
"""


def test_program_on_a_full_disk_says_so_in_one_line_and_ends(tmp_path):
    command = f'mount -t tmpfs -o size=4m tmpfs {tmp_path} || exit 77; "$0" -c "$1" {tmp_path}; code=$?'
    command += f"; ls {tmp_path}/checkpoints; exit $code"
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command, sys.executable, FULL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no right to mount a file system here")
    assert done.returncode == 1 and done.stdout.split() == ["0", "1"], done
    assert "CheckpointError" in done.stderr.splitlines()[-1] and "No space left" in done.stderr.splitlines()[-1], done
    assert "absl" not in done.stderr and "WARNING" not in done.stderr
