"""An epoch of the notes' VAE: one scan, a Python loop over the jitted step, and PyTorch with its DataLoader."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, peers, work
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
    """Images of an epoch, images of a step, and the widths between 784 pixels: hidden and latents."""

    images: int
    batch: int
    widths: tuple[tuple[int, int], ...]


SIZES = {
    "toy": Size(256, 64, ((16, 2),)),
    "cpu": Size(60_000, 128, ((256, 2), (400, 20))),
    "gpu": Size(60_000, 128, ((256, 2), (400, 20))),
}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """The cases, one at a time."""
    for hidden, latent_dim in size.widths:
        yield _epoch(size, hidden, latent_dim, device, peers.adapter("notes"))


def _epoch(size: Size, hidden: int, latent_dim: int, device: str, notes: Any) -> harness.Case:
    steps, images = size.images // size.batch, work.random_images(size.images, SHAPE)
    model = vae.model(vae.Config(hidden=(hidden,), latent_dim=latent_dim), SHAPE)
    params = jax.jit(model.init)(jax.random.key(work.SEED))
    at_once, in_turn = work.training(params, model.loss, optax.adam(1e-3), images, size.batch, steps)

    network = lambda: notes.vae(params, 784, hidden, latent_dim, notes.device(device))

    def pytorch(program: Callable[..., harness.Run]) -> harness.Run:
        pixels = notes.torch.from_numpy(images.reshape(-1, 784)) / 255
        return program(notes, network(), pixels, size.batch, notes.device(device))

    def check(outputs: Any) -> dict[str, float]:
        ends = {name: work.flat(out) for name, out in outputs.items() if name in (OURS, LOOP)}
        errors = {"parameters after the epoch, " + LOOP: harness.close(ends[LOOP], ends[OURS], 1e-4, LOOP)}
        if notes:
            errors["loss of the same images under the same noise, PyTorch"] = _same_loss(
                model, network(), params, images[: size.batch], notes, device
            )
        return errors

    variants = [Variant(OURS, lambda: at_once), Variant(LOOP, lambda: in_turn)]
    if notes:
        variants += [
            Variant(NOTES, lambda: pytorch(_notes)),
            Variant("PyTorch: torch.compile, fused Adam, rows by index, no DataLoader", lambda: pytorch(_strongest)),
        ]
    name = f"{steps} steps of {size.batch} images, 784-{hidden}-{latent_dim}"
    flops = 6 * size.batch * steps * (2 * 784 * hidden + 3 * hidden * latent_dim)
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


def _same_loss(model: VAE, network: Any, params: Any, images: np.ndarray, notes: Any, device: str) -> float:
    keys = random.example_keys(jax.random.key(1), len(images))
    loss = jax.jit(model.loss)(keys, params, {"image": data.scale(jnp.asarray(images))})[0]
    noise = jax.jit(lambda keys: random.normal(keys, (model.latent_dim,)))(keys)
    where = notes.device(device)
    flat = notes.tensor(images.reshape(len(images), -1).astype(np.float32) / 255, where)
    expected = network.loss(flat, notes.tensor(noise, where))
    return harness.close(notes.numpy(expected), loss, 1e-3 if device == "gpu" else 1e-5, "loss of the VAE")
