"""Data sets by name, from the catalogue of tensorflow-datasets."""

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
    """Load a data set of the catalogue of tensorflow-datasets, without TensorFlow where possible.

    The sources, in this order:

    1. ``mnist``, ``fashion_mnist``, ``cifar10``, ``binarized_mnist``: the published files, in ``data_dir/name/`` or
       ``data_dir/``: the four IDX files, gzipped or not; ``cifar-10-binary.tar.gz``, its ``.bin`` files, or lossless
       mosaics (``data.cifar``); the text files, or their bits packed (``data.binarized``).
    2. Any data set that tensorflow-datasets has prepared in ``data_dir/name/`` as ``array_record``.
    3. For the data sets of 1., their published files, downloaded to ``data_dir/name/`` and checked by SHA-256.
       For all others, tensorflow-datasets itself, if TensorFlow is installed.

    Sources 1 and 2 have the same images in different orders, so their fingerprints differ.

    Args:
      name: name in the catalogue, with the configuration after a slash if there is one.
      data_dir: folder of the data sets; by default TFDS_DATA_DIR, or else ``~/tensorflow_datasets``.
      size: height and width of the result (``images.fit``); required if the images differ in size.
      heldout_split: name of the held-out split; by default ``test``, or else ``validation``, or else the rows of
        ``train`` whose number in decimal has a SHA-256 below 5 % of 2²⁵⁶.

    Raises:
      DataError: the data are damaged or unavailable, and the message says which files to put where; or the catalogue
        has no such name.
      ValueError: ``size`` is given for ``binarized_mnist``, whose pixels would turn grey.
    """
    prepared.demand_name(name)
    if name == "binarized_mnist" and size:
        raise ValueError("size: binarized_mnist is black and white alone, and would turn grey at another size")
    root = dataset.expand_path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    published = name in originals.SETS and heldout_split in (None, "test")
    loaded = _load(name, root, size, heldout_split, published)
    if loaded is None:
        (originals.obtain if published else prepared.prepare)(name, root)
        loaded = _load(name, root, size, heldout_split, published)
    if loaded is None:
        raise DataError(f"{name}: nothing was prepared in {root / name}")
    return loaded


def _load(
    name: str, root: pathlib.Path, size: int | None, heldout_split: str | None, published: bool
) -> Dataset | None:
    original = originals.load(name, root) if published else None
    if original is None:
        return prepared.load(name, root, size, heldout_split)
    return fitting.fit(original, size)
