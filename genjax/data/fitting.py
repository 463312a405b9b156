"""Resizing of the images of a data set, and conversion between grey and colour."""

import numpy as np

from genjax.data import files, images
from genjax.data.dataset import Dataset


def fit(whole: Dataset, size: int | None = None, channels: int | None = None) -> Dataset:
    """Resize the images of a data set and convert their channels, as ``folder`` does with pictures.

    The central square is resampled by Pillow's Lanczos filter (``images.fit``). Colours become luma,
    0.299 R + 0.587 G + 0.114 B, rounded; grey is repeated in three channels. Labels stay.

    Args:
      whole: data set of images uint8[n h w c], levels 0 to 255; not of points or codes, which are not intensities.
      size: height and width; None keeps the size.
      channels: 1 for grey, 3 for colour; None keeps the channels.

    Raises:
      DataError: the images would not fit into memory.
      ValueError: ``size`` or ``channels`` is out of range, or the images are not of bytes.
    """
    if (size is not None and size < 1) or channels not in (None, 1, 3):
        raise ValueError(f"size, channels: expected a size of 1 or more, and 1 or 3 channels; got {size}, {channels}")
    shape, dtype = whole.train["image"].shape[1:], whole.train["image"].dtype
    if dtype != np.uint8 and (size or channels):
        raise ValueError(f"{whole.name}: expected images of bytes, got {dtype}; only levels 0 to 255 can be resampled")
    size = None if size is None or shape[:2] == (size, size) else size
    channels = None if channels is None or shape[2] == channels else channels
    if size is None and channels is None:
        return whole

    rows = len(whole.train["image"]) + len(whole.heldout["image"])
    files.demand_memory(rows * (size or shape[0]) * (size or shape[1]) * (channels or shape[2]))

    def converted(image: np.ndarray) -> np.ndarray:
        if not len(image):
            side = (size, size) if size else shape[:2]
            return np.zeros((0, *side, channels or shape[2]), np.uint8)
        return images.fit_arrays(image, size, channels)

    train, heldout = (split | {"image": converted(split["image"])} for split in (whole.train, whole.heldout))
    return whole._replace(train=train, heldout=heldout)
