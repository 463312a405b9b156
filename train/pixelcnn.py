"""Train a PixelCNN: ``python -m train.pixelcnn --config digits``."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn

from genjax.nn import pixelcnn
from train.run import autoregressive, conditions, config, loop, process
from train.run.autoregressive import build, model

__all__ = ["Config", "build", "main", "model"]


@dataclasses.dataclass(frozen=True)
class Config(autoregressive.Config):
    """Train a PixelCNN (van den Oord et al. 2016a, 2016b)."""

    stacks: Literal["gated", "plain"] = "gated"
    """gated layers in two stacks without a blind spot, or plain masked convolutions."""
    features: int = 32
    """Channels for each colour; of a plain block in its narrow part, h of the paper's 2h."""
    layers: int = 6
    """Gated layers, or plain residual blocks."""
    kernel_size: int = 3
    """Width of the kernels after the first, odd."""
    head: int = 64
    """Channels of the layer before the last, for each colour."""
    num_classes: int = 0
    """Give the label, one of so many classes, to every layer; gated only; 0 makes a model without labels."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"num_classes": conditions.needs(stacks="gated")}

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems()
        found += config.at_least(self, {"features": 1, "layers": 1, "kernel_size": 1, "head": 1, "num_classes": 0})
        if self.kernel_size % 2 == 0:
            found.append(f"kernel_size: expected an odd width, got {self.kernel_size}")
        if self.num_classes and self.stacks == "plain":
            found.append("num_classes: plain masked convolutions take no labels; use --stacks gated")
        return found

    def network(self, outputs: int, colours: int, channels: int) -> nn.Module:
        """The causal network."""
        levels = self.num_levels if self.one_hot else 0
        if self.stacks == "plain":
            return pixelcnn.PixelCNN(
                outputs, colours, channels, self.features, self.layers, self.kernel_size, self.head, levels
            )
        return pixelcnn.GatedPixelCNN(
            outputs,
            colours,
            channels,
            self.features,
            self.layers,
            self.kernel_size,
            self.head,
            self.num_classes,
            levels,
        )


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("pixelcnn", config.parse(Config, "pixelcnn", argv), build, autoregressive.SOURCE)


if __name__ == "__main__":
    process.main(main)
