"""Train a PixelRNN: ``python -m train.pixelrnn --config digits``."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn

from genjax.nn import pixelrnn
from train.run import autoregressive, config, loop, process
from train.run.autoregressive import build, model

__all__ = ["Config", "build", "main", "model"]


@dataclasses.dataclass(frozen=True)
class Config(autoregressive.Config):
    """Train a PixelRNN (van den Oord et al. 2016a)."""

    kind: Literal["row", "diagonal"] = "diagonal"
    """Row LSTM or Diagonal BiLSTM."""
    features: int = 16
    """Units of a layer for each colour, h of the paper's 2h."""
    layers: int = 7
    """Recurrent layers."""
    head: int = 64
    """Channels of the layer before the last, for each colour."""

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        return super().problems() + config.at_least(self, {"features": 1, "layers": 1, "head": 1})

    def network(self, outputs: int, colours: int, channels: int) -> nn.Module:
        """The causal network."""
        levels = self.num_levels if self.one_hot else 0
        return pixelrnn.PixelRNN(outputs, colours, channels, self.features, self.layers, self.kind, self.head, levels)


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("pixelrnn", config.parse(Config, "pixelrnn", argv), build, autoregressive.SOURCE)


if __name__ == "__main__":
    process.main(main)
