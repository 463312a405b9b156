"""Growth of the cost with the batch, the resolution, T, the number of seeds trained at once, and the devices."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, peers, workload
from benchmarks.suites import training
from genjax import diffusion
from genjax.training import parallel, state, steps
from train import vae

Variant = harness.Variant


class Size(NamedTuple):
    """Network, varied sizes, steps of a run, and images of a step on several devices."""

    network: workload.UNetSize
    batches: tuple[int, ...]
    sides: tuple[int, ...]
    chains: tuple[int, ...]
    seeds: tuple[int, ...]
    seed_steps: int
    steps: int
    global_batch: int


SIZES = {
    "toy": Size(workload.UNetSize(8, 1, 8, (1, 2)), (2, 4), (4, 8), (5, 10), (1, 2), 3, 2, 8),
    "cpu": Size(
        workload.UNetSize(32, 1, 16, (1, 2, 4, 8)),
        (4, 8, 16, 32, 64), (16, 32, 64), (50, 100, 200, 400), (1, 2, 4, 8), 50, 2, 64,
    ),
    "gpu": Size(
        workload.UNetSize(64, 3, 64, (1, 2, 4, 8)),
        (16, 32, 64, 128, 256), (32, 64, 128), (100, 300, 1000), (1, 4, 16, 64), 469, 10, 256,
    ),
}  # fmt: skip


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the cases."""
    for batch in size.batches:
        yield _training(size.network, batch, size.steps, device, "batch", batch)
    for side in size.sides:
        yield _training(size.network._replace(side=side), size.batches[1], size.steps, device, "resolution", side)
    for num_steps in size.chains:
        yield _chain(size.network, num_steps)
    for num in size.seeds:
        yield _seeds(num, size.seed_steps)
    counts = [n for n in (1, 2, 4, 8) if n <= jax.local_device_count()]
    for count in counts:
        yield _devices(size, count)


def _training(
    network: workload.UNetSize, batch: int, num_steps: int, device: str, axis: str, value: float
) -> harness.Case:
    """Time training of the lecture notes' U-Net, ours and PyTorch's."""
    module, notes = workload.simple(network), peers.adapter("notes")
    params, images = workload.weights(module, network.shape), workload.random_images(4 * batch, network.shape)
    loss = workload.denoising(module, network.shape).loss
    ours, _ = workload.training(params, loss, optax.adam(1e-3), images, batch, num_steps)

    def theirs() -> harness.Run:
        peer = notes.simple_unet(params, network.widths, network.channels, "batch", notes.device(device))
        return training.pytorch(peer, images, batch, num_steps, device)

    variants = [Variant("genjax", lambda: ours)]
    variants += [Variant("PyTorch, eager", theirs)] if notes else []
    name = f"a training step, {batch} images of {'x'.join(map(str, network.shape))}"
    return harness.Case(name, "step", num_steps, variants, axis=axis, value=value)


def _chain(network: workload.UNetSize, num_steps: int) -> harness.Case:
    module = workload.simple(network)
    params = workload.weights(module, network.shape)
    denoise = lambda params: lambda x, t: jnp.asarray(module.apply({"params": params}, x, t))
    schedule, x = diffusion.linear_schedule(num_steps), jnp.asarray(workload.noise((1, *network.shape)))
    sample = jax.jit(lambda params, x: diffusion.ancestral(denoise(params), schedule)(jax.random.key(0), x))
    run = lambda: sample(params, x).block_until_ready()
    name = f"a chain of T = {num_steps}, batch 1"
    return harness.Case(name, "chain", 1, [Variant("genjax", lambda: run)], axis="T", value=num_steps)


def _seeds(num: int, num_steps: int) -> harness.Case:
    """Time VAEs of several seeds in one program; the first must end as it does alone."""
    ours, images = vae.model(vae.Config(), (28, 28, 1)), workload.random_images(4096, (28, 28, 1))
    optimizer, rows = optax.adam(1e-3), {"image": jnp.asarray(images)}
    step = steps.gradient_step(workload.on_bytes(ours.loss), optimizer)
    run, keys = steps.repeat(step, steps.rows(128), num_steps), jax.vmap(jax.random.key)(jnp.arange(num))
    start = jax.jit(jax.vmap(lambda key: state.create(ours.init(key), optimizer)))(keys)
    many = jax.jit(jax.vmap(run, (0, 0, None)))

    def check(outputs: Any) -> dict[str, float]:
        alone = jax.jit(run)(keys[0], jax.tree.map(lambda a: a[0], start), rows)[0].params
        first = jax.tree.map(lambda a: a[0], outputs["genjax"])
        return {
            "parameters of the first seed alone": harness.close(
                workload.flat(first), workload.flat(alone), 1e-4, "seeds"
            )
        }

    together = lambda: jax.block_until_ready(many(keys, start, rows)[0].params)
    name = f"{num_steps} steps of {num} VAEs at once"
    return harness.Case(name, "run", 1, [Variant("genjax", lambda: together)], check, axis="seeds", value=num)


def _devices(size: Size, count: int) -> harness.Case:
    """Time Ho's U-Net with a batch spread over devices."""
    module = workload.ho(size.network)
    params, images = workload.weights(module, size.network.shape), workload.random_images(256, size.network.shape)
    optimizer, devices = optax.adam(1e-3), jax.local_devices()[:count]
    loss = workload.on_bytes(workload.denoising(module, size.network.shape).loss)
    step = steps.gradient_step(loss, optimizer, axis_name=parallel.AXIS)
    several = steps.repeat(step, steps.rows(size.global_batch, axis_name=parallel.AXIS), size.steps)
    spread = parallel.distribute(several, devices)
    rows = parallel.replicate({"image": jnp.asarray(images)}, devices)
    first = state.create(params, optimizer)

    def run() -> Any:
        start = parallel.replicate(jax.tree.map(np.asarray, first), devices)  # the run consumes it
        return jax.block_until_ready(parallel.unreplicate(spread(jax.random.key(0), start, rows)[0].params))

    name = f"a training step of Ho's U-Net, {size.global_batch} images over {count} devices"
    return harness.Case(name, "step", size.steps, [Variant("genjax", lambda: run)], axis="devices", value=count)
