"""What a saved step says about itself, and how that is held against the bytes on disk.

A step is a folder. ``manifest.json`` in it names the run, the layout of the state and the size and SHA-256 of every other
file; ``manifest.sha256`` seals the manifest (``sha256sum -c`` reads it). A step whose files are not exactly those is damaged.
"""

import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

FORMAT = 1
_NAME, _SEAL = "manifest.json", "manifest.sha256"
_LARGEST = 64 << 20


class CheckpointError(Exception):
    """A checkpoint cannot be saved or used. The command exits 4."""


class NonFinite(CheckpointError):
    """The state holds NaN or infinity, and is not saved. The command exits 5."""


class Damaged(CheckpointError):
    """A step on disk is not what was saved: the message names the file."""


class Manifest(NamedTuple):
    """The record of one step."""

    format: int
    run_id: str
    step: int
    score: float | None
    meta: dict[str, Any]
    digest: str
    layout: dict[str, str]
    made_with: dict[str, Any]
    files: dict[str, list]


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path, sorted: ``{"params/Dense_0/kernel": ...}``.

    Raises:
      ValueError: if a name contains "/", or two paths are one and the same to a reader.
    """
    named = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [jax.tree_util.keystr((key,), simple=True) for key in keys]
        path = "/".join(names)
        if path in named or path.count("/") != max(len(names) - 1, 0):
            raise ValueError(f"state: expected one plain name per leaf, got {path!r} twice or with a '/' in a name")
        named[path] = leaf
    return dict(sorted(named.items()))


def layout(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf by path: ``{"params/Dense_0/kernel": "float32[784,128]"}``."""
    return {path: _describe(leaf) for path, leaf in leaves(tree).items()}


def digest(tree: Any) -> str:
    """SHA-256 over path, type, shape and bytes of every leaf, in the order of the paths; equal iff the trees are."""
    total = hashlib.sha256()
    for path, leaf in leaves(tree).items():
        array = np.asarray(leaf)
        total.update(json.dumps([path, _describe(array)]).encode() + b"\n")
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return total.hexdigest()


def compare(saved: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raises CheckpointError with ``path: saved -> expected`` for every leaf that differs in presence, type or shape."""
    differing = [path for path in sorted(saved.keys() | expected.keys()) if saved.get(path) != expected.get(path)]
    if differing:
        lines = [f"  {path}: {saved.get(path, 'absent')} -> {expected.get(path, 'absent')}" for path in differing[:20]]
        more = [f"  and {len(differing) - 20} more"] if len(differing) > 20 else []
        raise CheckpointError(
            "the checkpoint does not fit this configuration (saved -> expected):\n" + "\n".join(lines + more)
        )


def seal(folder: pathlib.Path, record: Manifest) -> None:
    """Makes every file of the folder durable, then writes their manifest and its seal."""
    entries = {name: list(_measure(path, durable=True)) for name, path in _files(folder).items()}
    text = json.dumps(record._replace(files=entries)._asdict(), indent=1, allow_nan=False).encode()
    _write(folder / _NAME, text)
    _write(folder / _SEAL, _seal_of(text))
    for directory, _, _ in os.walk(folder, topdown=False):
        sync(pathlib.Path(directory))


def read(folder: pathlib.Path) -> Manifest:
    """The sealed manifest of a step; the files it lists are not looked at yet.

    Raises:
      Damaged: if it is missing or not as it was sealed.
      CheckpointError: if a newer program wrote it.
    """
    text, sealed = (_small(folder, name) for name in (_NAME, _SEAL))
    if sealed != _seal_of(text):
        raise Damaged(f"{folder / _NAME}: not the bytes that {_SEAL} seals")
    try:
        fields = json.loads(text)
        version = int(fields["format"])
    except (ValueError, RecursionError, TypeError, KeyError):
        raise Damaged(f"{folder / _NAME}: not a manifest") from None
    if version > FORMAT:
        raise CheckpointError(
            f"{folder} has format {version}, this program reads up to {FORMAT}; use a newer version of it"
        )
    return _parse(folder, fields)


def verify(folder: pathlib.Path, record: Manifest) -> None:
    """Raises Damaged, naming the file, unless the folder holds exactly the files of the manifest, byte for byte."""
    found = _files(folder)
    for name in sorted(found.keys() ^ record.files.keys()):
        raise Damaged(f"{folder / name}: " + ("missing" if name in record.files else "not in the manifest"))
    for name, path in found.items():
        expected, size = record.files[name][0], path.stat().st_size
        if size != expected:
            raise Damaged(f"{path}: expected {expected} bytes, got {size}")
    for name, path in found.items():
        if list(_measure(path)) != record.files[name]:
            raise Damaged(f"{path}: its SHA-256 differs from the manifest")


def sync(folder: pathlib.Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _describe(leaf: Any) -> str:
    value = leaf if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else np.asarray(leaf)
    return f"{value.dtype.name}[{','.join(map(str, value.shape))}]"


def _parse(folder: pathlib.Path, fields: Any) -> Manifest:
    try:
        record = Manifest(**fields)
        sound = {type(record.run_id), type(record.digest)} == {str} and type(record.step) is int
        sound &= {type(record.meta), type(record.layout), type(record.files)} == {dict}
        sound &= isinstance(record.score, float | None)
        sound &= all(isinstance(size, int) and isinstance(sha, str) for size, sha in record.files.values())
    except (TypeError, ValueError):
        sound = False
    if not sound or str(record.step) != folder.name:
        raise Damaged(f"{folder / _NAME}: not a manifest of step {folder.name}")
    return record


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every file below the folder but manifest and seal, by its name relative to the folder. Links are refused."""
    found = {}
    for directory, folders, names in os.walk(folder, onerror=_unreadable):
        for path in (pathlib.Path(directory, name) for name in folders + names):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise Damaged(f"{path}: expected a plain file, got a link or a device")
            if stat.S_ISREG(mode):
                found[path.relative_to(folder).as_posix()] = path
    return {name: path for name, path in sorted(found.items()) if name not in (_NAME, _SEAL)}


def _unreadable(error: OSError) -> None:
    raise Damaged(f"{error.filename}: {error.strerror}")


def _measure(path: pathlib.Path, durable: bool = False) -> tuple[int, str]:
    """Size and SHA-256."""
    with open(path, "rb") as file:
        if durable:
            os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _small(folder: pathlib.Path, name: str) -> bytes:
    path = folder / name
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or folder.is_symlink() or status.st_size > _LARGEST:
            raise Damaged(f"{path}: expected a plain file of at most {_LARGEST} bytes")
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path}: {error.strerror}") from None


def _seal_of(text: bytes) -> bytes:
    return f"{hashlib.sha256(text).hexdigest()}  {_NAME}\n".encode()


def _write(path: pathlib.Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
