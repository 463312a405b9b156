"""Inception v3 against the network that made the published distances, at random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import inception


def tensors():
    """Random weights by PyTorch's names, statistics positive; scaled so that signals keep their size."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: inception.Inception().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"])
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        *module, last = (entry.key for entry in path)
        name = ".".join([*module, inception._TENSORS[last]])
        if last == "kernel":
            kernel = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:3]))
            found[name] = kernel.transpose(3, 2, 0, 1)
        else:
            found[name] = rng.uniform(0.5, 1.5, leaf.shape) if last in ("scale", "var") else rng.normal(size=leaf.shape)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}


@pytest.mark.slow
def test_features_are_those_of_the_network_of_published_distances():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("pytorch_fid.inception")
    network = theirs.InceptionV3.__new__(theirs.InceptionV3)
    blocks = theirs._inception_v3(weights=None, aux_logits=False, num_classes=1008)
    for name, make in (
        ("Mixed_5b", lambda: theirs.FIDInceptionA(192, pool_features=32)),
        ("Mixed_5c", lambda: theirs.FIDInceptionA(256, pool_features=64)),
        ("Mixed_5d", lambda: theirs.FIDInceptionA(288, pool_features=64)),
        ("Mixed_6b", lambda: theirs.FIDInceptionC(768, channels_7x7=128)),
        ("Mixed_6c", lambda: theirs.FIDInceptionC(768, channels_7x7=160)),
        ("Mixed_6d", lambda: theirs.FIDInceptionC(768, channels_7x7=160)),
        ("Mixed_6e", lambda: theirs.FIDInceptionC(768, channels_7x7=192)),
        ("Mixed_7b", lambda: theirs.FIDInceptionE_1(1280)),
        ("Mixed_7c", lambda: theirs.FIDInceptionE_2(2048)),
    ):
        setattr(blocks, name, make())
    del network
    weights = tensors()
    missing = blocks.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in k or k.startswith("fc") for k in missing.missing_keys)
    blocks.eval()
    seen = {}
    blocks.avgpool.register_forward_hook(lambda module, inputs, output: seen.update(features=output))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        large = torch.nn.functional.interpolate(
            torch.tensor(images.transpose(0, 3, 1, 2)), size=(299, 299), mode="bilinear", align_corners=False
        )
        blocks.transform_input = False
        blocks(large)
    params = inception.from_tensors(weights)
    ours = jax.jit(lambda images: inception.Inception().apply({"params": params}, images))(images)
    wanted = seen["features"].numpy()[:, :, 0, 0]
    assert np.allclose(ours, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    changed = inception.from_tensors({**weights, "Mixed_7c.branch_pool.bn.bias": np.full(192, 9, np.float32)})
    other = jax.jit(lambda images: inception.Inception().apply({"params": changed}, images))(images)
    assert not np.allclose(other, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_tensors_that_are_missing_or_misshapen_are_named():
    found = tensors()
    del found["Mixed_5b.branch1x1.conv.weight"]
    found["Conv2d_1a_3x3.bn.bias"] = np.zeros(7)
    with pytest.raises(ValueError, match="2 tensors are wrong") as caught:
        inception.from_tensors(found)
    assert "Mixed_5b.branch1x1.conv.weight: expected (1, 1, 192, 64), got nothing" in str(caught.value)
    assert "Conv2d_1a_3x3.bn.bias: expected (32,), got (7,)" in str(caught.value)
