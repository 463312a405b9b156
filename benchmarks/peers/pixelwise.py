"""Pixel-by-pixel sampling in PyTorch: a loop that computes every number once, in windows, like our sampler."""

from typing import Any

import numpy as np
import torch

from genjax.nn.pixelcnn import PixelCNN
from genjax.types import Params


def sample(network: PixelCNN, side: int, params: Params, noise: np.ndarray, where: torch.device) -> np.ndarray:
    """Sample black and white images [num side·side] of -1 and 1, decided by uniform ``noise`` of that shape."""
    num, tensor = len(noise), lambda array: torch.from_numpy(np.array(array)).to(where)
    masked = lambda name, kind: _masked(np.asarray(params[name]["kernel"]), kind)
    spatial = {"first": (masked("first", "A"), params["first"]["bias"])}
    spatial |= {
        f"convs_{i}": (masked(f"convs_{i}", "B"), params[f"convs_{i}"]["bias"]) for i in range(network.num_blocks)
    }
    kernels = {name: tensor(kernel.reshape(-1, kernel.shape[-1])) for name, (kernel, _) in spatial.items()}
    sizes = {name: kernel.shape for name, (kernel, _) in spatial.items()}
    points = [*(f"{part}_{i}" for part in ("narrow", "wide") for i in range(network.num_blocks)), "head_in", "head_out"]
    dense = {name: tensor(params[name]["kernel"][0, 0]) for name in points}
    bias = {name: tensor(params[name]["bias"]) for name in (*points, *spatial)}
    windows = {name: torch.zeros(num, s[0], side + s[1] - 1, s[2], device=where) for name, s in sizes.items()}
    images, given = torch.zeros(num, side, side, device=where), tensor(noise)

    def convolve(name: str, x: Any, column: int) -> Any:
        rows, size = sizes[name][:2]
        windows[name][:, -1, column + size // 2] = x
        patch = windows[name][:, :, column : column + size].reshape(num, -1)
        return torch.addmm(bias[name], patch, kernels[name])

    def point(name: str, x: Any) -> Any:
        return torch.addmm(bias[name], x, dense[name])

    blank = torch.zeros(num, 1, device=where)
    with torch.inference_mode():
        for row in range(side):
            for name, window in windows.items():
                if row and name == "first":
                    window[:, -1, 3 : 3 + side, 0] = images[:, row - 1]
                windows[name] = torch.cat([window[:, 1:], torch.zeros_like(window[:, :1])], 1)
            for column in range(side):
                if column:
                    windows["first"][:, -1, column + 2, 0] = images[:, row, column - 1]
                x = convolve("first", blank, column)
                for i in range(network.num_blocks):
                    y = convolve(f"convs_{i}", torch.relu(point(f"narrow_{i}", torch.relu(x))), column)
                    x = x + point(f"wide_{i}", torch.relu(y))
                logit = point("head_out", torch.relu(point("head_in", torch.relu(x))))[:, 0]
                drawn = given[:, row * side + column] < torch.sigmoid(logit)
                images[:, row, column] = torch.where(drawn, 1.0, -1.0)
    return images.cpu().numpy().reshape(num, -1)


def _masked(kernel: np.ndarray, kind: str) -> np.ndarray:
    kernel = kernel.copy()
    kernel[-1, kernel.shape[1] // 2 + (kind == "B") :] = 0
    return kernel
