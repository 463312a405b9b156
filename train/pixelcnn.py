"""Train a PixelCNN: ``python -m train.pixelcnn --config digits``."""

import dataclasses
from typing import ClassVar, Literal

import flax.linen as nn

from genjax.nn import pixelcnn
from train.run import autoregressive, command, conditions, config, process
from train.run.autoregressive import build, model

__all__ = ["RECIPE", "Config", "build", "main", "model"]


@dataclasses.dataclass(frozen=True)
class Config(autoregressive.Config):
    """Train a PixelCNN (van den Oord et al. 2016a, 2016b)."""

    stacks: Literal["gated", "plain"] = "gated"
    """Layers: gated in two stacks without a blind spot, or plain masked convolutions."""
    features: int = 32
    """Number of channels for each colour; in a plain block, that of its narrow part, the paper's h."""
    layers: int = 6
    """Number of gated layers, or of plain residual blocks."""
    kernel_size: int = 3
    """Width of the kernels after the first; an odd number."""
    head: int = 64
    """Number of channels of the layer before the last, for each colour."""
    num_classes: int = 0
    """Number of classes of the labels that every layer is given; 0 makes a model without labels. Gated layers only."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"num_classes": conditions.needs(stacks="gated")}

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems()
        problems += config.at_least(self, {"features": 1, "layers": 1, "kernel_size": 1, "head": 1, "num_classes": 0})
        if self.kernel_size % 2 == 0:
            problems.append(f"kernel_size: expected an odd width, got {self.kernel_size}")
        if self.num_classes and self.stacks == "plain":
            problems.append("num_classes: plain masked convolutions take no labels; use --stacks gated")
        return problems

    @property
    def labels(self) -> int:
        """Number of classes that the model depends on."""
        return self.num_classes

    def network(self, outputs: int, colours: int, channels: int) -> nn.Module:
        """Make the causal network."""
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


RECIPE = autoregressive.recipe("pixelcnn", Config)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
