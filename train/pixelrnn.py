"""Train a PixelRNN: ``python -m train.pixelrnn --config digits``."""

import dataclasses
from typing import Literal

import flax.linen as nn

from genjax.nn import pixelrnn
from train.run import autoregressive, command, config, process
from train.run.autoregressive import build, model

__all__ = ["RECIPE", "Config", "build", "main", "model"]


@dataclasses.dataclass(frozen=True)
class Config(autoregressive.Config):
    """Train a PixelRNN (van den Oord et al. 2016a)."""

    kind: Literal["row", "diagonal"] = "diagonal"
    """Layers: Row LSTM or Diagonal BiLSTM."""
    features: int = 16
    """Number of units of a layer for each colour, the paper's h."""
    layers: int = 7
    """Number of recurrent layers."""
    head: int = 64
    """Number of channels of the layer before the last, for each colour."""

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        return super().problems() + config.at_least(self, {"features": 1, "layers": 1, "head": 1})

    def network(self, outputs: int, colours: int, channels: int) -> nn.Module:
        """Make the causal network."""
        levels = self.num_levels if self.one_hot else 0
        return pixelrnn.PixelRNN(outputs, colours, channels, self.features, self.layers, self.kind, self.head, levels)


RECIPE = autoregressive.recipe("pixelrnn", Config)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
