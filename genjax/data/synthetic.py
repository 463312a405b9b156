"""Synthetic data of a known distribution."""

import numpy as np

from genjax.data.dataset import Dataset

NUM_MODES, STD = 8, 0.02


def ring(num: int = 10_000, heldout: int = 2_000, seed: int = 0) -> Dataset:
    """Draw points of eight equal Gaussians on the unit circle, standard deviation 0.02 (Metz et al. 2017, §3.1).

    The points are images of one pixel and two channels, float32[n 1 1 2], which every model takes. The label is the
    number of the Gaussian.
    """
    source = np.random.default_rng(seed)
    label = source.integers(0, NUM_MODES, num + heldout).astype(np.int32)
    points = centres()[label] + STD * source.standard_normal((num + heldout, 2))
    whole = {"image": points.astype(np.float32)[:, None, None], "label": label}
    return Dataset("ring", {name: a[:num] for name, a in whole.items()}, {name: a[num:] for name, a in whole.items()})


def centres() -> np.ndarray:
    """Means of the Gaussians of ``ring``, [8 2]."""
    angle = 2 * np.pi * np.arange(NUM_MODES) / NUM_MODES
    return np.stack([np.cos(angle), np.sin(angle)], -1)
