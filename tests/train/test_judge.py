"""``python -m train.judge``: real images are at the floor, noise is not."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

from train import classifier, gan, judge, sample
from train.run import config, features

TINY = "--every 100 --log-every 50 --steps-per-call 50".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    classifier.main([*TINY, "--steps", "200", "--workdir", str(folder / "classifier")])
    argv = ["--hidden", "8", "--latent-dim", "4", "--steps", "1", "--every", "1", "--workdir", str(folder / "gan")]
    gan.main([*argv, "--log-every", "1", "--steps-per-call", "1"])
    return folder


def settings(runs, **more):
    return judge.Judge(str(runs / "gan"), classifier=str(runs / "classifier"), **more)


def test_an_untrained_generator_is_far_from_the_reference(runs, monkeypatch):
    metrics = judge.feature_metrics(settings(runs))
    poor, reference = judge.judge(settings(runs), metrics), metrics.reference(197)
    assert poor["num"] == 197 and sum(poor["drawn"]["shares"]) == pytest.approx(1, abs=1e-3)
    assert poor["drawn"]["frechet"] > 10 * reference["frechet"] and poor["drawn"]["coverage"] < 0.2
    assert reference["classes"] == 10 and reference["coverage"] > 0.9 and reference["precision"] > 0.9
    train = metrics.real.train["image"]
    monkeypatch.setattr(judge.sample, "draw", lambda _: train[:197])
    copied = judge.judge(settings(runs), metrics)
    assert copied["drawn"]["frechet"] < 0.2 * poor["drawn"]["frechet"]
    assert copied["drawn"]["copies_ratio"] == 0 and copied["drawn"]["copies_share"] == 1


def test_images_of_another_shape_and_too_few_are_refused(runs, monkeypatch):
    with pytest.raises(config.UsageError, match="num: expected more images than neighbours, 5; got 5"):
        judge.judge(settings(runs, num=5))
    with pytest.raises(config.UsageError, match="num: expected at most 197, .* got 198"):
        judge.judge(settings(runs, num=198))
    monkeypatch.setattr(sample, "draw", lambda _: np.zeros((197, 4, 4, 1), np.uint8))
    with pytest.raises(config.UsageError, match=r"images: expected the shape \(8, 8, 1\) of digits; got \(4, 4, 1\)"):
        judge.judge(settings(runs))


def test_weights_of_inception_that_are_none_are_refused(runs, tmp_path):
    with pytest.raises(config.UsageError, match="inception .*none.safetensors: there is no such file"):
        judge.judge(settings(runs, inception=str(tmp_path / "none.safetensors")))
    junk, other = tmp_path / "junk.safetensors", tmp_path / "other.safetensors"
    junk.write_bytes(b"no weights")
    safetensors.numpy.save_file({"fc.weight": np.zeros(3, np.float32)}, other)
    strange = tmp_path / "strange.safetensors"  # of a type that NumPy has no name for
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    strange.write_bytes(struct.pack("<Q", len(header)) + header + b"ab")
    pairs = ((junk, "header"), (other, "no weights of Inception v3: .* tensors are wrong"), (strange, "float8"))
    for path, message in pairs:
        with pytest.raises(config.UsageError, match=message):
            judge.judge(settings(runs, inception=str(path)))


def test_other_features_need_no_classes(runs):
    pixels = lambda images: (images.reshape(len(images), -1) / 255.0, None)
    extractor = features.FeatureExtractor("of pixels", "distance", pixels, 0)
    metrics = features.metrics(extractor, classifier.Config(), 5)
    result = judge.judge(settings(runs), metrics)
    assert result["features"] == "of pixels" and "classes" not in result["drawn"]
    assert result["drawn"]["frechet"] > 5 * metrics.reference(197)["frechet"]
