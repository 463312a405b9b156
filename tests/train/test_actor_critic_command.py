"""``python -m train.actor_critic``: what it leaves, how it resumes, and what it refuses."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import train
from train import actor_critic
from train.run import config, logging

TINY = "--steps 4 --every 2 --log-every 2 --steps-per-call 2 --batch-size 4 --rollout-length 20 --hidden 8"
TINY = (*TINY.split(), "--eval-episodes", "3")
CHAIN = ("--config", "chain", "--schedule", "constant", "--start", "continue")


def lines(workdir):
    clean = lambda line: {name: value for name, value in line.items() if name not in logging.CLOCK_FIELDS}
    return [clean(json.loads(line)) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("actor-critic")
    ppo = ("--config", "cartpole_ppo", "--minibatch-size", "40", "--num-seeds", "2")
    actor_critic.main([*TINY, *ppo, "--workdir", str(folder / "cartpole")])
    actor_critic.main([*TINY, *CHAIN, "--workdir", str(folder / "chain")])
    return folder


def test_a_run_leaves_returns_pictures_and_seeds(runs):
    report = lines(runs / "cartpole")[-1]
    returns = report["heldout_members"]["return"]
    assert len(returns) == 2 and np.isclose(np.mean(returns), report["heldout_return"])
    assert np.isclose(report["heldout_loss"], -report["heldout_return"]) and 5 < report["heldout_return"] < 200
    assert report["heldout_length"] == report["heldout_return"]  # a reward of 1 for each step
    for name in ("returns.png", "curves.png", "samples/latest.png", "samples/rollout.png"):
        with Image.open(runs / "cartpole" / name) as image:
            assert image.size[0] > 400
    assert (runs / "chain" / "samples" / "latest.png").exists()


def test_it_resumes_to_the_same_lines_in_environments_that_go_on(runs, tmp_path):
    argv = [*TINY, *CHAIN, "--workdir", str(tmp_path / "run")]
    actor_critic.main([*argv, "--steps", "2"])
    actor_critic.main(argv)
    assert lines(tmp_path / "run") == lines(runs / "chain")


def test_a_policy_is_loaded(runs):
    settings, model, params = train.load(runs / "chain")
    assert settings.start == "continue"
    assert model.logits(params, jnp.eye(5)).shape == (5, 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--env cartpoles", "env: expected one of cartpole, acrobot, chain, grid, ladder1, .*; did you mean cartpole?"),
        (
            "--rollout-length 0 --discount 1.5",
            "rollout_length: expected at least 1, got 0\ndiscount: expected 0 to 1, got 1.5",
        ),
        ("--clip-eps 0", "clip_eps: expected a positive number"),
        ("--batch-size 6 --devices 4", "device"),
    ],
)
def test_bad_input_is_refused(argv, message, tmp_path):
    with pytest.raises(config.UsageError, match=message):
        actor_critic.main([*argv.split(), "--workdir", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "config.json").exists()
