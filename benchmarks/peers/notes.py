"""The programs of the lecture notes in PyTorch, written from their description: networks, training and sampling loops.

Weights come from genjax, so that both compute the same. Kernels [h w c f] become [f c h w]; kernels of transposed
convolutions become [c f h w], flipped in space, because PyTorch's transposed convolution does not flip.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from genjax.types import Params

Module = nn.Module


def device(platform: str) -> torch.device:
    """PyTorch's name of the device that JAX calls ``platform``.

    Raises:
      RuntimeError: PyTorch was built without it.
    """
    if platform == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch has no CUDA")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX does by default
    return torch.device("cuda" if platform == "gpu" else "cpu")


def wait(where: torch.device) -> None:
    """Wait until the device has finished."""
    if where.type == "cuda":
        torch.cuda.synchronize()


def waiting(run: Callable[[], Any], where: torch.device) -> Callable[[], Any]:
    """Make a run that also waits for the device."""

    def waited() -> Any:
        out = run()
        wait(where)
        return out

    return waited


class SimpleUNet(nn.Module):
    """Simple U-Net of the lecture notes; ``genjax.nn.unet.SimpleUNet`` is the same in JAX."""

    def __init__(self, channels: Sequence[int], image_channels: int, norm: str = "batch", time_features: int = 32):
        super().__init__()
        self.time_features = time_features
        self.time = nn.Linear(time_features, time_features)
        self.conv_in = nn.Conv2d(image_channels, channels[0], 3, padding=1)
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        self.down = nn.ModuleList(Block(a, b, time_features, norm, up=False) for a, b in pairs)
        self.up = nn.ModuleList(Block(2 * b, a, time_features, norm, up=True) for a, b in reversed(pairs))
        self.conv_out = nn.Conv2d(channels[0], image_channels, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Predict the noise in x at times t."""
        half = self.time_features // 2
        waves = torch.exp(torch.arange(half, device=x.device) * -(math.log(10000) / (half - 1)))
        angles = t[:, None] * waves[None]
        time = functional.relu(self.time(torch.cat([angles.sin(), angles.cos()], dim=-1)))
        x = self.conv_in(x)
        skips = []
        for block in self.down:
            x = block(x, time)
            skips.append(x)
        for block in self.up:
            x = block(torch.cat([x, skips.pop()], dim=1), time)
        return self.conv_out(x)


class Block(nn.Module):
    """Convolution, time, convolution, each normalised after its ReLU; then half or twice the size."""

    def __init__(self, inputs: int, features: int, time_features: int, norm: str, up: bool):
        super().__init__()
        normalise: Any = {"batch": nn.BatchNorm2d, "group": lambda n: nn.GroupNorm(8, n)}[norm]
        self.time = nn.Linear(time_features, features)
        self.conv_1, self.conv_2 = (
            nn.Conv2d(inputs, features, 3, padding=1),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.norm_1, self.norm_2 = normalise(features), normalise(features)
        self.transform = (nn.ConvTranspose2d if up else nn.Conv2d)(features, features, 4, 2, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        h = self.norm_1(functional.relu(self.conv_1(x)))
        h = h + functional.relu(self.time(time))[:, :, None, None]
        return self.transform(self.norm_2(functional.relu(self.conv_2(h))))


class VAE(nn.Module):
    """Dense 784-h-d and back with ReLU; ``loss`` is the notes' cross-entropy plus KL, summed over pixels."""

    def __init__(self, pixels: int, hidden: int, latents: int):
        super().__init__()
        self.encode_0, self.encode_1 = nn.Linear(pixels, hidden), nn.Linear(hidden, 2 * latents)
        self.decode_0, self.decode_1 = nn.Linear(latents, hidden), nn.Linear(hidden, pixels)

    def loss(self, x: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Nats per image of a batch x [b pixels] in [0, 1]."""
        mean, log_variance = self.encode_1(functional.relu(self.encode_0(x))).chunk(2, dim=-1)
        noise = torch.randn_like(mean) if noise is None else noise
        z = mean + torch.exp(0.5 * log_variance) * noise
        out = torch.sigmoid(self.decode_1(functional.relu(self.decode_0(z))))
        distortion = functional.binary_cross_entropy(out, x, reduction="sum")
        rate = -0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp())
        return (distortion + rate) / len(x)


class Player(nn.Module):
    """Dense layers with ReLU; the generator ends with tanh."""

    def __init__(self, widths: Sequence[int], last: Callable[[torch.Tensor], torch.Tensor], slope: float):
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.last, self.slope = last, slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to vectors."""
        for layer in self.layers[:-1]:
            x = functional.leaky_relu(layer(x), self.slope)
        return self.last(self.layers[-1](x))


def kernel(array: Any, *, transposed: bool = False) -> torch.Tensor:
    """Convert our kernel to PyTorch's layout; dense kernels [c f] become [f c]."""
    array = np.asarray(array)
    if array.ndim == 2:
        return torch.from_numpy(array.T.copy())
    return torch.from_numpy(
        (array[::-1, ::-1].transpose(2, 3, 0, 1) if transposed else array.transpose(3, 2, 0, 1)).copy()
    )


def _turned(array: np.ndarray) -> np.ndarray:
    return array[::-1, ::-1].transpose(2, 3, 0, 1)


def fill(module: nn.Module, params: Params, *, transposed: bool = False) -> None:
    """Copy our weights to a layer: kernel or scale, and bias."""
    values = {"bias": torch.from_numpy(np.array(params["bias"]))}
    values["weight"] = (
        kernel(params["kernel"], transposed=transposed)
        if "kernel" in params
        else torch.from_numpy(np.array(params["scale"]))
    )
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(value)


def simple_unet(
    params: Params, channels: Sequence[int], image_channels: int, norm: str, where: torch.device
) -> SimpleUNet:
    """Lecture notes' network with our weights, in training mode as in the notes."""
    network: Any = SimpleUNet(channels, image_channels, norm)
    for name in ("time", "conv_in", "conv_out"):
        fill(getattr(network, name), params[name])
    for side, blocks in (("down", network.down), ("up", network.up)):
        for i, block in enumerate(blocks):
            for name in ("conv_1", "conv_2", "norm_1", "norm_2", "time"):
                fill(getattr(block, name), params[f"{side}_{i}"][name])
            fill(block.transform, params[f"{side}_{i}_transform"], transposed=side == "up")
    return network.to(where).train()


def vae(params: Params, pixels: int, hidden: int, latents: int, where: torch.device) -> VAE:
    """Lecture notes' VAE with our weights."""
    network = VAE(pixels, hidden, latents)
    for side in ("encode", "decode"):
        for i in range(2):
            fill(getattr(network, f"{side}_{i}"), params[f"{side}r"][f"Dense_{i}"])
    return network.to(where)


def tensor(array: Any, where: torch.device) -> torch.Tensor:
    """Copy an array to PyTorch's device."""
    return torch.from_numpy(np.array(array)).to(where)


def numpy(value: torch.Tensor) -> np.ndarray:
    """Copy a tensor to numpy, float32."""
    return value.detach().float().cpu().numpy()


def images(array: Any, where: torch.device) -> torch.Tensor:
    """Convert NHWC images to NCHW on PyTorch's device."""
    return torch.from_numpy(np.array(array)).permute(0, 3, 1, 2).contiguous().to(where)


def back(tensor: torch.Tensor) -> np.ndarray:
    """Convert NCHW images to NHWC in numpy."""
    return tensor.detach().float().cpu().permute(0, 2, 3, 1).numpy()


class Chain:
    """Tables of β and the constants of the process, as the lecture notes' sampling loop indexes them."""

    def __init__(self, beta: Any, where: torch.device):
        self.beta = torch.from_numpy(np.array(beta, np.float32)).to(where)
        alpha_bar = torch.cumprod(1 - self.beta, 0)
        before = functional.pad(alpha_bar[:-1], (1, 0), value=1.0)
        self.signal, self.noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        self.recip = (1 / (1 - self.beta)).sqrt()
        self.variance = self.beta * (1 - before) / (1 - alpha_bar)

    def diffuse(self, x: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Sample q(x_t|x_0)."""
        return self.signal[t][:, None, None, None] * x + self.noise[t][:, None, None, None] * noise

    def loss(self, network: Callable, x: torch.Tensor) -> torch.Tensor:
        """Lecture notes' loss: L1 between the noise and its prediction at random times."""
        t = torch.randint(0, len(self.beta), (len(x),), device=x.device)
        noise = torch.randn_like(x)
        return functional.l1_loss(network(self.diffuse(x, t, noise), t), noise)

    @torch.no_grad()
    def sample(
        self, network: Callable, x: torch.Tensor, num_steps: int, noises: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the last ``num_steps`` times of the notes' loop, unclipped; ``noises`` [num_steps ...] replace draws."""
        for i, t in enumerate(reversed(range(len(self.beta) - num_steps, len(self.beta)))):
            times = torch.full((len(x),), t, device=x.device, dtype=torch.long)
            mean = self.recip[t] * (x - self.beta[t] * network(x, times) / self.noise[t])
            noise = torch.randn_like(x) if noises is None else noises[i]
            x = mean if t == 0 else mean + torch.sqrt(self.variance[t]) * noise
        return x


def trainer(
    module: nn.Module,
    loss: Callable[[torch.Tensor], torch.Tensor],
    rate: float,
    *,
    autocast: bool = False,
    fused: bool | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Build a step of Adam on a batch; under autocast the network computes in bfloat16; fused is Adam in one kernel."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, fused=fused)

    def step(batch: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=autocast):
            value = loss(batch)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def players(params: Params, widths: Sequence[int], where: torch.device) -> tuple[Player, Player]:
    """Generator and discriminator of dense layers with our weights."""
    generator, discriminator = Player(widths, torch.tanh, 0.0), Player((*widths[:0:-1], 1), nn.Identity(), 0.2)
    for i, layer in enumerate(generator.layers):
        fill(layer, params["generator"][f"Dense_{i}"])
    for i, layer in enumerate(discriminator.layers):
        last = i + 1 == len(discriminator.layers)
        fill(layer, params["discriminator"]["logit" if last else f"dense_{i}"])
    return generator.to(where), discriminator.to(where)


def game(generator: Player, discriminator: Player, rate: float) -> Callable[[torch.Tensor], None]:
    """Build a round on a batch: the discriminator's step, then the generator's, with the non-saturating loss."""
    adam = lambda player: torch.optim.Adam(player.parameters(), lr=rate, betas=(0.5, 0.999))
    d_optimizer, g_optimizer = adam(discriminator), adam(generator)
    first_layer: Any = generator.layers[0]

    def play(real: torch.Tensor) -> None:
        fake = generator(torch.randn(len(real), first_layer.in_features, device=real.device))
        d_loss = (functional.softplus(-discriminator(real)) + functional.softplus(discriminator(fake.detach()))).mean()
        d_optimizer.zero_grad(set_to_none=True)
        d_loss.backward()
        d_optimizer.step()
        g_loss = functional.softplus(-discriminator(fake)).mean()
        g_optimizer.zero_grad(set_to_none=True)
        g_loss.backward()
        g_optimizer.step()
        d_loss.item()

    return play
