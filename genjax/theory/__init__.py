"""Probability on arrays: the theory that every model stands on."""

from typing import TYPE_CHECKING

from genjax.lazy import attach

__all__ = [
    "bayes",
    "estimates",
    "exponential_normal",
    "families",
    "gaussian",
    "huffman",
    "information",
    "likelihood",
    "markov",
    "mcmc",
    "mdp",
    "pixels",
    "quadrature",
    "simplex",
    "variational",
]

if TYPE_CHECKING:  # for editors and type checkers; the modules are imported at first use
    from genjax.theory import (
        bayes,
        estimates,
        exponential_normal,
        families,
        gaussian,
        huffman,
        information,
        likelihood,
        markov,
        mcmc,
        mdp,
        pixels,
        quadrature,
        simplex,
        variational,
    )
else:
    __getattr__, __dir__ = attach(__name__, __all__)
