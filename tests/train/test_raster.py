"""PixelCNN and PixelRNN from the command line: scores, samples, completions, and a prior over the codes of a VQ-VAE."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from genjax import data
from train import evaluate, pixelcnn, pixelrnn, sample, vqvae
from train.checkpoint import store
from train.run import codes, config, load
from train.run.recipe import named

TINY = "--steps 20 --every 20 --log-every 10 --steps-per-call 10 --batch-size 16 --num-samples 4 --head 8 --layers 2"
TINY = (*TINY.split(), "--features", "4")
CODEBOOK = "--steps 40 --every 40 --log-every 20 --steps-per-call 20 --codebook-size 8 --embedding-dim 4"
CODEBOOK = (*CODEBOOK.split(), "--conv-channels", "8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raster")
    vqvae.main([*CODEBOOK, "--likelihood", "logistic", "--workdir", str(folder / "vqvae")])
    pixelcnn.main([*TINY, "--workdir", str(folder / "gated")])
    argv = ("--config", "codes", "--levels", "8", "--data", f"codes:{folder}/vqvae")
    pixelcnn.main([*argv, *TINY, "--workdir", str(folder / "codes")])
    return folder


def last(workdir):
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])


def test_a_run_is_scored_as_it_was_in_training(runs):
    row = evaluate.scores(evaluate.Evaluate(str(runs / "gated"), num=0))
    report = last(runs / "gated")
    assert row["pixels"] == "17 levels" and "197 of 197" in row["split"]
    assert np.isclose(row["log_prob"]["nats"], -report["heldout_loss"], rtol=1e-5)
    assert np.isclose(row["log_prob"]["bits_per_dim"], report["heldout_bits_per_dim"], rtol=1e-5)
    assert np.isclose(report["heldout_bits_per_dim"], report["heldout_loss"] / np.log(2) / 64, rtol=1e-5)


def test_pictures_keep_what_is_known_and_samples_depend_on_their_number_only(runs, tmp_path):
    with Image.open(runs / "gated" / "samples" / "completion.png") as image:
        sheet = np.asarray(image)
    unit = sheet.shape[0] // 46  # five rows of eight pixels and a gap
    upper, lower = ([sheet[(9 * i + first) * unit :][: 4 * unit] for i in range(5)] for first in (1, 5))
    assert all(np.array_equal(upper[0], row) for row in upper[1:])
    assert not any(np.array_equal(lower[0], row) for row in lower[1:])
    draw = lambda num, **more: sample.draw(sample.Sample(str(runs / "gated"), num=num, batch_size=4, **more))
    assert draw(6).shape == (6, 8, 8, 1) and np.array_equal(draw(6)[:3], draw(3))
    assert not np.array_equal(draw(3), draw(3, temperature=0.2))


def test_a_code_in_two_parts_is_as_long_as_both(runs):
    row = evaluate.scores(evaluate.Evaluate(str(runs / "codes"), num=0))
    assert np.isclose(row["both"]["nats"], row["codes"]["nats"] + row["images"]["nats"])
    assert np.isclose(row["codes"]["nats"], -last(runs / "codes")["heldout_loss"], rtol=1e-5)
    assert np.isclose(row["both"]["bits_per_dim"], -row["both"]["nats"] / np.log(2) / 64)  # of the image, not its map
    drawn = sample.draw(sample.Sample(str(runs / "codes"), num=3))
    assert drawn.shape == (3, 8, 8, 1) and len(np.unique(drawn)) > 8


def test_codes_are_those_of_the_run(runs):
    settings = pixelcnn.Config(data=f"codes:{runs}/vqvae", levels=8)
    maps = codes.load_maps(settings, settings.levels)
    assert maps.train["image"].shape == (1600, 4, 4, 1) and set(np.unique(maps.train["image"])) <= set(range(8))
    run, model, params = codes.maker(f"{runs}/vqvae")
    heldout = codes.load_images(run).heldout
    images = jnp.asarray(heldout["image"][:5], jnp.float32) / 127.5 - 1
    assert np.array_equal(model.encode(params, images), maps.heldout["image"][:5, ..., 0])
    assert np.array_equal(maps.heldout["label"], heldout["label"])


@pytest.mark.parametrize(
    ("script", "argv", "message"),
    [
        (
            pixelcnn,
            "--levels 5 --num-classes 0",
            "digits has pixels of 17 levels, which are not among 5, evenly spaced",
        ),
        (pixelcnn, "--likelihood bernoulli", "use --binarization dynamic, or --likelihood categorical or mixture"),
        (pixelrnn, "--binarization dynamic", "dynamic pixels want --likelihood bernoulli, not categorical"),
        (pixelrnn, "--binarization static --likelihood bernoulli", "has 17 levels, not black and white alone"),
        (pixelcnn, "--num-classes 5", "labels from 0 to 9; expected 0 to 4; use --num-classes 10"),
        (pixelcnn, "--stacks plain", "plain masked convolutions take no labels"),
        (pixelcnn, "--kernel-size 4 --temperature 0", "kernel_size: expected an odd width, got 4"),
        (pixelcnn, "--data codes:{runs}/vqvae --levels 17 --num-classes 0", "codebook of 8 entries; use --levels 8"),
        (pixelcnn, "--data codes:{runs}/vqvae --likelihood mixture", "codes are names, which want --likelihood cat"),
        (pixelcnn, "--data codes:", "expected digits, .* or codes:WORKDIR of a VQ-VAE"),
        (vqvae, "--data codes:runs/x", r"expected digits, tfds:NAME, folder:PATH or npz:PATH\[#KEY\]$"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(script, argv, message, runs, tmp_path):
    with pytest.raises(config.UsageError, match=message):
        script.main([*argv.format(runs=runs).split(), "--workdir", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "config.json").exists()


def test_codes_of_no_run_or_another_model_are_refused(runs, tmp_path):
    for where, message in (
        (tmp_path, "holds no run"),
        (runs / "gated", r"trained by train.pixelcnn; expected a run of"),
    ):
        with pytest.raises(store.CheckpointError, match=message):
            pixelcnn.main(["--config", "codes", "--data", f"codes:{where}", "--workdir", str(tmp_path / "run")])


def test_continuous_pixels_have_no_code(runs, monkeypatch):
    run, model, params = codes.maker(f"{runs}/vqvae")
    continuous = run._replace(settings=dataclasses.replace(run.settings, likelihood="gaussian"))
    monkeypatch.setattr(codes, "maker", lambda workdir: (continuous, model, params))
    with pytest.raises(config.UsageError, match="likelihood of continuous pixels .* --likelihood logistic"):
        evaluate.scores(evaluate.Evaluate(str(runs / "codes"), num=5))


def test_codes_are_read_with_the_model_that_made_them_only(runs, tmp_path):
    """As when the VQ-VAE was trained on since: other parameters, other codes."""
    shutil.copytree(runs / "codes", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    described = json.loads(path.read_text())
    kind, digest, images = described["data"]["fingerprint"].split(":")
    recorded = json.loads((runs / "vqvae" / "config.json").read_text())["data"]["fingerprint"]
    assert (kind, images) == ("codes", recorded) and len(digest) == 64
    described["data"]["fingerprint"] = f"codes:{digest[::-1]}:{images}"
    path.write_text(json.dumps(described))
    with pytest.raises(store.CheckpointError, match="codes of another checkpoint"):
        sample.draw(sample.Sample(str(tmp_path / "run"), num=1))
    with pytest.raises(data.DataError, match="trained on other data"):
        evaluate.scores(evaluate.Evaluate(str(tmp_path / "run"), num=5))
    argv = ("--config", str(path), "--steps", "40", "--override-resume", "--workdir", str(tmp_path / "run"))
    with pytest.raises(config.UsageError, match="trained on other data"):
        pixelcnn.main(argv)


def test_a_record_of_codes_that_cannot_be_told_apart_is_taken_at_its_word(runs, capsys):
    """Older records have the fingerprint of the maps, which differ by an index between versions."""
    run = load.record(runs / "codes", named("pixelcnn"))
    about = run.described["data"] | {"fingerprint": "0" * 64}
    load.check_data(run._replace(described={"data": about}), "codes:1:2", "3")
    assert "taken to be of the same VQ-VAE" in capsys.readouterr().err
    for other, found in ((about | {"name": "digits"}, "codes:1:2"), (about, "3")):
        with pytest.raises(data.DataError, match="trained on other data"):
            load.check_data(run._replace(described={"data": other}), found)
