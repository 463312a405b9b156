"""Reverse chains of the notes' U-Net: one scan, a Python loop over the jitted step, and the loops of others."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, peers, workload
from genjax import diffusion

Variant = harness.Variant
OURS, LOOP = "genjax: the chain as one scan", "JAX: a Python loop over the jitted step"
NOTES = "PyTorch: the notes' loop"
ALONE = "the chain adds nothing to the network alone, 1.5 times as fast as PyTorch's here: no overhead is left"
CONVOLVES = "at this batch the convolutions are all the time, and XLA's on CPU are slower than oneDNN's"


class Chain(NamedTuple):
    """Number of images at once, T of the schedule, and number of timed steps, the last of the chain."""

    batch: int
    total: int
    steps: int


class Size(NamedTuple):
    """Network, ancestral chains, and the batches, T and steps of the short chains."""

    network: workload.UNetSize
    chains: Sequence[Chain]
    compiled: bool
    short: tuple[tuple[int, ...], int, int]


SMALL = workload.UNetSize(32, 1, 16, (1, 2, 4, 8))
SIZES = {
    "toy": Size(workload.UNetSize(8, 1, 8, (1, 2)), (Chain(2, 10, 4),), True, ((2,), 20, 5)),
    "cpu": Size(
        SMALL,
        (Chain(1, 300, 300), Chain(1, 1000, 1000), Chain(16, 300, 20), Chain(64, 300, 8)),
        True,
        ((1, 16), 300, 50),
    ),
    "gpu": Size(
        workload.UNetSize(64, 3, 64, (1, 2, 4, 8, 16)),
        tuple(Chain(batch, total, total) for total in (300, 1000) for batch in (1, 16, 64)),
        True,
        ((1, 16, 64), 1000, 50),
    ),
}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the cases."""
    network = workload.simple(size.network)
    params = workload.weights(network, size.network.shape)
    for chain in size.chains:
        yield _ancestral(chain, size, params, device)
    for batch in dict.fromkeys(chain.batch for chain in size.chains):
        yield _alone(batch, size, params, device)
    batches, total, steps = size.short
    for batch in batches:
        yield _short(Chain(batch, total, steps), size, params, device)


def _theirs(size: Size, params: Any, device: str, x: np.ndarray) -> tuple[Any, Any, Any]:
    """Adapter, lecture notes' network with our weights, and noise on PyTorch's device."""
    notes = peers.adapter("notes")
    where = notes.device(device)
    network = notes.simple_unet(params, size.network.widths, size.network.channels, "batch", where)
    return notes, network, notes.images(x, where)


def _ancestral(chain: Chain, size: Size, params: Any, device: str) -> harness.Case:
    apply = workload.simple(size.network).apply
    beta = diffusion.linear_schedule(chain.total).beta[: chain.steps]
    schedule = diffusion.from_beta(beta)
    x = workload.noise((chain.batch, *size.network.shape))
    keys, start = jax.random.split(jax.random.key(workload.SEED), chain.batch), jnp.asarray(x)
    denoise = lambda params: lambda x, t: apply({"params": params}, x, t)
    sampler = lambda params, **more: diffusion.ancestral(denoise(params), schedule, clip=False, **more)
    whole = jax.jit(lambda params, x: sampler(params)(keys, x))
    still = jax.jit(lambda params, x: sampler(params, variance=np.zeros(chain.steps))(keys, x))

    def in_turn() -> harness.Run:
        step = jax.jit(lambda params, x, t: _step(denoise(params), schedule, keys, x, t))

        def run() -> Any:
            image = start
            for t in reversed(range(chain.steps)):
                image = step(params, image, t)
            return image.block_until_ready()

        return run

    def notes_loop(wrap: Callable = lambda network: network) -> harness.Run:
        notes, network, noise = _theirs(size, params, device, x)
        process, called = notes.Chain(beta, noise.device), wrap(network)
        return notes.waiting(lambda: process.sample(called, noise, chain.steps), noise.device)

    def lucid() -> harness.Run:
        notes, network, noise = _theirs(size, params, device, x)
        other = peers.adapter("lucidrains")
        process = other.diffusion(network, size.network.channels, size.network.side, beta)
        return notes.waiting(lambda: other.sample(process, noise), noise.device)

    def hub() -> harness.Run:
        notes, network, noise = _theirs(size, params, device, x)
        other = peers.adapter("hub")
        scheduler = other.ddpm(np.asarray(beta))
        return notes.waiting(lambda: other.sample(network, scheduler, noise, chain.steps), noise.device)

    def check(outputs: Any) -> dict[str, float]:
        if not peers.adapter("notes"):
            return {}
        notes, network, noise = _theirs(size, params, device, x)
        theirs = notes.Chain(beta, noise.device).sample(
            network, noise, chain.steps, notes.torch.zeros(chain.steps, *noise.shape, device=noise.device)
        )
        tolerance = 5e-2 if device == "gpu" else 1e-3
        mine = still(params, start)
        return {"the chain without noise, PyTorch": harness.close(notes.back(theirs), mine, tolerance, "chain")}

    ours = Variant(OURS, lambda: lambda: whole(params, start).block_until_ready())
    variants = [ours, Variant(LOOP, in_turn)]
    if notes := peers.adapter("notes"):
        variants.append(Variant(NOTES, notes_loop))
        if chain.total == 300 or device == "gpu" or chain.steps < 100:
            layout = lambda network: network.to(memory_format=notes.torch.channels_last)
            variants.append(Variant("PyTorch: the notes' loop, channels_last", lambda: notes_loop(layout)))
            if size.compiled and chain.batch == 1 or device == "gpu":
                variants.append(
                    Variant("PyTorch: the notes' loop, torch.compile", lambda: notes_loop(notes.torch.compile))
                )
            variants += [Variant("diffusers: DDPMScheduler", hub)] if peers.adapter("hub") else []
            variants += [Variant("denoising-diffusion-pytorch: p_sample", lucid)] if peers.adapter("lucidrains") else []
    part = "" if chain.steps == chain.total else f", its last {chain.steps} steps"
    name = f"ancestral, T = {chain.total}{part}, batch {chain.batch}"
    flops = chain.batch * workload.forward_flops(workload.simple(size.network), size.network.shape)
    goals = {1: {NOTES: harness.Goal(2.5, ALONE)}, 16: {NOTES: harness.Goal(1.1, CONVOLVES)}}.get(chain.batch, {})
    return harness.Case(name, "step", chain.steps, variants, check, flops, goals)


def _step(denoise: diffusion.Denoise, schedule: diffusion.Schedule, keys: Any, x: Any, t: Any) -> Any:
    """Build one step as users of JAX write it, with the arithmetic of the lecture notes' loop."""
    times = jnp.broadcast_to(t, x.shape[:1])
    beta, alpha_bar = jnp.asarray(schedule.beta)[t], jnp.asarray(schedule.alpha_bar)[t]
    mean = (x - beta * denoise(x, times) / jnp.sqrt(1 - alpha_bar)) / jnp.sqrt(1 - beta)
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, t), x.shape[1:])
    return mean + jnp.where(t > 0, jnp.sqrt(jnp.asarray(schedule.posterior_variance)[t]), 0) * jax.vmap(draw)(keys)


def _alone(batch: int, size: Size, params: Any, device: str) -> harness.Case:
    """Time the network alone; the rest of a step of the chain is overhead."""
    x, t = workload.noise((batch, *size.network.shape)), np.arange(batch) * 37 % 300
    called = jax.jit(workload.simple(size.network).apply)
    images, times = jnp.asarray(x), jnp.asarray(t)

    def theirs() -> harness.Run:
        notes, network, noise = _theirs(size, params, device, x)
        when = notes.tensor(t, noise.device)

        def run() -> Any:
            with notes.torch.no_grad():
                return network(noise, when)

        return notes.waiting(run, noise.device)

    def check(outputs: Any) -> dict[str, float]:
        tolerance, mine = (2e-2 if device == "gpu" else 1e-3), outputs["genjax: jitted"]
        return {
            name: harness.close(peers.adapter("notes").back(out), mine, tolerance, name)
            for name, out in outputs.items()
            if name.startswith("PyTorch")
        }

    variants = [
        Variant("genjax: jitted", lambda: lambda: called({"params": params}, images, times).block_until_ready())
    ]
    variants += [Variant("PyTorch, eager", theirs)] if peers.adapter("notes") else []
    flops = batch * workload.forward_flops(workload.simple(size.network), size.network.shape)
    return harness.Case(f"the network alone, batch {batch}", "call", 1, variants, check, flops)


def _short(chain: Chain, size: Size, params: Any, device: str) -> harness.Case:
    """Time short chains; our DDIM and that of diffusers must end in the same images."""
    apply, beta = workload.simple(size.network).apply, diffusion.linear_schedule(chain.total).beta
    x = workload.noise((chain.batch, *size.network.shape))
    denoise = lambda params: lambda x, t: apply({"params": params}, x, t)
    keys, start = jax.random.split(jax.random.key(workload.SEED), chain.batch), jnp.asarray(x)
    whole = jax.jit(
        lambda params, x: diffusion.ddim(denoise(params), diffusion.from_beta(beta), num_steps=chain.steps, clip=False)(
            keys, x
        )
    )

    def theirs(scheduler: str) -> harness.Run:
        notes, network, noise = _theirs(size, params, device, x)
        hub = peers.adapter("hub")
        made = getattr(hub, scheduler)(np.asarray(beta))
        return notes.waiting(lambda: hub.sample(network, made, noise, chain.steps), noise.device)

    def lucid() -> harness.Run:
        notes, network, noise = _theirs(size, params, device, x)
        other = peers.adapter("lucidrains")
        process = other.diffusion(network, size.network.channels, size.network.side, beta, chain.steps)
        return notes.waiting(lambda: process.sample(chain.batch), noise.device)

    def check(outputs: Any) -> dict[str, float]:
        name = "diffusers: DDIMScheduler"
        if name not in outputs:
            return {}
        theirs = peers.adapter("notes").back(outputs[name])
        return {name: harness.close(theirs, outputs[f"{OURS}, DDIM"], 5e-2 if device == "gpu" else 1e-3, name)}

    variants = [Variant(f"{OURS}, DDIM", lambda: lambda: whole(params, start).block_until_ready())]
    if peers.adapter("hub"):
        variants.append(Variant("diffusers: DDIMScheduler", lambda: theirs("ddim")))
        variants.append(Variant("diffusers: DPMSolverMultistepScheduler", lambda: theirs("dpm_solver")))
    if peers.adapter("lucidrains"):
        variants.append(Variant("denoising-diffusion-pytorch: ddim_sample", lucid))
    return harness.Case(f"{chain.steps} steps of T = {chain.total}, batch {chain.batch}", "chain", 1, variants, check)
