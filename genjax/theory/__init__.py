"""Probability on arrays: the theory that every model stands on."""
