"""Generative models: one file is one model, with its equations as functions, its NamedTuple, and ``build``."""

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

__getattr__, __dir__ = attach(__name__, __all__)
