"""Generative models in JAX and Flax: pure functions, exact numbers, one scan."""
