"""denoising-diffusion-pytorch: its ``GaussianDiffusion`` around the network of the notes."""

from typing import Any

import numpy as np
import torch
from denoising_diffusion_pytorch import denoising_diffusion_pytorch as package

from benchmarks.peers import notes

package.tqdm = lambda steps, **_: steps  # its bars are not what is measured


class Conditioned(torch.nn.Module):
    """Network in the form that ``GaussianDiffusion`` expects."""

    self_condition = False

    def __init__(self, network: notes.Module, channels: int):
        super().__init__()
        self.network, self.channels, self.out_dim = network, channels, channels

    def forward(self, x: torch.Tensor, t: torch.Tensor, x_self_cond: Any = None) -> torch.Tensor:
        """Predict the noise in x."""
        return self.network(x, t)


def diffusion(network: notes.Module, channels: int, size: int, beta: Any, short: int = 0) -> Any:
    """Process with these β; ``short`` steps of DDIM in sampling, 0 for the whole chain."""
    process = package.GaussianDiffusion(
        Conditioned(network, channels),
        image_size=size,
        timesteps=len(beta),
        sampling_timesteps=short or None,
        objective="pred_noise",
        beta_schedule="linear",
        auto_normalize=False,
    )
    _set_beta(process, torch.from_numpy(np.array(beta, np.float64)))
    return process.to(next(network.parameters()).device)


def _set_beta(process: Any, beta: torch.Tensor) -> None:
    """Replace the β of a process; its chain reads no other copy."""
    alpha_bar = torch.cumprod(1 - beta, 0)
    before = torch.cat([torch.ones(1, dtype=beta.dtype), alpha_bar[:-1]])
    variance = beta * (1 - before) / (1 - alpha_bar)
    tables = {
        "betas": beta,
        "alphas_cumprod": alpha_bar,
        "alphas_cumprod_prev": before,
        "sqrt_recip_alphas_cumprod": alpha_bar**-0.5,
        "sqrt_recipm1_alphas_cumprod": (1 / alpha_bar - 1) ** 0.5,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": beta * before**0.5 / (1 - alpha_bar),
        "posterior_mean_coef2": (1 - before) * (1 - beta) ** 0.5 / (1 - alpha_bar),
    }
    for name, table in tables.items():
        getattr(process, name).copy_(table)


@torch.inference_mode()
def sample(process: Any, x: torch.Tensor) -> torch.Tensor:
    """Run the loop over ``p_sample``, which always clips predicted images."""
    for t in reversed(range(process.num_timesteps)):
        x, _ = process.p_sample(x, t)
    return x
