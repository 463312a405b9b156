"""Data sets in memory as uint8, and the functions between bytes and model inputs.

This is the only package that reads files. ``data.digits()`` and ``data.ring()`` need no file. ``data.tfds(name)``,
``data.folder(path, size)`` and ``data.npz(path)`` read images, and raise ``DataError`` for every problem. ``fit``
resizes the images of a data set. ``scale``, ``binarize``, ``flip`` and ``to_uint8`` run inside the training step.
"""

from genjax.data.archives import npz
from genjax.data.catalogue import tfds
from genjax.data.dataset import DataError, Dataset, fingerprint, summary
from genjax.data.embedded import digits
from genjax.data.fitting import fit
from genjax.data.folders import folder
from genjax.data.preprocess import binarize, flip, scale, to_uint8
from genjax.data.synthetic import ring
from genjax.lazy import attach

__all__ = [
    "DataError",
    "Dataset",
    "binarize",
    "digits",
    "fingerprint",
    "fit",
    "flip",
    "folder",
    "npz",
    "ring",
    "scale",
    "summary",
    "tfds",
    "to_uint8",
]

__dir__ = attach(__name__, __all__)[1]
