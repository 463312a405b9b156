"""Hugging Face's diffusers: its ``UNet2DModel``, of which Ho's network is one, and its schedulers."""

from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import torch

from benchmarks.peers import notes
from genjax.nn.unet import UNet
from genjax.types import Params


def ho(params: Params, unet: UNet, size: int, where: torch.device) -> torch.nn.Module:
    """``UNet2DModel`` with the shape and the weights of ``unet``: ``network(x, t)`` of NCHW images."""
    heights = [size >> level for level in range(len(unet.channel_mults))]
    attention = (16,) if unet.attention_resolutions is None else unet.attention_resolutions
    kinds = ["Attn" if height in attention else "" for height in heights]
    network: Any = diffusers.UNet2DModel(
        sample_size=size,
        in_channels=unet.image_channels,
        out_channels=unet.image_channels,
        layers_per_block=unet.num_res_blocks,
        block_out_channels=tuple(unet.channels * multiplier for multiplier in unet.channel_mults),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in kinds[::-1]),
        norm_num_groups=unet.groups,
        norm_eps=unet.epsilon,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        dropout=unet.dropout,
    )
    notes.fill(network.time_embedding.linear_1, params["time_0"])
    notes.fill(network.time_embedding.linear_2, params["time_1"])
    notes.fill(network.conv_in, params["conv_in"])
    levels = len(unet.channel_mults)
    for level in range(levels):
        down, up = network.down_blocks[level], network.up_blocks[levels - 1 - level]
        _level(down, params, f"down_{level}_")
        _level(up, params, f"up_{level}_")
        if level:
            notes.fill(network.down_blocks[level - 1].downsamplers[0].conv, params[f"down_{level}"])
            notes.fill(up.upsamplers[0].conv, params[f"up_{level}"])
    for i, block in enumerate(network.mid_block.resnets):
        _residual(block, params[f"middle_{i}"])
    _attention(network.mid_block.attentions[0], params["middle_attention"])
    notes.fill(network.conv_norm_out, params["norm_out"])
    notes.fill(network.conv_out, params["conv_out"])
    return Prediction(network).to(where)


class Prediction(torch.nn.Module):
    """Network that unwraps the prediction of diffusers."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Predict the noise in x."""
        return self.network(x, t, return_dict=False)[0]


def _level(block: Any, params: Params, prefix: str) -> None:
    attentions = getattr(block, "attentions", [])
    for i, residual in enumerate(block.resnets):
        _residual(residual, params[f"{prefix}{i}"])
        if len(attentions):
            _attention(attentions[i], params[f"{prefix}{i}_attention"])


def _residual(block: Any, params: Params) -> None:
    pairs = {"norm1": "norm_1", "conv1": "conv_1", "time_emb_proj": "time", "norm2": "norm_2", "conv2": "conv_2"}
    for name, own_name in pairs.items():
        notes.fill(getattr(block, name), params[own_name])
    if "shortcut" in params:
        notes.fill(block.conv_shortcut, params["shortcut"] | {"kernel": params["shortcut"]["kernel"][None, None]})


def _attention(block: Any, params: Params) -> None:
    for name, own_name in {"group_norm": "norm", "to_q": "query", "to_k": "key", "to_v": "value"}.items():
        notes.fill(getattr(block, name), params[own_name])
    notes.fill(block.to_out[0], params["out"])


def ddpm(beta: Sequence[float]) -> Any:
    """Scheduler of our ``ancestral`` with small variance, unclipped."""
    return diffusers.DDPMScheduler(len(beta), trained_betas=beta, variance_type="fixed_small", clip_sample=False)


def ddim(beta: Sequence[float]) -> Any:
    """Scheduler of our ``ddim`` with trailing times, unclipped."""
    return diffusers.DDIMScheduler(
        len(beta), trained_betas=beta, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )


def dpm_solver(beta: Sequence[float]) -> Any:
    """DPM-Solver++(2M) on trailing times."""
    return diffusers.DPMSolverMultistepScheduler(len(beta), trained_betas=beta, timestep_spacing="trailing")


@torch.inference_mode()
def sample(network: Callable, scheduler: Any, x: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Run the loop of diffusers' pipelines."""
    scheduler.set_timesteps(num_steps, device=x.device)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t.expand(len(x))), t, x, return_dict=False)[0]
    return x
