"""Old names of settings: still read in files and records, and refused on the command line with the new name.

A setting that is renamed gets a row here; no other code knows old names.
"""

from collections.abc import Mapping
from typing import Any

_UNET = {"multipliers": "channel_mults", "blocks": "num_res_blocks", "attention": "attention_resolutions"}

_CLASSES = {"classes": "num_classes"}
_CONV = {"filters": "conv_channels"}

RENAMED: dict[str, dict[str, str]] = {
    "*": {"clip": "grad_clip", "ema": "ema_decay", "without": "exclude_class"},
    "actor_critic": {
        "rollout": "rollout_length", "trace": "gae_lambda", "entropy": "ent_coef", "clip_range": "clip_eps",
        "epochs": "num_epochs", "minibatch": "minibatch_size", "episodes": "eval_episodes",
    },
    "ae": {"code": "latent_dim", "code_activation": "latent_activation", **_CONV},
    "classifier": {**_CLASSES, **_CONV},
    "ddpm": {
        "noise": "beta_schedule", "first_beta": "beta_start", "last_beta": "beta_end",
        "zero_terminal": "rescale_zero_terminal_snr", "predict": "prediction_type", "times": "timestep_sampling",
        "label_dropout": "p_uncond", "guidance": "guidance_scale", **_CLASSES, **_UNET,
    },
    "edm": {
        "deviation": "sigma_data", "mean": "p_mean", "spread": "p_std", "low": "sigma_min", "high": "sigma_max",
        **_UNET,
    },
    "gan": {
        "game": "loss", "latents": "latent_dim", "spectral": "spectral_norm", "slope": "gp_weight", "r1": "r1_weight",
        "critic_steps": "n_critic", "momentum": "beta1", **_CLASSES, **_CONV,
    },
    "pixelcnn": {"kernel": "kernel_size", **_CLASSES},
    "sample": {"guidance": "guidance_scale"},
    "vae": {"latents": "latent_dim", **_CLASSES, **_CONV},
    "vdm": {"first": "gamma_min", "last": "gamma_max", "schedule_shape": "gamma_schedule", **_UNET},
    "vqvae": {
        "codebook": "codebook_size", "features": "embedding_dim", "learn": "codebook_update", "decay": "codebook_decay",
        "dead": "dead_code_threshold", "commitment": "commitment_cost", "blocks": "num_res_blocks", **_CONV,
    },
}  # fmt: skip
"""New name of every renamed setting, by the command that reads it; ``"*"`` stands for all commands."""


def new_names(script: str) -> dict[str, str]:
    """The new name of every renamed setting of a command, by its old name."""
    return {**RENAMED["*"], **RENAMED.get(script, {})}


def translate(script: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of a file or a record, under today's names.

    >>> translate("ddpm", {"ema": 0.99, "sweep": "clip=1,2", "lr": 0.1})
    {'ema_decay': 0.99, 'sweep': 'grad_clip=1,2', 'lr': 0.1}

    Raises:
      ValueError: the same setting has its old name and its new name.
    """
    names = new_names(script)
    result: dict[str, Any] = {}
    for old, value in values.items():
        name = names.get(old, old)
        if name in result or (name != old and name in values):
            raise ValueError(f"{old}: is the old name of {name}, which stands there too; keep one of the two")
        if name == "sweep" and isinstance(value, str):
            swept, equals, numbers = value.partition("=")
            value = names.get(swept.strip().replace("-", "_"), swept) + equals + numbers
        result[name] = value
    return result
