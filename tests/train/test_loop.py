"""Runs of the command line: what they leave, how they resume, how they end."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from genjax import data
from train import ae, ddpm, evaluate, sample
from train.checkpoint import store
from train.run import config, load, logging, loop, plots, sheets
from train.run import process as run_process

ROOT = pathlib.Path(__file__).parents[2]
TINY = """
timesteps = 20
network = "simple"
width = 8
channel_mults = [1, 2]
flip = true
batch_size = 16
num_samples = 4
ema_decay = 0.9
steps = 60
every = 20
log_every = 5
steps_per_call = 5
"""


def environment(cache):
    """With the little optimization of the tests, inherited, and a compilation cache of its own."""
    return os.environ | {"XDG_CACHE_HOME": cache, "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def start(tiny, cache):
    """Start ``python -m train.ddpm`` on a workdir."""

    def start(workdir, *argv, script="ddpm", **env):
        command = [sys.executable, "-m", f"train.{script}", "--workdir", str(workdir)]
        command += ["--config", tiny] if script == "ddpm" else []
        env = environment(cache) | env
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, *map(str, argv)], cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture
def run(start):
    """Run it to its end: (exit code, stdout, stderr)."""

    def run(*args, **options):
        process = start(*args, **options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def unbroken(tiny, cache, tmp_path_factory):
    """A run of 60 steps, straight."""
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    command = [sys.executable, "-m", "train.ddpm", "--workdir", str(workdir), "--config", tiny]
    done = subprocess.run(command, cwd=ROOT, env=environment(cache), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return workdir


def digest(workdir, step=60):
    """The SHA-256 of step, parameters, average and optimizer, as saved."""
    manifest = json.loads((workdir / "checkpoints" / str(step) / "manifest.json").read_text())
    return manifest["digest"]


def lines(workdir):
    """metrics.jsonl without the clock."""
    return [
        {name: value for name, value in json.loads(line).items() if name not in logging.CLOCK_FIELDS}
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


def until(process, text):
    """Wait for a line on its stdout."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"never said {text!r}: {process.stderr.read()}")


def test_a_run_leaves_its_record_metrics_pictures_and_checkpoints(unbroken):
    described = json.loads((unbroken / "config.json").read_text())
    assert described["config"]["steps"] == 60 and described["script"] == "ddpm"
    assert {"jax", "flax", "optax", "orbax-checkpoint", "python"} <= described["versions"].keys()
    assert described["devices"]["platform"] == "cpu" and len(described["data"]["fingerprint"]) == 64
    assert [line["step"] for line in lines(unbroken)] == list(range(5, 65, 5))
    assert [line["step"] for line in lines(unbroken) if "heldout_loss" in line] == [20, 40, 60]
    assert {p.name for p in (unbroken / "samples").iterdir()} >= {
        "0000020.png",
        "0000060-reverse.png",
        "forward.png",
        "latest.png",
    }
    for path in [*(unbroken / "samples").glob("*.png"), unbroken / "curves.png"]:
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 0, path
    assert not list(unbroken.rglob("*.partial"))
    assert {p.name for p in (unbroken / "checkpoints").iterdir()} >= {"40", "60"}


@pytest.mark.parametrize("cuts", [(30,), pytest.param((1, 59), marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_unbroken_run_bit_for_bit(cuts, unbroken, run, tmp_path):
    for steps in (*cuts, 60):
        code, _, err = run(tmp_path / "run", "--steps", steps)
        assert code == 0, err
    assert digest(tmp_path / "run") == digest(unbroken)
    assert lines(tmp_path / "run") == lines(unbroken)


def test_a_finished_run_has_nothing_to_do_and_changes_nothing(unbroken, run):
    before = {p: p.stat().st_mtime_ns for p in unbroken.rglob("*") if p.is_file() and p.name != ".lock"}
    code, out, _ = run(unbroken)
    assert code == 0 and "nothing to do" in out
    assert before == {p: p.stat().st_mtime_ns for p in unbroken.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_stopped_run_goes_on_to_the_same_bits(number, code, start, run, tmp_path):
    process = start(tmp_path / "run", "--steps", 100_000)  # so many that the signal cannot come too late
    until(process, " 60/100000")  # whoever saves step 40 has waited for step 20 to be on disk
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err
    saved = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert (f"after step {saved}" in err) == (code == 75)
    end = saved // 20 * 20 + 20
    for workdir in (tmp_path / "run", tmp_path / "straight"):
        assert run(workdir, "--steps", end)[0] == 0
    assert digest(tmp_path / "run", end) == digest(tmp_path / "straight", end)
    assert lines(tmp_path / "run") == lines(tmp_path / "straight")


def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoints(run, tmp_path):
    assert run(tmp_path / "run", "--steps", 20)[0] == 0
    before = digest(tmp_path / "run", 20)
    code, _, err = run(tmp_path / "run", "--lr", 1e30)
    assert code == 5 and "the loss is" in err and "step 2" in err and "Traceback" not in err
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["20"] and digest(
        tmp_path / "run", 20
    ) == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data", "cifar100"], ["--data cifar100", "expected digits, tfds:NAME"]),
        (["--data", "mnist"], ["did you mean tfds:mnist"]),
        (["--batch-size", 5000], ["batch_size 5000", "1600"]),
        (["--devices", 1000], ["devices 1000", "at most"]),
        (["--lr", -1], ["lr"]),
        (["--config", "nothing"], ["digits"]),
        (["--network", "unet", "--width", 37], ["groups"]),
        (["--channel-mults", 1, 1, 1, 1, 1], ["16"]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(argv, words, tiny, tmp_path):
    config_file = [] if "--config" in argv else ["--config", tiny]
    with pytest.raises(config.UsageError) as caught:
        ddpm.main(["--workdir", str(tmp_path / "run"), *config_file, *map(str, argv)])
    for word in words:
        assert word in str(caught.value)
    assert not list(tmp_path.rglob("*.json"))


def test_a_batch_that_does_not_split_exits_2(run, tmp_path):
    eight = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
    code, out, err = run(tmp_path / "run", "--batch-size", 100, **eight)
    assert (code, out) == (2, "") and "use 96 or 104" in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_other_settings_on_resume_are_refused_by_name(unbroken, tiny):
    argv = ["--config", tiny, "--width", "16", "--seed", "5", "--lr", "0.5", "--steps", "80"]
    with pytest.raises(config.UsageError, match="(?s)seed: 0 -> 5.*width: 8 -> 16") as caught:
        ddpm.main(["--workdir", str(unbroken), *argv])
    assert "lr:" not in str(caught.value) and "steps:" not in str(caught.value)


def test_a_folder_that_is_none_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(store.WorkdirError, match="expected a folder"):
        ddpm.main(["--config", tiny, "--workdir", str(tmp_path / "file")])


def test_a_second_run_on_a_workdir_is_refused(start, run, tmp_path):
    first = start(tmp_path / "run", "--steps", 100_000)
    until(first, "step ")
    code, _, err = run(tmp_path / "run")
    first.kill()
    first.communicate()
    assert code == 2 and str(first.pid) in err


def test_another_seed_is_another_run_and_restart_starts_over(unbroken, run, tmp_path):
    assert run(tmp_path / "run", "--seed", 1, "--steps", 40)[0] == 0
    assert digest(tmp_path / "run", 40) != digest(unbroken, 40)
    assert run(tmp_path / "run", "--restart")[0] == 0
    assert digest(tmp_path / "run") == digest(unbroken) and lines(tmp_path / "run") == lines(unbroken)


def test_training_outlives_the_reader_of_its_output(start, unbroken, tmp_path):
    process = start(tmp_path / "run")
    process.stdout.close()
    assert process.wait(timeout=300) == 0, process.stderr.read()
    process.stderr.close()
    assert digest(tmp_path / "run") == digest(unbroken)


@pytest.mark.parametrize("sampler", ["ancestral", "dpm_solver_sde"])
def test_image_i_is_the_same_in_batches_of_1_8_and_64(sampler, unbroken, tmp_path):
    drawn = {}
    for batch_size in (1, 8, 64):
        out = tmp_path / f"{batch_size}.npz"
        argv = ["--num", 11, "--batch-size", batch_size, "--sampler", sampler, "--steps", 5, "--out", out]
        sample.main(["--workdir", str(unbroken), *map(str, argv)])
        with np.load(out, allow_pickle=False) as file:
            drawn[batch_size] = file["images"]
        assert drawn[batch_size].shape == (11, 8, 8, 1) and drawn[batch_size].dtype == np.uint8
    assert np.array_equal(drawn[1], drawn[8]) and np.array_equal(drawn[8], drawn[64])
    assert len(np.unique(drawn[1].reshape(11, -1), axis=0)) == 11


def test_sampling_writes_a_picture_and_refuses_what_it_cannot_do(unbroken, run, tmp_path):
    out = tmp_path / "grid.png"
    assert run(unbroken, "--num", 9, "--out", out, script="sample")[0] == 0
    with Image.open(out) as picture:
        assert picture.size[0] == picture.size[1]
    for workdir, flags, error, word in [
        (unbroken, ("--out", tmp_path / "x.gif"), config.UsageError, ".png or .npz"),
        (unbroken, ("--sampler", "ddim", "--steps", 21), config.UsageError, "20"),
        (unbroken, ("--num", 0), config.UsageError, "num"),
        (tmp_path / "nowhere", (), store.CheckpointError, "no run"),
    ]:
        with pytest.raises(error, match=word):
            sample.main(["--workdir", str(workdir), *map(str, flags)])
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_checkpoint_is_passed_over(unbroken, run, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    victim = max(
        (tmp_path / "run" / "checkpoints" / "60" / "state").rglob("*"),
        key=lambda p: p.stat().st_size if p.is_file() else 0,
    )
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.write_bytes(content)
    code, out, err = run(tmp_path / "run")
    assert code == 0 and "damaged" in err and "step 40" in out
    assert digest(tmp_path / "run") == digest(unbroken) and lines(tmp_path / "run") == lines(unbroken)


# ---------------------------------------------------------------- pictures cost nothing


def little_run(workdir, figures, **settings):
    """Three reports in three steps, of a little autoencoder, with these pictures: ``figures(step)``."""
    write_figures = lambda folder, step, params, dataset: figures(step)
    build = lambda settings, shape: ae.build(settings, shape)._replace(write_figures=write_figures)
    options = ae.Config(
        workdir=str(workdir), steps=3, every=1, steps_per_call=1, batch_size=16, hidden=(4,), **settings
    )
    loop.run("ae", options, build)


def test_pictures_that_fail_or_last_cost_no_checkpoint_and_keep_no_signal_waiting(tmp_path, capfd, monkeypatch):
    drawn, over = [], threading.Event()

    def figures(step):
        drawn.append(step)
        assert (tmp_path / "run/checkpoints" / str(step)).is_dir()  # which is saved before
        if step == 1:
            raise OSError(28, "No space left on device", "samples/0000001.png")
        os.kill(os.getpid(), signal.SIGTERM)
        over.wait(600)

    monkeypatch.setattr(plots, "curves", lambda *_: {}["a mistake in matplotlib"])
    with pytest.raises(run_process.Preempted, match="after step 2, saved; the same command without --restart goes on"):
        little_run(tmp_path / "run", figures, restart=True)
    over.set()
    err = capfd.readouterr().err
    assert drawn == [1, 2] and "samples/0000001.png" in err and "No space left" in err and "KeyError" in err
    monkeypatch.undo()
    drawn.clear()
    little_run(tmp_path / "run", drawn.append)
    assert drawn == [2, 3]  # the pictures that were not finished, too
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3]
    assert (tmp_path / "run/curves.png").exists()
    little_run(tmp_path / "run", drawn.append)
    assert drawn == [2, 3] and "nothing to do" in capfd.readouterr().out


def test_pictures_that_are_not_finite_end_the_run_after_its_checkpoint(tmp_path):
    with pytest.raises(run_process.NonFinite, match="the decoder of this test: 25.0% of the numbers"):
        little_run(
            tmp_path / "run", lambda step: sheets.to_uint8(np.array([0, 1, np.nan, -1.0]), "the decoder of this test")
        )
    assert (tmp_path / "run/checkpoints/1").is_dir()


def test_images_that_are_not_finite_are_not_written(unbroken, tmp_path, monkeypatch):
    read = load.params
    monkeypatch.setattr(load, "params", lambda *args: jax.tree.map(lambda x: x * np.nan, read(*args)))
    argv = ["--num", "2", "--sampler", "ddim", "--steps", "1", "--out", str(tmp_path / "a.png")]
    with pytest.raises(run_process.NonFinite, match="ddim: 100.0% of the numbers drawn are NaN"):
        sample.main(["--workdir", str(unbroken), *argv])
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- what the record says is used


def test_other_data_than_the_runs_are_not_scored(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    path = tmp_path / "run/config.json"
    path.write_text(path.read_text().replace(data.fingerprint(data.digits()), r"\u001b[2J"))
    with pytest.raises(data.DataError, match="trained on other data") as caught:
        evaluate.main(["--workdir", str(tmp_path / "run"), "--num", "2"])
    assert "\x1b" not in str(caught.value)


def test_a_run_that_has_all_its_steps_is_not_taken_for_one_on_other_data(tmp_path):
    again = lambda: little_run(tmp_path / "run", lambda step: None)
    again()
    path = tmp_path / "run/config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"data": described["data"] | {"fingerprint": "0" * 64}}))
    with pytest.raises(config.UsageError, match="was trained on other data"):
        again()


def test_checkpoints_that_are_gone_are_said_to_be_gone_and_their_lines_kept(unbroken, run, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    old = (tmp_path / "run/metrics.jsonl").read_text()
    code, out, _ = run(tmp_path / "run", "--steps", 20)
    assert code == 0 and "there is no checkpoint" in out and "metrics.jsonl.1" in out
    assert (tmp_path / "run/metrics.jsonl.1").read_text() == old and lines(tmp_path / "run") == lines(unbroken)[:4]
