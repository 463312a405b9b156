"""Numbers that say how good a model is."""

from genjax.lazy import attach

__all__ = ["classes", "distances", "neighbours", "roc"]

__getattr__, __dir__ = attach(__name__, __all__)
