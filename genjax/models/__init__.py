"""Generative models: one file is one model, with its equations as functions, its NamedTuple, and ``build``."""

from typing import TYPE_CHECKING

from genjax.lazy import attach

__all__ = [
    "actor_critic",
    "autoencoder",
    "autoregressive",
    "classifier",
    "codebooks",
    "contracts",
    "ddpm",
    "edm",
    "gan",
    "gan_losses",
    "loss_aware",
    "policy_gradient",
    "rollouts",
    "vae",
    "vdm",
    "vdm_losses",
    "vqvae",
]

if TYPE_CHECKING:  # for editors and type checkers; the modules are imported at first use
    from genjax.models import (
        actor_critic,
        autoencoder,
        autoregressive,
        classifier,
        codebooks,
        contracts,
        ddpm,
        edm,
        gan,
        gan_losses,
        loss_aware,
        policy_gradient,
        rollouts,
        vae,
        vdm,
        vdm_losses,
        vqvae,
    )
else:
    __getattr__, __dir__ = attach(__name__, __all__)
