"""``python -m train.gan``: what it draws and when, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from train import gan, sample
from train.run import config

TINY = "--steps 4 --every 2 --log-every 2 --steps-per-call 2 --batch-size 16 --hidden 8 --latent-dim 4".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan")
    gan.main([*TINY, "--spectral-norm", "--n-critic", "2", "--workdir", str(folder / "digits")])
    gan.main(
        [*TINY, "--config", "ring", "--loss", "wasserstein", "--gp-weight", "10", "--workdir", str(folder / "ring")]
    )
    return folder


def test_players_are_drawn_from_the_untrained_on(runs):
    for name, pictures in (("digits", ["interpolation.png"]), ("ring", [])):
        there = sorted(path.name for path in (runs / name / "samples").iterdir())
        assert there == sorted(["0000000.png", "0000002.png", "0000004.png", "latest.png", *pictures])
        with Image.open(runs / name / "curves.png") as image:
            assert image.size[0] > 400
    line = json.loads((runs / "digits" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"discriminator", "generator", "penalty", "heldout_discriminator"} <= line.keys()
    assert line["heldout_loss"] > 0  # a distance


def test_a_trained_generator_is_drawn_from(runs):
    drawn = sample.draw(sample.Sample(str(runs / "digits"), num=5))
    assert drawn.shape == (5, 8, 8, 1)
    assert np.array_equal(drawn[:2], sample.draw(sample.Sample(str(runs / "digits"), num=2)))


def test_points_are_no_images(runs):
    with pytest.raises(config.UsageError, match="draws points of 2 numbers, not images"):
        sample.draw(sample.Sample(str(runs / "ring"), num=5))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--n-critic 0 --beta1 1", "n_critic: expected at least 1, got 0\nbeta1: expected 0 to below 1"),
        ("--conv-channels 8 8 8 8", r"--conv-channels: .* 8 by 8 does not go by 16; use fewer, or images of 16 by 16"),
        ("--num-classes 3", "labels from 0 to 9"),
        ("--data rings", "expected digits, .* or ring"),
    ],
)
def test_bad_input_is_refused(argv, message, tmp_path):
    with pytest.raises(config.UsageError, match=message):
        gan.main([*argv.split(), "--workdir", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_game_that_does_not_exist_is_refused_with_those_that_do(capsys):
    with pytest.raises(SystemExit) as stopped:
        gan.main(["--loss", "chess"])
    assert stopped.value.code == 2 and "wasserstein" in capsys.readouterr().err
