"""Data set of digits inside the package, for first steps and tests without a download.

Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998,
doi.org/10.24432/C50P49, licensed CC BY 4.0. These are the 1,797 rows of its test file, as scikit-learn has them.
"""

import pathlib

import numpy as np

from genjax.data import dataset
from genjax.data.dataset import Dataset

NUM_HELDOUT = 197


def digits() -> Dataset:
    """Load 1,797 handwritten digits, uint8 8×8×1, with labels 0 to 9: 1,600 to train on, 197 held out.

    Alpaydin & Kaynak 1998 (CC BY 4.0) count the dark pixels of 4×4 blocks, v = 0..16; the level is round(255 v / 16).

    Within each class of n rows, rows are ranked 0 to n - 1 by the SHA-256 of their number in the original file, written
    in decimal. The 197 rows of the smallest (rank + ½) / n are held out: the first 20 of each class, and the first 19
    of the classes 0, 2 and 8. The file is ordered by writer, so both splits contain digits of all writers.
    """
    with np.load(pathlib.Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
        counts, label = stored["count"], stored["label"].astype(np.int32)
    image = np.rint(counts * (255 / 16)).astype(np.uint8)[..., None]
    return dataset.split_rows("digits", {"image": image, "label": label}, _stratified(label))


def _stratified(label: np.ndarray) -> np.ndarray:
    hashes = dataset.unit_hashes(dataset.row_names(len(label)))
    quantile = np.empty(len(label))
    for digit in np.unique(label):
        rows = np.flatnonzero(label == digit)
        quantile[rows[np.argsort(hashes[rows])]] = (np.arange(len(rows)) + 0.5) / len(rows)
    mask = np.zeros(len(label), bool)
    mask[np.argsort(quantile, kind="stable")[:NUM_HELDOUT]] = True
    return mask
