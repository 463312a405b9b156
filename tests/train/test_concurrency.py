"""Kills, readers beside a run and odd neighbours cost no committed step."""

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from checkpoint_states import FIXTURES, ROOT, TrainState, everything, listing, restored, same, save, state_at

from train.checkpoint import arrays, store

steps, workdir, warnings, opened = FIXTURES


# ---------------------------------------------------------------- kills

KILLED = """
import os, pathlib, shutil, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, "tests/train")
import numpy as np
from train.checkpoint import arrays, manifest, steps, store
arrays.library()
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
    write = arrays.write
    def patched(folder, state):
        def watch():
            while not any(path.is_file() for path in folder.parent.glob("6.partial.*/**/*")): time.sleep(0.0005)
            die()
        threading.Thread(target=watch).start()
        write(folder, state)
    arrays.write = patched

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

    read = arrays.read
    monkeypatch.setattr(arrays, "read", slow_read)
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


# ---------------------------------------------------------------- odd things among the steps


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
