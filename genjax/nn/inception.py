"""Features of Inception v3 (Szegedy et al. 2016, arXiv:1512.00567), for the Fréchet inception distance.

The network is that of Heusel et al. 2017, which differs from the published one in two points: average pooling leaves
the padding out, and the last block pools by maximum. The user brings the weights: ``from_tensors`` takes tensors by
their names in PyTorch.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks
from genjax.types import Params, Pixels

SIZE = 299  # height and width of the resized images
Maps = Float[Array, "_ _ _ _"]


class Inception(nn.Module):
    """``network(images) -> features [b 2048]`` of images in [-1, 1] of any size, with one or three channels."""

    @nn.compact
    def __call__(self, images: Pixels) -> Float[Array, "b 2048"]:
        """Resize images to 299x299, bilinearly and without antialiasing, and return the means of the last maps."""
        checks.floating("images", images, checks.SCALE)
        if images.shape[-1] not in (1, 3):
            raise ValueError(f"images: expected one or three channels, got {images.shape[-1]}")
        rgb = jnp.broadcast_to(images, (*images.shape[:3], 3))
        x = jax.image.resize(rgb, (len(images), SIZE, SIZE, 3), "linear", antialias=False)
        x = _Unit(32, 3, 2, name="Conv2d_1a_3x3")(x)
        x = _Unit(32, 3, name="Conv2d_2a_3x3")(x)
        x = _halve(_Unit(64, 3, padding=1, name="Conv2d_2b_3x3")(x))
        x = _halve(_Unit(192, 3, name="Conv2d_4a_3x3")(_Unit(80, 1, name="Conv2d_3b_1x1")(x)))
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = _A(pooled, name=name)(x)
        x = _B(name="Mixed_6a")(x)
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = _C(width, name=name)(x)
        x = _D(name="Mixed_7a")(x)
        x = _E(_average, name="Mixed_7b")(x)
        x = _E(_maximum, name="Mixed_7c")(x)
        return x.mean((1, 2))


def from_tensors(tensors: Mapping[str, np.ndarray]) -> Params:
    """Parameters of ``Inception`` from tensors by their names in PyTorch, such as ``Mixed_5b.branch1x1.conv.weight``.

    Tensors of the classifier's heads are ignored.

    Raises:
      ValueError: tensors are missing or have another shape; the message names them.
    """
    image = jnp.zeros((1, SIZE, SIZE, 3))
    expected = jax.eval_shape(lambda: Inception().init(jax.random.key(0), image)["params"])
    wrong = []

    def find(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        *module, last = (str(entry.key) for entry in path)
        name = ".".join([*module, _TENSORS[last]])
        tensor = np.asarray(tensors.get(name, np.zeros(0)), np.float32)
        tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        if tensor.shape != leaf.shape:
            wrong.append(f"{name}: expected {leaf.shape}, got {tensor.shape if name in tensors else 'nothing'}")
        return jnp.asarray(tensor)

    params = jax.tree_util.tree_map_with_path(find, expected)
    if wrong:
        raise ValueError(
            f"no weights of Inception v3: {len(wrong)} tensors are wrong, the first:\n" + "\n".join(wrong[:5])
        )
    return params


_TENSORS = {
    "kernel": "conv.weight",
    "scale": "bn.weight",
    "bias": "bn.bias",
    "mean": "bn.running_mean",
    "var": "bn.running_var",
}


class _Unit(nn.Module):
    """Convolution, normalisation by fixed statistics, ReLU."""

    features: int
    size: int | tuple[int, int]
    stride: int = 1
    padding: int | tuple[int, int] = 0

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        size = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        padding = self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (*size, x.shape[-1], self.features))
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        starts = {"scale": ones, "bias": zeros, "mean": zeros, "var": ones}
        scale, bias, mean, var = (self.param(name, start, (self.features,)) for name, start in starts.items())
        edges = [(p, p) for p in padding]
        x = jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), edges, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return nn.relu((x - mean) * (scale * jax.lax.rsqrt(var + 1e-3)) + bias)


class _A(nn.Module):
    pooled: int

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        one = _Unit(64, 1, name="branch1x1")(x)
        five = _Unit(64, 5, padding=2, name="branch5x5_2")(_Unit(48, 1, name="branch5x5_1")(x))
        three = _Unit(96, 3, padding=1, name="branch3x3dbl_2")(_Unit(64, 1, name="branch3x3dbl_1")(x))
        three = _Unit(96, 3, padding=1, name="branch3x3dbl_3")(three)
        pool = _Unit(self.pooled, 1, name="branch_pool")(_average(x))
        return jnp.concatenate([one, five, three, pool], -1)


class _B(nn.Module):
    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        one = _Unit(384, 3, 2, name="branch3x3")(x)
        two = _Unit(96, 3, padding=1, name="branch3x3dbl_2")(_Unit(64, 1, name="branch3x3dbl_1")(x))
        return jnp.concatenate([one, _Unit(96, 3, 2, name="branch3x3dbl_3")(two), _halve(x)], -1)


class _C(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        def seven(prefix: str, widths: tuple[int, ...], across: tuple[bool, ...]) -> Maps:
            h = _Unit(self.width, 1, name=f"{prefix}_1")(x)
            for i, (width, wide) in enumerate(zip(widths, across, strict=True), 2):
                size, padding = ((1, 7), (0, 3)) if wide else ((7, 1), (3, 0))
                h = _Unit(width, size, padding=padding, name=f"{prefix}_{i}")(h)
            return h

        once = seven("branch7x7", (self.width, 192), (True, False))
        twice = seven("branch7x7dbl", (*3 * (self.width,), 192), (False, True, False, True))
        pool = _Unit(192, 1, name="branch_pool")(_average(x))
        return jnp.concatenate([_Unit(192, 1, name="branch1x1")(x), once, twice, pool], -1)


class _D(nn.Module):
    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        three = _Unit(320, 3, 2, name="branch3x3_2")(_Unit(192, 1, name="branch3x3_1")(x))
        seven = _Unit(192, (1, 7), padding=(0, 3), name="branch7x7x3_2")(_Unit(192, 1, name="branch7x7x3_1")(x))
        seven = _Unit(192, (7, 1), padding=(3, 0), name="branch7x7x3_3")(seven)
        return jnp.concatenate([three, _Unit(192, 3, 2, name="branch7x7x3_4")(seven), _halve(x)], -1)


class _E(nn.Module):
    pool: Any

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        def both(prefix: str, h: Maps) -> Maps:
            across = _Unit(384, (1, 3), padding=(0, 1), name=f"{prefix}a")(h)
            return jnp.concatenate([across, _Unit(384, (3, 1), padding=(1, 0), name=f"{prefix}b")(h)], -1)

        one = _Unit(320, 1, name="branch1x1")(x)
        three = both("branch3x3_2", _Unit(384, 1, name="branch3x3_1")(x))
        twice = _Unit(384, 3, padding=1, name="branch3x3dbl_2")(_Unit(448, 1, name="branch3x3dbl_1")(x))
        pool = _Unit(192, 1, name="branch_pool")(self.pool(x))
        return jnp.concatenate([one, three, both("branch3x3dbl_3", twice), pool], -1)


def _halve(x: Maps) -> Maps:
    return nn.max_pool(x, (3, 3), (2, 2))


def _maximum(x: Maps) -> Maps:
    return nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))


def _average(x: Maps) -> Maps:
    return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)
