"""An epoch of a GAN of dense players: one scan, a Python loop over the jitted step, and a PyTorch loop."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, peers, work
from train import gan as script

Variant = harness.Variant
SHAPE = (28, 28, 1)
OURS, LOOP = "genjax: the epoch as one scan", "JAX: a Python loop over the jitted step"


class Size(NamedTuple):
    """Images of an epoch, images of a step, numbers of z, and widths of the players."""

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
    """The one case."""
    steps, images = size.images // size.batch, work.random_images(size.images, SHAPE)
    model = script.model(script.Config(hidden=size.hidden, latent_dim=size.latent_dim), SHAPE)
    params = jax.jit(model.init)(jax.random.key(work.SEED))
    adam = lambda: optax.adam(2e-4, b1=0.5)
    at_once, in_turn = work.training(params, model.loss, model.optimizer(adam(), adam()), images, size.batch, steps)
    notes = peers.adapter("notes")
    widths = (size.latent_dim, *size.hidden, 784)

    def pytorch() -> harness.Run:
        where = notes.device(device)
        table = notes.tensor(images.reshape(len(images), -1), where)
        step = notes.game(*notes.players(params, widths, where), 2e-4)

        def run() -> None:
            for index in notes.torch.randperm(len(table), device=where)[: steps * size.batch].view(steps, -1):
                step(table[index].float() / 127.5 - 1)

        return notes.waiting(run, where)

    def check(outputs: Any) -> dict[str, float]:
        ends = {name: work.flat(out) for name, out in outputs.items() if name in (OURS, LOOP)}
        errors = {"parameters after the epoch, " + LOOP: harness.close(ends[LOOP], ends[OURS], 1e-2, LOOP)}
        if notes:
            z, where = work.noise((8, size.latent_dim)), notes.device(device)
            generated = jax.jit(model.generate)(params, jnp.asarray(z))
            generator, discriminator = notes.players(params, widths, where)
            fake = generator(notes.tensor(z, where))
            tolerance = 2e-2 if device == "gpu" else 1e-4
            errors["images of the same z, PyTorch"] = harness.close(
                notes.numpy(fake), np.asarray(generated).reshape(8, -1), tolerance, "generator"
            )
            errors["logits of these images, PyTorch"] = harness.close(
                notes.numpy(discriminator(fake)[:, 0]),
                jax.jit(model.discriminate)(params, generated),
                tolerance,
                "logits",
            )
        return errors

    variants = [Variant(OURS, lambda: at_once), Variant(LOOP, lambda: in_turn)]
    variants += [Variant("PyTorch: a Python loop, two losses in turn", pytorch)] if notes else []
    name = f"{steps} steps of {size.batch} images, players {'-'.join(map(str, widths))}"
    yield harness.Case(name, "epoch", 1, variants, check)
