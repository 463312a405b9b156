"""Workloads of several suites: two U-Nets, their weights and their cost, and loops of training steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax import data, diffusion
from genjax.models import ddpm
from genjax.nn import simple_unet, unet
from genjax.training import state, steps
from genjax.types import Loss, Params

SEED = 0


class UNetSize(NamedTuple):
    """Size of a U-Net and its images; level i has ``width * multipliers[i]`` channels."""

    side: int
    channels: int
    width: int
    multipliers: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of an image."""
        return (self.side, self.side, self.channels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)


def simple(size: UNetSize, *, norm: simple_unet.Norm = "batch", dtype: Any = None) -> unet.SimpleUNet:
    """Simple U-Net of the lecture notes."""
    return unet.SimpleUNet(size.widths, size.channels, norm=norm, dtype=dtype)


def ho(size: UNetSize, *, dtype: Any = None) -> unet.UNet:
    """U-Net of Ho et al. 2020: one block a level below a width of 64, else two; attention at half the height."""
    return unet.UNet(
        channels=size.width,
        channel_mults=size.multipliers,
        num_res_blocks=1 if size.width < 64 else 2,
        attention_resolutions=(size.side // 2,),
        dropout=0.0,
        groups=min(32, size.width // 4),
        image_channels=size.channels,
        dtype=dtype,
    )


def denoising(module: nn.Module, shape: tuple[int, int, int], num_steps: int = 300) -> ddpm.DDPM:
    """DDPM of the lecture notes: linear schedule, absolute error."""
    return ddpm.build(module, diffusion.linear_schedule(num_steps), shape, objective=diffusion.simple(ddpm.l1))


def on_bytes(loss: Loss) -> Loss:
    """Wrap a loss for images stored as bytes."""
    return lambda key, params, batch: loss(key, params, {"image": data.scale(batch["image"])})


def weights(module: nn.Module, shape: tuple[int, int, int]) -> Params:
    """Random weights of the usual size; none is zero, so that every weight affects the comparison."""
    x, t = jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, t)["params"]
    draw = np.random.default_rng(SEED).normal

    def weight(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = np.prod(leaf.shape[:-1], dtype=float) if len(leaf.shape) > 1 else 1e3
        mean = float(path[-1].key == "scale")
        return jnp.asarray(mean + draw(size=leaf.shape) / fan_in**0.5, jnp.float32)

    return jax.tree_util.tree_map_with_path(weight, shapes)


def forward_flops(module: nn.Module, shape: tuple[int, int, int]) -> float:
    """Floating-point operations of the network on one image, as XLA counts them."""
    x, t = jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), x, t)
    cost = jax.jit(module.apply).lower(params, x, t).cost_analysis()
    return float((cost or {}).get("flops", 0.0))


def noise(shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_images(num: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random images of bytes; the speed does not depend on the content."""
    return np.random.default_rng(SEED).integers(0, 256, (num, *shape), dtype=np.uint8)


def training(
    params: Params,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    images: np.ndarray,
    batch: int,
    num_steps: int,
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Build two runs of ``num_steps`` steps from ``params``: one scan, and a Python loop over the jitted step.

    Both return the final parameters. The loop reads every loss, like a trainer that shows the loss.
    """
    draw = steps.rows(batch)
    step = steps.gradient_step(on_bytes(loss), optimizer)
    rows, key = {"image": jnp.asarray(images)}, jax.random.key(SEED)
    start = state.create(params, optimizer)
    scan = jax.jit(steps.repeat(step, draw, num_steps))
    one = jax.jit(lambda key, carry, rows: step(jax.random.fold_in(key, carry.step), carry, draw(key, carry, rows)))

    def at_once() -> Any:
        return jax.block_until_ready(scan(key, start, rows)[0].params)

    def in_turn() -> Any:
        carry = start
        for _ in range(num_steps):
            carry, metrics = one(key, carry, rows)
            metrics["loss"].item()
        return jax.block_until_ready(carry.params)

    return at_once, in_turn


def flat(tree: Any) -> np.ndarray:
    """Concatenate all numbers of a tree."""
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)])
