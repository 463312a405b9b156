"""Training steps of denoising diffusion models: the notes' network and Ho's, in float32 and bfloat16."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, peers, workload
from genjax import diffusion

Variant = harness.Variant
OURS, LOOP = "genjax: the steps as one scan", "JAX: a Python loop over the jitted step"
BEHIND = (
    "XLA's convolutions on CPU reach about half the speed of oneDNN's, PyTorch's, in the forward pass and less in the "
    "weight gradient; nothing else in the step weighs as much"
)


class Size(NamedTuple):
    """Two U-Nets, images of a step for each, steps of a run, and the precisions of both."""

    simple: workload.UNetSize
    simple_batch: int
    ho: workload.UNetSize
    ho_batch: int
    steps: int
    simple_dtypes: tuple[Any, ...] = (None, jnp.bfloat16)
    ho_dtypes: tuple[Any, ...] = (None, jnp.bfloat16)


SIZES = {
    "toy": Size(
        workload.UNetSize(8, 1, 8, (1, 2)), 4, workload.UNetSize(8, 1, 8, (1, 2)), 4, 2, (None,), (jnp.bfloat16,)
    ),
    "cpu": Size(
        workload.UNetSize(32, 1, 16, (1, 2, 4, 8)), 32, workload.UNetSize(32, 3, 32, (1, 2, 2)), 16, 4, (None,), (None,)
    ),  # most processors emulate bfloat16
    "gpu": Size(
        workload.UNetSize(64, 3, 64, (1, 2, 4, 8, 16)), 128, workload.UNetSize(32, 3, 128, (1, 2, 2, 2)), 128, 20
    ),
}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the cases."""
    notes, hub = peers.adapter("notes"), peers.adapter("hub")
    for dtype in size.simple_dtypes:
        network = workload.simple(size.simple, dtype=dtype)

        def same(params: Any, ours: workload.UNetSize = size.simple) -> Any:
            return notes.simple_unet(params, ours.widths, ours.channels, "batch", notes.device(device))

        yield _case("the notes' U-Net", network, size.simple, size.simple_batch, size.steps, device, notes and same)
    for dtype in size.ho_dtypes:
        network = workload.ho(size.ho, dtype=dtype)

        def theirs(params: Any, ours: Any = network) -> Any:
            return hub.ho(params, ours, size.ho.side, notes.device(device))

        yield _case("Ho's U-Net, diffusers'", network, size.ho, size.ho_batch, size.steps, device, hub and theirs)


def _case(
    title: str, network: Any, size: workload.UNetSize, batch: int, steps: int, device: str, peer: Callable | None
) -> harness.Case:
    images, params = workload.random_images(4 * batch, size.shape), workload.weights(network, size.shape)
    narrow = network.dtype is not None
    loss = workload.denoising(network, size.shape).loss
    at_once, in_turn = workload.training(params, loss, optax.adam(1e-3), images, batch, steps)

    def theirs(layout: str, compiled: bool = False) -> harness.Run:
        return pytorch(peer(params), images, batch, steps, device, layout=layout, compiled=compiled, narrow=narrow)

    def check(outputs: Any) -> dict[str, float]:
        ends = {name: workload.flat(out) for name, out in outputs.items() if name in (OURS, LOOP)}
        # Adam's first steps are of the size of the learning rate whatever the gradient: compare with that
        differences = {"parameters after the steps, " + LOOP: harness.close(ends[LOOP], ends[OURS], 1e-2, LOOP)}
        if peer:
            differences["prediction of the same weights, PyTorch"] = _same_prediction(
                network, params, size, peer, device
            )
        return differences

    variants = [Variant(OURS, lambda: at_once), Variant(LOOP, lambda: in_turn)]
    if peer:
        variants += [
            Variant("PyTorch, eager", lambda: theirs("contiguous_format")),
            Variant("PyTorch, eager, channels_last", lambda: theirs("channels_last")),
            Variant("PyTorch, torch.compile, channels_last", lambda: theirs("channels_last", True)),
        ]
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    name = f"{title}, {count:.2g}M parameters, {batch} images of {'x'.join(map(str, size.shape))}"
    goals = {} if narrow else {"PyTorch, eager": harness.Goal(1.0, BEHIND if device == "cpu" else "")}
    flops = 3 * batch * workload.forward_flops(network, size.shape)
    return harness.Case(f"{name}, {'bfloat16' if narrow else 'float32'}", "step", steps, variants, check, flops, goals)


def pytorch(
    network: Any,
    images: np.ndarray,
    batch: int,
    steps: int,
    device: str,
    *,
    layout: str = "contiguous_format",
    compiled: bool = False,
    narrow: bool = False,
) -> harness.Run:
    """Build a run of ``steps`` steps of Adam on images on PyTorch's device; narrow is autocast to bfloat16."""
    notes = peers.adapter("notes")
    where, memory = notes.device(device), getattr(notes.torch, layout)
    network = network.to(memory_format=memory)
    chain = notes.Chain(diffusion.linear_schedule(300).beta, where)
    table = notes.images(images, where)
    called = notes.torch.compile(network) if compiled else network
    step = notes.trainer(network, lambda x: chain.loss(called, x), 1e-3, autocast=narrow)

    def run() -> None:
        for _ in range(steps):
            index = notes.torch.randint(len(table), (batch,), device=where)
            rows = (table[index].float() / 127.5 - 1).to(memory_format=memory)
            step(rows).item()
        notes.wait(where)

    return run


def _same_prediction(network: Any, params: Any, size: workload.UNetSize, peer: Callable, device: str) -> float:
    """Compare the predictions in float32; in bfloat16 the programs round differently."""
    notes = peers.adapter("notes")
    x, t = workload.noise((4, *size.shape)), np.arange(4) * 37 % 300
    mine = jax.jit(network.clone(dtype=None).apply)({"params": params}, jnp.asarray(x), jnp.asarray(t))
    where = notes.device(device)
    with notes.torch.no_grad():
        theirs = notes.back(peer(params)(notes.images(x, where), notes.tensor(t, where)))
    return harness.close(theirs, mine, 2e-2 if device == "gpu" else 1e-3, "prediction")
