"""Many runs in one program: each is what it would be alone."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from genjax.training import state, steps
from train import ae, ddpm, pixelcnn, vae, vdm, vqvae
from train.run import config, load, loop
from train.run import sweep as run_sweep
from train.run.recipe import named

ROOT = pathlib.Path(__file__).parents[2]
TINY = {"steps": 30, "every": 15, "log_every": 5, "steps_per_call": 15, "batch_size": 16}


@pytest.fixture(scope="module")
def train(command):
    flags = [part for name, value in TINY.items() for part in ("--" + name.replace("_", "-"), value)]
    return lambda script, workdir, *argv: command(script, "--workdir", workdir, *flags, *argv)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


SCRIPTS = {
    "ae": (ae, ae.Config(), {}),
    "vae": (vae, vae.Config(), {"beta": 3.0}),
    "vqvae": (
        vqvae,
        vqvae.Config(codebook_size=8, embedding_dim=4, conv_channels=(8,), num_res_blocks=0),
        {"commitment_cost": 0.5},
    ),
    "pixelcnn": (pixelcnn, pixelcnn.Config(levels=17, features=4, layers=2, head=8), {}),
    "ddpm": (ddpm, ddpm.Config(timesteps=10, network="simple", width=8, channel_mults=(1, 2)), {}),
    "vdm": (vdm, vdm.Config(lr=1e-4, levels=17, width=8, channel_mults=(1,), num_res_blocks=1), {}),
}


@pytest.mark.parametrize(
    "name",
    ["vae", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ae", "vqvae", "pixelcnn", "ddpm", "vdm"))],
)
def test_every_member_of_every_model_is_the_run_alone(name):
    """Parameters after 12 steps with Adam, vmapped over seeds and a setting, against the same run by itself."""
    script, settings, more = SCRIPTS[name]
    shape = (8, 8, 1)
    change = {"lr": 3 * settings.lr} | more
    swept = next(iter(more), "lr")
    base = dataclasses.replace(
        settings, batch_size=16, num_seeds=2, sweep=f"{swept}={getattr(settings, swept)},{change[swept]}"
    )
    ensemble = run_sweep.ensemble(base)
    rows = {"image": np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)}

    def end(key, value):
        task = script.build(ensemble.with_value(value), shape)
        step = steps.gradient_step(task.loss, task.optimizer)
        start = state.create(task.init(key), task.optimizer)
        draw = steps.rows(16)
        return steps.repeat(step, draw, 12)(key, start, rows)[0].params

    together = jax.jit(lambda: ensemble.lift(end, ())(ensemble.keys, ensemble.values))()
    for i in (0, 3):
        value = float(ensemble.values[i])
        alone = jax.jit(lambda i=i, value=value: end(jax.random.key(int(ensemble.seeds[i])), value))()
        for a, b in zip(*map(jax.tree.leaves, (jax.tree.map(lambda x, i=i: x[i], together), alone)), strict=True):
            assert np.allclose(a, b, atol=1e-5 if name != "ddpm" else 1e-4), (name, i)
    first, last = (jax.tree.leaves(together)[0][i] for i in (0, 3))
    assert not np.allclose(first, last, atol=1e-3)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, train):
    workdir = tmp_path_factory.mktemp("members") / "run"
    code, out, err = train("vae", workdir, "--sweep", "beta=0.5,2", "--num-seeds", 2, "--seed", 5)
    assert code == 0, err
    return workdir, out


def test_the_command_trains_every_value_with_every_seed(swept, tmp_path, train):
    workdir, out = swept
    assert "over 4 members" in out and "±" in out
    report = lines(workdir)[-1]
    losses = report["heldout_members"]["loss"]
    assert len(losses) == 4 and np.isclose(np.mean(losses), report["heldout_loss"])
    code, _, err = train("vae", tmp_path / "alone", "--seed", 6, "--beta", 2)
    assert code == 0, err
    alone = lines(tmp_path / "alone")[-1]
    assert np.isclose(losses[3], alone["heldout_loss"], rtol=1e-5) and "heldout_members" not in alone
    for name in ("members.png", "rate-distortion.png", "curves.png"):
        with Image.open(workdir / name) as image:
            assert image.size[0] > 400


@pytest.mark.slow
def test_members_resume_to_the_same_lines(swept, tmp_path, train):
    argv = ("--sweep", "beta=0.5,2", "--num-seeds", 2, "--seed", 5)
    assert train("vae", tmp_path / "run", *argv, "--steps", 15)[0] == 0
    code, out, err = train("vae", tmp_path / "run", *argv)
    assert code == 0 and "going on from step 15" in out, err
    clean = lambda found: [
        {k: v for k, v in line.items() if k not in ("seconds", "steps_per_second")} for line in found
    ]
    assert clean(lines(tmp_path / "run")) == clean(lines(swept[0]))
    code, _, err = train("vae", tmp_path / "run", "--num-seeds", 3, "--sweep", "beta=0.5,2", "--seed", 5, "--steps", 60)
    assert code == 2 and "num_seeds: 2 -> 3" in err


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("nothing=1,2", "expected NAME=V1,V2,... where NAME is one of"),
        ("steps=1,2", "where NAME is one of"),
        ("beta=1,much", "expected numbers after beta=, separated by commas"),
        ("beta=1,inf", "expected finite numbers, got inf"),
        ("beta=1,-2", "beta: expected at least 0, got -2"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(sweep, message):
    with pytest.raises(config.UsageError, match=message):
        run_sweep.ensemble(vae.Config(sweep=sweep))


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("grad_clip=1,2", "grad_clip: this number decides which program is run"),
        (
            "std=0.1,0.2",
            "std: with the other settings as they are this number makes no difference; .* --likelihood gaus",
        ),
    ],
)
def test_a_number_that_cannot_vary_within_a_program_is_refused_before_anything(sweep, message, tmp_path):
    with pytest.raises(config.UsageError, match="--sweep " + message):
        vae.main(["--sweep", sweep, "--workdir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_number_that_numpy_computes_with_is_refused_too(tmp_path):
    """In a process of its own: the type checks of the tests would refuse it first."""
    argv = ["--beta-schedule", "linear", "--sweep", "beta_end=0.01,0.02", "--workdir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "train.ddpm", *argv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--sweep beta_end: this number decides which program is run" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["free_bits", "beta", "lr"])
def test_a_number_that_can_vary_passes_the_trial(name):
    ensemble = run_sweep.ensemble(vae.Config(sweep=f"{name}=0.1,0.2", beta_warmup=5))
    loop._programs(vae.build, ensemble, (8, 8, 1))


def test_a_member_is_scored_with_its_own_value_of_what_was_swept(tmp_path):
    settings = vae.Config(likelihood="gaussian", sweep="std=0.1,0.3", num_seeds=2)
    described = {"script": "vae", "data": {"train": [5, 8, 8, 1]}, "config": dataclasses.asdict(settings)}
    (tmp_path / "config.json").write_text(json.dumps(described))
    found = [load.record(tmp_path, named("vae"), member).settings.std for member in range(4)]
    assert np.allclose(found, [0.1, 0.1, 0.3, 0.3])
    with pytest.raises(config.UsageError, match="member 4: .* has 4, numbered from 0"):
        load.record(tmp_path, named("vae"), 4)
