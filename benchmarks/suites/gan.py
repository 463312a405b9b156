"""An epoch of a GAN of dense players: one scan, a Python loop over the jitted step, and a PyTorch loop."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, peers, workload
from train import gan as script

Variant = harness.Variant
SHAPE = (28, 28, 1)
OURS, LOOP = "genjax: the epoch as one scan", "JAX: a Python loop over the jitted step"


class Size(NamedTuple):
    """Numbers of images of an epoch and of a step, dimensions of z, and widths of the players."""

    images: int
    batch: int
    latent_dim: int
    hidden: tuple[int, ...]


SIZES = {
    "toy": Size(128, 32, 4, (16,)),
    "cpu": Size(20_000, 128, 64, (256, 256)),
    "gpu": Size(60_000, 128, 64, (256, 256)),
}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the only case."""
    steps, images = size.images // size.batch, workload.random_images(size.images, SHAPE)
    ours = script.model(script.Config(hidden=size.hidden, latent_dim=size.latent_dim), SHAPE)
    params = jax.jit(ours.init)(jax.random.key(workload.SEED))
    adam = lambda: optax.adam(2e-4, b1=0.5)
    at_once, in_turn = workload.training(params, ours.loss, ours.optimizer(adam(), adam()), images, size.batch, steps)
    notes = peers.adapter("notes")
    widths = (size.latent_dim, *size.hidden, 784)

    def theirs() -> harness.Run:
        where = notes.device(device)
        table = notes.tensor(images.reshape(len(images), -1), where)
        play = notes.game(*notes.players(params, widths, where), 2e-4)

        def run() -> None:
            for index in notes.torch.randperm(len(table), device=where)[: steps * size.batch].view(steps, -1):
                play(table[index].float() / 127.5 - 1)

        return notes.waiting(run, where)

    def check(outputs: Any) -> dict[str, float]:
        ends = {name: workload.flat(out) for name, out in outputs.items() if name in (OURS, LOOP)}
        found = {"parameters after the epoch, " + LOOP: harness.close(ends[LOOP], ends[OURS], 1e-2, LOOP)}
        if notes:
            z, where = workload.noise((8, size.latent_dim)), notes.device(device)
            made = jax.jit(ours.generate)(params, jnp.asarray(z))
            generator, discriminator = notes.players(params, widths, where)
            fake = generator(notes.tensor(z, where))
            tolerance = 2e-2 if device == "gpu" else 1e-4
            found["images of the same z, PyTorch"] = harness.close(
                notes.numpy(fake), np.asarray(made).reshape(8, -1), tolerance, "generator"
            )
            found["logits of these images, PyTorch"] = harness.close(
                notes.numpy(discriminator(fake)[:, 0]), jax.jit(ours.discriminate)(params, made), tolerance, "logits"
            )
        return found

    variants = [Variant(OURS, lambda: at_once), Variant(LOOP, lambda: in_turn)]
    variants += [Variant("PyTorch: a Python loop, two losses in turn", theirs)] if notes else []
    name = f"{steps} steps of {size.batch} images, players {'-'.join(map(str, widths))}"
    yield harness.Case(name, "epoch", 1, variants, check)
