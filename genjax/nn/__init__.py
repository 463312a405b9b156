"""Networks: Linen modules without loss and sampling; ``protocols`` lists what each model reads of them."""

from typing import TYPE_CHECKING

from genjax.lazy import attach

__all__ = [
    "adversarial",
    "causal",
    "convnet",
    "convolution",
    "diffusers_unet",
    "dropout",
    "embedding",
    "inception",
    "mlp",
    "normalization",
    "pixelcnn",
    "pixelrnn",
    "protocols",
    "quantizer",
    "simple_unet",
    "spectral",
    "unet",
]

if TYPE_CHECKING:  # for editors and type checkers; the modules are imported at first use
    from genjax.nn import (
        adversarial,
        causal,
        convnet,
        convolution,
        diffusers_unet,
        dropout,
        embedding,
        inception,
        mlp,
        normalization,
        pixelcnn,
        pixelrnn,
        protocols,
        quantizer,
        simple_unet,
        spectral,
        unet,
    )
else:
    __getattr__, __dir__ = attach(__name__, __all__)
