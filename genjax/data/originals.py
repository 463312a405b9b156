"""MNIST, static binarised MNIST, Fashion-MNIST and CIFAR-10 from their published files, known by name and SHA-256."""

import hashlib
import pathlib
import shlex
from collections.abc import Callable
from typing import NamedTuple

from genjax.data import binarized, cifar, dataset, download, files, idx
from genjax.data.dataset import DataError, Dataset

IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FASHION_MNIST_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/"
BINARIZED_MNIST_URL = "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
MOST_LABELS = 1 << 24


class Original(NamedTuple):
    """Published data set.

    Attributes:
      url: address of the folder of its files.
      sha256: SHA-256 of each file.
      load: function that reads a folder of these files.
      note: remarks for the user who downloads them by hand.
    """

    url: str
    sha256: dict[str, str]
    load: Callable[[pathlib.Path], Dataset | None]
    note: tuple[str, ...] = ()


def load(name: str, root: pathlib.Path) -> Dataset | None:
    """Load a data set from ``root/name/`` or ``root/``; None if neither folder holds its files.

    Raises:
      DataError: a file is damaged, or the folder holds another data set.
    """
    for folder in (root / name, root):
        loaded = SETS[name].load(folder)
        if loaded:
            _demand_own_labels(name, folder)
            return dataset.validated(loaded._replace(name=name))
    return None


def obtain(name: str, root: pathlib.Path, open_url: download.OpenUrl = download.open_https) -> None:
    """Download and verify the files that ``root/name/`` lacks.

    Raises:
      DataError: the download failed, at once if the server is unreachable; the message says which files to put where.
    """
    original, folder = SETS[name], root / name
    missing = [file for file in original.sha256 if not files.is_regular(folder / file)]
    if not missing:
        raise DataError(f"{folder} holds the files of {name}, but they cannot be read as such; delete them")
    try:
        if reason := download.unreachable(original.url + missing[0], open_url):
            raise DataError(reason)
        for file in missing:
            download.fetch(original.url + file, folder / file, original.sha256[file], open_url)
    except DataError as error:
        raise DataError(f"{recipe(name, folder, missing)}\nThe download failed: {error}") from error


def recipe(name: str, folder: pathlib.Path, files: list[str]) -> str:
    """Commands that download the files by hand."""
    original = SETS[name]
    lines = [
        f"  curl --create-dirs -fL -o {shlex.quote(str(folder / file))} {original.url}{file}\n"
        f"    sha256 {original.sha256[file]}"
        for file in files
    ]
    return "\n".join(
        [f"{name}: {folder} lacks {len(files)} file(s), which these commands fetch:", *lines, *original.note]
    )


def _idx_pairs(folder: pathlib.Path) -> Dataset | None:
    """Load MNIST, or a data set of the same form, gzipped or not."""
    plain = [folder / file.removesuffix(".gz") for file in IDX_FILES]
    paths = [path if files.is_regular(path) else path.with_name(f"{path.name}.gz") for path in plain]
    if not all(files.is_regular(path) for path in paths):
        return None
    return Dataset(folder.name, _pair(*paths[:2]), _pair(*paths[2:]))


def _pair(image_path: pathlib.Path, label_path: pathlib.Path) -> dataset.Split:
    image, label = idx.read(image_path), idx.read(label_path)
    if image.ndim != 3 or label.shape != image.shape[:1]:
        raise DataError(
            f"{image_path} has shape {image.shape}, {label_path.name} {label.shape}; expected [n h w], and n labels"
        )
    return {"image": image[..., None], "label": dataset.to_int32(label)}


def _demand_own_labels(name: str, folder: pathlib.Path) -> None:
    """Refuse another data set: MNIST and Fashion-MNIST have equal file names and shapes, but different checksums."""
    path = folder / IDX_FILES[-1]
    if not files.is_regular(path):
        return
    checksum = hashlib.sha256(files.read(path, MOST_LABELS)).hexdigest()
    for other, original in SETS.items():
        if other != name and original.sha256.get(path.name) == checksum:
            raise DataError(f"{folder} holds {other}, not {name}; put the files of {name} into a folder named {name}")


SETS: dict[str, Original] = {
    "mnist": Original(
        MNIST_URL,
        {
            IDX_FILES[0]: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            IDX_FILES[1]: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            IDX_FILES[2]: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            IDX_FILES[3]: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        _idx_pairs,
    ),
    "fashion_mnist": Original(
        FASHION_MNIST_URL,
        {
            IDX_FILES[0]: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            IDX_FILES[1]: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            IDX_FILES[2]: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            IDX_FILES[3]: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        _idx_pairs,
    ),
    "cifar10": Original(
        CIFAR10_URL,
        {cifar.ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
        cifar.load,
        ("It must be this binary version: the Python version is made of pickles, which are never read.",),
    ),
    "binarized_mnist": Original(
        BINARIZED_MNIST_URL,
        {
            binarized.FILES["train"]: "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
            binarized.FILES["test"]: "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
        },
        binarized.load,
    ),
}
