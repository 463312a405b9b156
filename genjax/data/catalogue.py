"""Data sets by their names in the catalogue of tensorflow-datasets."""

import os
import pathlib

from genjax.data import dataset, fitting, originals, prepared
from genjax.data.dataset import DataError, Dataset


def tfds(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    size: int | None = None,
    heldout_split: str | None = None,
) -> Dataset:
    """A data set of the catalogue of tensorflow-datasets, without TensorFlow wherever that is possible.

    What is tried, in this order:

    1. ``mnist``, ``fashion_mnist``, ``cifar10``, ``binarized_mnist``: the published files, in ``data_dir/name/`` or
       ``data_dir/``: the four IDX files, gzipped or not; ``cifar-10-binary.tar.gz``, its ``.bin`` files, or lossless
       mosaics (``data.cifar``); the text files, or their bits packed (``data.binarized``).
    2. Any set that tensorflow-datasets has prepared in ``data_dir/name/`` as ``array_record``.
    3. The sets of 1.: their published files are downloaded to ``data_dir/name/``, checked by SHA-256.
       All others: tensorflow-datasets prepares them, if TensorFlow is installed.

    The same images come in another order, and with another fingerprint, from 1. than from 2.

    Args:
      name: as in the catalogue, with the configuration after a slash where there is one.
      data_dir: the folder of data sets; by default TFDS_DATA_DIR, or else ``~/tensorflow_datasets``.
      size: height and width to bring the images to (``images.fit``); needed where they differ in size.
      heldout_split: by default ``test``, or else ``validation``, or else the rows of ``train`` whose number in decimal
        has a SHA-256 below 5 % of 2²⁵⁶.

    Raises:
      DataError: the data are damaged or cannot be had; the message says which files to put where. Or the name is none
        of the catalogue's.
      ValueError: ``size`` is asked of ``binarized_mnist``, which would turn grey.
    """
    prepared.demand_name(name)
    if name == "binarized_mnist" and size:
        raise ValueError("size: binarized_mnist is black and white alone, and would turn grey at another size")
    root = dataset.place(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    published = name in originals.SETS and heldout_split in (None, "test")
    found = _find(name, root, size, heldout_split, published)
    if found is None:
        (originals.obtain if published else prepared.prepare)(name, root)
        found = _find(name, root, size, heldout_split, published)
    if found is None:
        raise DataError(f"{name}: nothing was prepared in {root / name}")
    return found


def _find(
    name: str, root: pathlib.Path, size: int | None, heldout_split: str | None, published: bool
) -> Dataset | None:
    original = originals.load(name, root) if published else None
    if original is None:
        return prepared.load(name, root, size, heldout_split)
    return fitting.fit(original, size)
