"""Probability on arrays: the theory that every model stands on."""

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

__getattr__, __dir__ = attach(__name__, __all__)
