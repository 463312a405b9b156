"""What was saved comes back bit for bit, or not at all: under kills, damage, full disks, strangers and malice."""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

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


# ---------------------------------------------------------------- identity

dtypes = st.sampled_from(["float32", "bfloat16", "float16", "int32", "uint32", "int8", "bool", "float64", "complex64"])
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
arrays = st.builds(
    lambda dtype, shape, n: np.full(shape, n).astype(jnp.dtype(dtype)), dtypes, shapes, st.integers(0, 99)
)
keys = st.text("abc_0", min_size=1, max_size=3)
trees = st.recursive(
    arrays | st.none(),
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
    gate, write = threading.Event(), store._write
    monkeypatch.setattr(saved_store, "_write", lambda *args: (gate.wait(), write(*args)))
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
    with pytest.raises(store.NonFinite, match="ema_params/w"):
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

    monkeypatch.setattr(saved_store, "_write", full)
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


# ---------------------------------------------------------------- kills

KILLED = """
import os, pathlib, shutil, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, "tests/train")
import numpy as np
from train.checkpoint import manifest, steps, store
store._orbax()
template, target = map(pathlib.Path, sys.argv[1:])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

def when(module, name, condition, after=False):
    original = getattr(module, name)
    def patched(*args, **options):
        hit = condition(*args, **options)
        if hit and not after: die()
        result = original(*args, **options)
        if hit: die()
        return result
    setattr(module, name, patched)

def mid_write():
    write = store._write
    def patched(folder, state):
        def watch():
            while not any(path.is_file() for path in folder.parent.glob("6.partial.*/**/*")): time.sleep(0.0005)
            die()
        threading.Thread(target=watch).start()
        write(folder, state)
    store._write = patched

points = {
    "mid-write": mid_write,
    "written": lambda: when(manifest, "seal", lambda *_, **__: True),
    "before-manifest": lambda: when(manifest, "_write", lambda path, *_, **__: path.name == "manifest.json"),
    "before-seal": lambda: when(manifest, "_write", lambda path, *_, **__: path.name == "manifest.sha256"),
    "sealed": lambda: when(manifest, "seal", lambda *_, **__: True, after=True),
    "committed": lambda: when(os, "rename", lambda _, to: pathlib.Path(to).name == "6", after=True),
    "before-prune": lambda: when(store.Checkpoints, "_prune", lambda *_, **__: True),
    "mid-prune": lambda: when(shutil, "rmtree", lambda path, **_: path.name == "2.pruned"),
    "pruned": lambda: when(store.Checkpoints, "_prune", lambda *_, **__: True, after=True),
}
for name, arrange in points.items():
    shutil.copytree(template, target / name)
    if os.fork() == 0:
        arrange()
        with store.Checkpoints(target / name, run_id="run") as checkpoints:
            checkpoints.save(6, {"step": np.int32(6), "big": np.arange(1 << 18) * 0.1}, {})
        os._exit(0)
    _, status = os.wait()
    print(name, os.waitstatus_to_exitcode(status))
"""


def killed_state(step):
    return {"step": np.int32(step), "big": np.arange(1 << 18) * 0.1}


def test_kill_at_any_moment_of_a_save_leaves_a_whole_step_and_the_next_run_tidies_up(tmp_path):
    with store.Checkpoints(tmp_path / "before", run_id="run") as checkpoints:
        for step in 2, 4:
            checkpoints.save(step, killed_state(step), {})
    command = [sys.executable, "-c", KILLED, tmp_path / "before", tmp_path / "after"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    outcomes = dict(line.split() for line in done.stdout.splitlines())
    assert len(outcomes) == 9 and set(outcomes.values()) == {"-9"}, done
    found = {}
    for name in outcomes:
        root = tmp_path / "after" / name / "checkpoints"
        warnings: list[str] = []
        left = listing(root)
        with store.Checkpoints(root.parent, run_id="run", on_warning=warnings.append) as checkpoints:
            found[name], state, _ = restored(checkpoints, killed_state(0))
            assert store.digest(state) == store.digest(killed_state(found[name])) and not warnings
            tidy = listing(root)
            for step in 6, 8:
                checkpoints.save(step, killed_state(step), {})
        assert tidy == (["2", "4"] if found[name] == 4 else ["4", "6"]), (name, left, tidy)
        assert listing(root) == ["6", "8"], name
    committed = {"committed", "before-prune", "mid-prune", "pruned"}
    assert found == {name: 6 if name in committed else 4 for name in outcomes}


@pytest.mark.slow
def test_kill_at_random_moments_never_costs_a_committed_step(tmp_path):
    program = """
import sys; sys.path.insert(0, "tests/train")
import numpy as np
from train.checkpoint import store
with store.Checkpoints(sys.argv[1], run_id="run") as checkpoints:
    state = {"step": np.int32(0), "big": np.zeros(1 << 21)}
    found = checkpoints.restore(state)
    step = found.step if found else 0
    assert not found or (found.state["big"] == step).all() and found.state["step"] == step
    while True:
        step += 1
        checkpoints.save(step, {"step": np.int32(step), "big": np.full(1 << 21, float(step))}, {})
        checkpoints.wait()
        print(step, flush=True)
"""
    generator, last = random.Random(0), 0
    for _ in range(30):
        run = subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stdout is not None
        first = int(run.stdout.readline())
        assert first in (last + 1, last + 2)  # what was reported is there; at most one more was not reported
        time.sleep(generator.uniform(0, 0.5))
        run.kill()
        out, err = run.communicate()
        last = int(([first] + out.split())[-1])
        assert not err and len(listing(tmp_path / "checkpoints")) <= 5
    with store.Checkpoints(tmp_path, run_id="run"):
        assert not [name for name in listing(tmp_path / "checkpoints") if not name.isdigit()]


PROCESSES = """
import sys
import jax, numpy as np
from train.checkpoint import store
port, me, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, me)
state = {"w": np.arange(5, dtype=np.float32), "step": np.int32(0)}
with store.lock(folder), store.Checkpoints(folder, run_id="run") as checkpoints:
    found = checkpoints.restore(state)
    step = found.step + 1 if found else 1
    state = {"w": state["w"] + step, "step": np.int32(step)}
    state = jax.pmap(lambda s, x: s, in_axes=(None, 0), out_axes=None)(state, np.zeros(1))
    checkpoints.save(step, state, {})
    checkpoints.wait()
    print("saved", step, flush=True)
"""


@pytest.mark.slow
def test_two_processes_share_what_the_first_one_writes(tmp_path):
    for step in 1, 2, 3:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESSES, port, str(me), tmp_path / "run"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for me in range(2)
        ]
        outputs = [run.communicate(timeout=120) for run in runs]
        assert all(out.endswith(f"saved {step}\n") for out, _ in outputs), outputs
    found = store.read(tmp_path / "run", {"w": np.zeros(5, np.float32), "step": np.int32(0)})
    assert found.step == 3 and (found.state["w"] == np.arange(5.0) + 3).all()


def test_leftovers_are_not_touched_without_the_lock(workdir):
    (workdir / "checkpoints/6.partial").mkdir()
    with store.lock(workdir):
        store.read(workdir, state_at(0))
        program = "import sys; from train.checkpoint import store; store.Checkpoints(sys.argv[1], run_id='run')"
        done = subprocess.run([sys.executable, "-c", program, workdir], cwd=ROOT, capture_output=True, text=True)
        assert f"Locked: workdir {workdir} is in use by another run (pid {os.getpid()}" in done.stderr
        assert listing(workdir / "checkpoints") == ["2", "4", "6.partial"]
    with store.Checkpoints(workdir, run_id="run"):
        assert listing(workdir / "checkpoints") == ["2", "4"]


# ---------------------------------------------------------------- damage


def files(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def truncate(path, part):
    os.truncate(path, int(path.stat().st_size * part))


DAMAGES = {"empty": lambda path: truncate(path, 0), "half": lambda path: truncate(path, 0.5), "gone": os.unlink}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_reported_by_its_name_and_the_step_before_is_used(workdir, warnings, damage):
    paths = files(workdir / "checkpoints/4")
    assert len(paths) > 10
    for path in paths:
        content = path.read_bytes()
        DAMAGES[damage](path)
        assert same(store.read(workdir, state_at(0), on_warning=warnings.append), 2)
        assert "checkpoint of step 4 is damaged" in warnings[-1] and str(path) in warnings[-1]
        if damage == "half" and not path.name.startswith("manifest."):
            assert f"expected {len(content)} bytes, got {len(content) // 2}" in warnings[-1]
        path.write_bytes(content)
    assert same(store.read(workdir, state_at(0)), 4) and len(warnings) == len(paths)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "state/_METADATA", "_CHECKPOINT_METADATA"])
def test_run_that_goes_back_saves_the_lost_steps_again(workdir, warnings, name):
    truncate(workdir / "checkpoints/4" / name, 0.5)
    with store.Checkpoints(workdir, run_id="run", on_warning=warnings.append) as checkpoints:
        assert same(checkpoints.restore(state_at(0)), 2)
        assert listing(workdir / "checkpoints") == ["2", "4.corrupt"]
        for step in 3, 4:
            checkpoints.save(step, state_at(step), {})
            checkpoints.wait()
            assert same(checkpoints.restore(state_at(0)), step)
    assert listing(workdir / "checkpoints") == ["3", "4", "4.corrupt"] and len(warnings) == 1


def test_damage_everywhere_is_an_error_and_never_a_fresh_start(workdir, opened):
    for step in 2, 4:
        truncate(files(workdir / "checkpoints" / str(step))[-1], 0.5)
    before = everything(workdir)
    for attempt in opened.restore, lambda template: store.read(workdir, template):
        with pytest.raises(store.CheckpointError, match=r"every checkpoint is damaged(.|\n)*checkpoints/2/"):
            attempt(state_at(0))
    assert everything(workdir) == before


def flip_bits(workdir, count, seed):
    """How many of so many flips of one bit in the newest step go unnoticed."""
    generator, unnoticed = random.Random(seed), []
    for _ in range(count):
        path = generator.choice(files(workdir / "checkpoints/4"))
        content = path.read_bytes()
        place = generator.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        warnings: list[str] = []
        restored = store.read(workdir, state_at(0), on_warning=warnings.append)
        if not (same(restored, 2) and len(warnings) == 1 and str(path) in warnings[0]):
            unnoticed.append((path, place))
        path.write_bytes(content)
    assert same(store.read(workdir, state_at(0)), 4)
    return unnoticed


def test_one_flipped_bit_anywhere_is_noticed(workdir):
    assert flip_bits(workdir, 40, seed=0) == []


@pytest.mark.slow
def test_any_of_three_hundred_flipped_bits_is_noticed(workdir):
    assert flip_bits(workdir, 300, seed=1) == []


def test_file_that_does_not_belong_is_noticed(workdir, opened, warnings):
    (workdir / "checkpoints/4/state/more").write_text("?")
    assert same(opened.restore(state_at(0)), 2) and "state/more: not in the manifest" in warnings[0]


def test_step_under_another_number_is_noticed(workdir, opened, warnings):
    (workdir / "checkpoints/4").rename(workdir / "checkpoints/40")
    assert same(opened.restore(state_at(0)), 2) and "not a manifest of step 40" in warnings[0]


def test_only_the_newest_set_aside_step_of_a_number_stays(workdir, warnings):
    for _ in range(2):
        with store.Checkpoints(workdir, run_id="run", on_warning=warnings.append) as checkpoints:
            truncate(files(workdir / "checkpoints/4")[0], 0)
            assert same(checkpoints.restore(state_at(0)), 2)
            checkpoints.save(4, state_at(4), {})
    assert listing(workdir / "checkpoints") == ["2", "4", "4.corrupt"] and len(warnings) == 2


# ---------------------------------------------------------------- strangers


def test_step_of_another_run_is_refused_by_its_name(workdir, tmp_path):
    save(tmp_path / "other", 9, run_id="stranger")
    shutil.copytree(tmp_path / "other/checkpoints/9", workdir / "checkpoints/9")
    with pytest.raises(store.CheckpointError, match="checkpoints/9 belongs to run stranger, this is run run"):
        store.Checkpoints(workdir, run_id="run")
    with pytest.raises(store.CheckpointError, match="belongs to run stranger"):
        store.read(workdir, state_at(0), run_id="run")
    assert same(store.read(workdir, state_at(0)), 9)
    with store.lock(workdir):  # which the failed start has let go
        pass


def test_step_that_arrives_from_another_run_later_is_refused_too(workdir, opened, tmp_path):
    save(tmp_path / "other", 9, run_id="stranger")
    shutil.copytree(tmp_path / "other/checkpoints/9", workdir / "checkpoints/9")
    with pytest.raises(store.CheckpointError, match="belongs to run stranger"):
        opened.restore(state_at(0))
    assert listing(workdir / "checkpoints") == ["2", "4", "9"]


def test_format_of_a_newer_version_is_refused_and_not_taken_for_damage(workdir):
    reseal(workdir / "checkpoints/4", format=manifest.FORMAT + 1)
    for attempt in (
        lambda: store.Checkpoints(workdir, run_id="run"),
        lambda: store.read(workdir, state_at(0)),
    ):
        with pytest.raises(store.CheckpointError, match=f"format {manifest.FORMAT + 1}, this program reads"):
            attempt()


def test_checkpoint_of_format_1_can_still_be_read():
    golden = ROOT / "tests/train/golden"
    template = {
        "step": np.int32(0),
        "params": {"kernel": np.zeros((2, 3), np.float32), "bias": jnp.zeros(3, jnp.bfloat16)},
    }
    step, state, meta = store.read(golden, template)
    assert step == 3 and meta == {"loss": 0.1}
    np.testing.assert_array_equal(state["params"]["kernel"], np.arange(6, dtype=np.float32).reshape(2, 3) / 7)
    np.testing.assert_array_equal(state["params"]["bias"], np.full(3, 0.5, jnp.bfloat16))


# ---------------------------------------------------------------- another configuration


def test_other_tree_type_or_shape_is_listed_leaf_by_leaf_and_nothing_is_cast(workdir, opened):
    before = everything(workdir)
    state = state_at(0)
    other = state._replace(
        step=jnp.float32(0),
        params={
            "Dense_0": {**state.params["Dense_0"], "kernel": jnp.zeros((2, 4))},
            "Dense_2": state.params["Dense_1"],
        },
        ema_params=jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state.ema_params),
    )
    with pytest.raises(store.CheckpointError) as caught:
        opened.restore(other)
    lines = {line.strip() for line in str(caught.value).splitlines()}
    assert lines > {
        "step: int32[] -> float32[]",
        "params/Dense_0/kernel: float32[2,3] -> float32[2,4]",
        "params/Dense_1/bias: bfloat16[3] -> absent",
        "params/Dense_2/bias: absent -> bfloat16[3]",
        "ema_params/Dense_0/none: float32[0,3] -> float16[0,3]",
    }
    assert everything(workdir) == before


def test_long_list_of_differences_is_cut(tmp_path):
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        checkpoints.save(1, {str(i): np.ones(1) for i in range(50)}, {})
        with pytest.raises(store.CheckpointError, match="and 30 more$"):
            checkpoints.restore({str(i): np.ones(2) for i in range(50)})


DEVICES = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from train.checkpoint import store
jax.config.update("jax_num_cpu_devices", 8)
everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec())
step, state, _ = store.read(sys.argv[1], {"w": np.zeros(5, np.float32), "step": np.int32(0)})
advance = jax.pmap(lambda s, x: jax.tree.map(lambda leaf: leaf + 1, s), in_axes=(None, 0), out_axes=None)
state = advance(jax.device_put(state, everywhere), np.zeros(8))
assert len(state["w"].sharding.device_set) == 8
with store.Checkpoints(sys.argv[1], run_id="run") as checkpoints:
    checkpoints.save(2, state, {})
"""


def test_state_moves_from_one_device_to_eight_and_back(tmp_path):
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        checkpoints.save(1, {"w": np.arange(5, dtype=np.float32), "step": np.int32(1)}, {})
    subprocess.run([sys.executable, "-c", DEVICES, tmp_path], cwd=ROOT, check=True, timeout=60)
    with store.Checkpoints(tmp_path, run_id="run") as checkpoints:
        step, state, _ = restored(checkpoints, {"w": np.zeros(5, np.float32), "step": np.int32(0)})
    assert step == 2
    np.testing.assert_array_equal(jax.device_put(state, jax.devices()[0])["w"], np.arange(5) + 1)


# ---------------------------------------------------------------- malice: seals that fit


def refused(workdir, template=None):
    with pytest.raises(store.CheckpointError) as caught:
        store.read(workdir, state_at(0) if template is None else template, step=4)
    return str(caught.value)


def seal_text(step, text):
    (step / "manifest.json").write_text(text)
    (step / "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")


def test_program_smuggled_into_a_step_does_not_run(workdir):
    marker = workdir / "marker"
    step = workdir / "checkpoints/4"
    for name in "state/_METADATA", "_CHECKPOINT_METADATA", "state/array.npy":
        (step / name).write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    reseal(step)
    refused(workdir)
    assert not marker.exists() and "pickle" not in refused(workdir)


@pytest.mark.parametrize("name", ["state/_METADATA", "state/link", "manifest.json", "manifest.sha256"])
def test_link_out_of_a_step_is_not_followed(workdir, tmp_path, name):
    path = workdir / "checkpoints/4" / name
    outside = tmp_path / "outside"
    outside.write_bytes(path.read_bytes() if path.exists() else b"secret")
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    assert str(path) in refused(workdir)


def test_step_or_folder_that_is_a_link_is_not_followed(workdir, tmp_path):
    step = workdir / "checkpoints/4"
    shutil.move(step / "state", tmp_path / "state")
    (step / "state").symlink_to(tmp_path / "state")
    assert str(step / "state") in refused(workdir)
    shutil.rmtree(step)
    save(tmp_path / "other", 4)
    step.symlink_to(tmp_path / "other/checkpoints/4")
    assert str(step) in refused(workdir)


def test_names_that_leave_the_step_are_not_opened(workdir, tmp_path):
    step = workdir / "checkpoints/4"
    (workdir / "secret").write_text("secret")
    record = json.loads((step / "manifest.json").read_text())
    for name in "../../secret", str(workdir / "secret"):
        entry = [6, hashlib.sha256(b"secret").hexdigest()]
        seal_text(step, json.dumps(record | {"files": record["files"] | {name: entry}}))
        assert "missing" in refused(workdir)


def test_pipe_in_a_step_does_not_hang_the_reader(workdir):
    os.mkfifo(workdir / "checkpoints/4/state/pipe")
    assert "state/pipe: expected a plain file" in refused(workdir)


DEEP = "[" * 100_000
BAD_MANIFESTS = {
    "deep": DEEP,
    "deep in place": '{"format": 1, "run_id": ' + DEEP + "]" * 100_000 + "}",
    "list": "[]",
    "number": "1",
    "empty": "",
    "not text": "\udcff",
    "other fields": '{"format": 1, "step": 4}',
    "format is text": '{"format": "2"}',
}


@pytest.mark.parametrize("kind", BAD_MANIFESTS)
def test_nonsense_under_a_good_seal_is_damage(workdir, kind):
    content = BAD_MANIFESTS[kind].encode(errors="surrogateescape")
    step = workdir / "checkpoints/4"
    (step / "manifest.json").write_bytes(content)
    (step / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
    assert "manifest.json: not a manifest of step 4" in refused(workdir)


@pytest.mark.parametrize(
    "field, value", [("run_id", 3), ("step", "4"), ("files", []), ("meta", None), ("layout", 7), ("score", "1")]
)
def test_field_of_the_wrong_type_is_damage(workdir, field, value):
    step = workdir / "checkpoints/4"
    seal_text(step, json.dumps(json.loads((step / "manifest.json").read_text()) | {field: value}))
    assert "not a manifest of step 4" in refused(workdir)


def test_deep_json_where_orbax_reads_it_is_no_traceback(workdir):
    for name in "state/_METADATA", "_CHECKPOINT_METADATA":
        (workdir / "checkpoints/4" / name).write_text(DEEP)
    reseal(workdir / "checkpoints/4")
    assert "cannot be read" in refused(workdir)


def test_huge_shape_in_the_manifest_is_refused_by_the_template(workdir):
    record = json.loads((workdir / "checkpoints/4/manifest.json").read_text())
    reseal(workdir / "checkpoints/4", layout=record["layout"] | {"params/Dense_0/kernel": "float32[1099511627776]"})
    assert "params/Dense_0/kernel: float32[1099511627776] -> float32[2,3]" in refused(workdir)


@pytest.mark.parametrize(
    "field, value", [("shape", [1 << 20, 1 << 20]), ("chunks", [1 << 20, 1 << 20]), ("dtype", "<i4")]
)
def test_array_that_orbax_declares_otherwise_is_refused_before_it_is_allocated(workdir, field, value):
    import tensorstore

    step = workdir / "checkpoints/4"
    zarr = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{step}/state/"}).result()
    array = json.loads(zarr["params.Dense_0.kernel/.zarray"])
    zarr["params.Dense_0.kernel/.zarray"] = json.dumps(array | {field: value})
    reseal(step)
    assert "orbax describes other arrays than the manifest" in refused(workdir)


# ---------------------------------------------------------------- readers beside the run


def test_reader_changes_nothing_and_needs_only_the_leaves_it_asks_for(workdir):
    wanted = TrainState(None, None, state_at(0).ema_params, None)
    with store.lock(workdir):
        before = everything(workdir)
        step, state, meta = store.read(workdir, jax.eval_shape(lambda: wanted))
    assert step == 4 and meta == {"loss": 0.4}
    assert store.digest(state.ema_params) == store.digest(state_at(4).ema_params)
    assert (state.step, state.params, state.opt_state) == (None, None, None)
    assert everything(workdir) == before
    with pytest.raises(store.CheckpointError, match="ema_params/w: absent -> float64"):
        store.read(workdir, wanted._replace(ema_params={"w": np.ones(1)}))


def test_workdir_without_a_checkpoint_is_a_clear_error(tmp_path):
    with pytest.raises(store.CheckpointError, match="there is no such folder"):
        store.read(tmp_path / "missing", state_at(0))
    with pytest.raises(store.CheckpointError, match="holds no checkpoint; train there first"):
        store.read(tmp_path, state_at(0))
    (tmp_path / "checkpoints/1.partial.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(store.CheckpointError, match="still being written"):
        store.read(tmp_path, state_at(0))
    assert not (tmp_path / "missing").exists()


def test_step_that_is_being_read_is_removed_only_later(workdir, opened, monkeypatch):
    def slow_read(*args):
        opened.save(6, state_at(6), {})
        opened.wait()
        assert listing(workdir / "checkpoints") == ["2", "4", "6"]
        return read(*args)

    read = store._read
    monkeypatch.setattr(saved_store, "_read", slow_read)
    assert same(store.read(workdir, state_at(0), step=2), 2)
    opened.save(8, state_at(8), {})
    opened.wait()
    assert listing(workdir / "checkpoints") == ["6", "8"]


def test_reader_beside_a_busy_run_always_gets_a_whole_step(tmp_path):
    def filled(step):
        return {"a": np.full(1000, step), "b": np.full((), step)}

    seen: list = []
    stop = threading.Event()
    with store.Checkpoints(tmp_path, run_id="run", keep_latest=1, keep_best=0) as checkpoints:
        checkpoints.save(0, filled(0), {})
        checkpoints.wait()

        def train():
            for step in range(1, 20):
                checkpoints.save(step, filled(step), {"step": step})
            checkpoints.wait()
            stop.set()

        trainer = threading.Thread(target=train)
        trainer.start()
        while not stop.is_set():
            step, state, meta = store.read(tmp_path, filled(0), on_warning=seen.append)
            assert (state["a"] == step).all() and state["b"] == step and meta == ({"step": step} if step else {})
            seen.append(step)
        trainer.join()
    assert seen == sorted(seen) and len(set(seen)) > 3  # no warning among them, and time does not run backwards


# ---------------------------------------------------------------- odd things among the steps, and words in a step


def test_what_is_no_step_of_the_run_is_never_removed(workdir, warnings):
    root = workdir / "checkpoints"
    for name in "1/mine", "notes/mine", "3.corrupt/mine", "6.partials/mine":
        (root / name).parent.mkdir()
        (root / name).write_text("mine")
    (root / "5.partial").write_text("mine")
    with store.Checkpoints(workdir, run_id="run", on_warning=warnings.append) as checkpoints:
        assert same(checkpoints.restore(state_at(0)), 4)
        for step in 6, 8:
            checkpoints.save(step, state_at(step), {})
    assert listing(root) == ["1", "3.corrupt", "5.partial", "6", "6.partials", "8", "notes"] and not warnings
    assert len([path for path in root.rglob("mine") if path.read_text() == "mine"]) == 4


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.symlink_to("/etc")])
@pytest.mark.parametrize("aside", ["", "file", "folder"])
def test_file_or_link_with_the_name_of_a_step_is_named_and_passed_over(workdir, warnings, make, aside):
    root = workdir / "checkpoints"
    make(root / "6")
    if aside == "file":
        (root / "6.corrupt").write_text("mine")
    if aside == "folder":
        (root / "6.corrupt").mkdir()
    with store.Checkpoints(workdir, run_id="run", on_warning=warnings.append) as checkpoints:
        assert same(checkpoints.restore(state_at(0)), 4)
        checkpoints.save(6, state_at(6), {})
        checkpoints.wait()
        assert same(checkpoints.restore(state_at(0)), 6)
    expected = ["4", "6", "6.corrupt"] + ["6.corrupt.1"] * bool(aside)
    assert listing(root) == expected and len(warnings) == 1 and expected[-1] in warnings[0]


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.symlink_to("/etc/passwd")])
def test_file_or_link_in_place_of_the_folder_of_steps_is_refused_by_name(tmp_path, make):
    make(tmp_path / "checkpoints")
    with pytest.raises(store.CheckpointError, match=f"{tmp_path}/checkpoints"):
        store.Checkpoints(tmp_path, run_id="run")
    with pytest.raises(store.CheckpointError, match=f"{tmp_path}/checkpoints"):
        store.read(tmp_path, state_at(0))


def test_folder_that_another_run_has_taken_is_left_alone(tmp_path, steps):
    """``rm -rf`` of a live run, and a new run in its place: the old one ends, the new one does not notice."""
    with store.Checkpoints(tmp_path / "run", run_id="old") as old:
        old.save(1, state_at(1), {})
        old.wait()
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(store.CheckpointError, match="removed or replaced"):
            old.save(2, state_at(2), {})
        assert not (tmp_path / "run").exists()
        shutil.copytree(steps, tmp_path / "run")
        before = everything(tmp_path / "run")
        with pytest.raises(store.CheckpointError, match="removed or replaced"):
            old.save(6, state_at(6), {})
        with pytest.raises(store.CheckpointError, match="removed or replaced"):
            old._prune()
        assert everything(tmp_path / "run") == before


@pytest.mark.parametrize("link", ["folder", "above"])
def test_run_in_a_folder_with_two_names_is_one_run(tmp_path, link):
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real/inner")
    names = tmp_path / "link", tmp_path / "real/inner"
    if link == "above":
        names = tmp_path / "link/../run", tmp_path / "real/run"  # as the system walks it, not as text
    save(names[0], 1)
    assert listing(names[1] / "checkpoints") == ["1"] and same(store.read(names[1], state_at(0)), 1)
    with (
        store.lock(names[0]),
        pytest.raises(store.WorkdirError, match="in use"),
        store.lock(names[1]),
    ):
        pass


EVIL = """
import pathlib
pathlib.Path(__file__).with_name("marker").write_text("ran")
class Handler: pass
"""


@pytest.mark.parametrize("where", ["handler", "type", "namedtuple"])
def test_names_of_code_in_a_step_are_not_looked_up(workdir, monkeypatch, where):
    monkeypatch.chdir(workdir)
    monkeypatch.syspath_prepend(str(workdir))
    (workdir / "evil.py").write_text(EVIL)
    step = workdir / "checkpoints/4"
    whole, state = (json.loads((step / name).read_text()) for name in ("_CHECKPOINT_METADATA", "state/_METADATA"))
    if where == "handler":
        whole["item_handlers"]["state"] = "evil.Handler"
    if where == "type":
        for leaf in state["tree_metadata"].values():
            leaf["value_metadata"]["value_type"] = "evil.Handler"
    if where == "namedtuple":
        entry = {"category": "namedtuple", "module": "evil", "clazz": "Handler", "entries": []}
        state["value_metadata_tree"] = {"params": entry}
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(whole))
    (step / "state/_METADATA").write_text(json.dumps(state))
    reseal(step)
    assert "names other parts than numpy arrays" in refused(workdir)
    assert "evil" not in sys.modules and not (workdir / "marker").exists()


def test_what_a_step_says_cannot_act_on_the_terminal(workdir):
    reseal(workdir / "checkpoints/4", run_id="\x1b[2J")
    with pytest.raises(store.CheckpointError, match="belongs to run") as caught:
        store.read(workdir, state_at(0), step=4, run_id="run")
    assert "\x1b" not in str(caught.value)
