"""An epoch of the notes' VAE: one scan, a Python loop over the jitted step, and PyTorch with its DataLoader."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, peers, workload
from genjax import data, random
from genjax.models.vae import VAE
from train import vae

READY = (
    "matrix products, at which both are alike, are more than half of our time, and PyTorch's loop is fed tensors "
    "that are ready where the notes decode images"
)
Variant = harness.Variant
SHAPE = (28, 28, 1)
OURS, LOOP, NOTES = (
    "genjax: the epoch as one scan",
    "JAX: a Python loop over the jitted step",
    "PyTorch: the notes' loop",
)


class Size(NamedTuple):
    """Numbers of images of an epoch and of a step, and widths of the hidden layers and of the latents."""

    images: int
    batch: int
    widths: tuple[tuple[int, int], ...]


SIZES = {
    "toy": Size(256, 64, ((16, 2),)),
    "cpu": Size(60_000, 128, ((256, 2), (400, 20))),
    "gpu": Size(60_000, 128, ((256, 2), (400, 20))),
}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the cases."""
    for hidden, latents in size.widths:
        yield _epoch(size, hidden, latents, device, peers.adapter("notes"))


def _epoch(size: Size, hidden: int, latents: int, device: str, notes: Any) -> harness.Case:
    steps, images = size.images // size.batch, workload.random_images(size.images, SHAPE)
    ours = vae.model(vae.Config(hidden=(hidden,), latent_dim=latents), SHAPE)
    params = jax.jit(ours.init)(jax.random.key(workload.SEED))
    at_once, in_turn = workload.training(params, ours.loss, optax.adam(1e-3), images, size.batch, steps)

    network = lambda: notes.vae(params, 784, hidden, latents, notes.device(device))

    def theirs(program: Callable[..., harness.Run]) -> harness.Run:
        pixels = notes.torch.from_numpy(images.reshape(-1, 784)) / 255
        return program(notes, network(), pixels, size.batch, notes.device(device))

    def check(outputs: Any) -> dict[str, float]:
        ends = {name: workload.flat(out) for name, out in outputs.items() if name in (OURS, LOOP)}
        found = {"parameters after the epoch, " + LOOP: harness.close(ends[LOOP], ends[OURS], 1e-4, LOOP)}
        if notes:
            found["loss of the same images under the same noise, PyTorch"] = _same_loss(
                ours, network(), params, images[: size.batch], notes, device
            )
        return found

    variants = [Variant(OURS, lambda: at_once), Variant(LOOP, lambda: in_turn)]
    if notes:
        variants += [
            Variant(NOTES, lambda: theirs(_notes)),
            Variant("PyTorch: torch.compile, fused Adam, rows by index, no DataLoader", lambda: theirs(_strongest)),
        ]
    name = f"{steps} steps of {size.batch} images, 784-{hidden}-{latents}"
    flops = 6 * size.batch * steps * (2 * 784 * hidden + 3 * hidden * latents)
    return harness.Case(name, "epoch", 1, variants, check, flops, {NOTES: harness.Goal(2.5, READY)})


def _notes(notes: Any, network: Any, pixels: Any, batch: int, where: Any) -> harness.Run:
    utils = notes.torch.utils.data
    loader = utils.DataLoader(utils.TensorDataset(pixels), batch, shuffle=True, drop_last=True)
    step = notes.trainer(network, network.loss, 1e-3)

    def run() -> None:
        for (rows,) in loader:
            step(rows.to(where)).item()
        notes.wait(where)

    return run


def _strongest(notes: Any, network: Any, pixels: Any, batch: int, where: Any) -> harness.Run:
    table = pixels.to(where)
    step = notes.trainer(network, notes.torch.compile(network.loss), 1e-3, fused=True)

    def run() -> None:
        for index in notes.torch.randperm(len(table), device=where)[: len(table) // batch * batch].view(-1, batch):
            step(table[index])
        notes.wait(where)

    return run


def _same_loss(ours: VAE, network: Any, params: Any, images: np.ndarray, notes: Any, device: str) -> float:
    keys = random.example_keys(jax.random.key(1), len(images))
    mine = jax.jit(ours.loss)(keys, params, {"image": data.scale(jnp.asarray(images))})[0]
    draws = jax.jit(lambda keys: random.normal(keys, (ours.latent_dim,)))(keys)
    where = notes.device(device)
    flat = notes.tensor(images.reshape(len(images), -1).astype(np.float32) / 255, where)
    theirs = network.loss(flat, notes.tensor(draws, where))
    return harness.close(notes.numpy(theirs), mine, 1e-3 if device == "gpu" else 1e-5, "loss of the VAE")
