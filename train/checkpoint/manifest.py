"""Checkpoint manifests: write, read, verify SHA-256.

A step is a folder. Its file ``manifest.json`` names the run, the layout of the state, and size and SHA-256 of every
other file; ``manifest.sha256`` seals the manifest (``sha256sum -c`` reads it). A step with other files, or with other
bytes, is damaged.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from train.checkpoint import tree_paths
from train.run import documents, files

FORMAT = 1
_NAME, _SEAL = "manifest.json", "manifest.sha256"
_WHOLE, _STATE = "_CHECKPOINT_METADATA", "state/_METADATA"  # orbax's descriptions of a step, and of its arrays
_HANDLER = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"  # name in orbax 0.12
FILES = (_NAME, _SEAL, _WHOLE)
"""Files of a step; a damaged step still has some of them."""
_LARGEST = 64 << 20


class CheckpointError(Exception):
    """A checkpoint cannot be saved or used: exit code 4."""


class NonFiniteState(CheckpointError):
    """A state holds NaN or infinity, and is not saved: exit code 5."""


class Damaged(CheckpointError):
    """A step on disk differs from the saved one; the message names the file."""


class Manifest(NamedTuple):
    """The description of one step.

    Attributes:
      format: version of this format.
      run_id: name of the run.
      step: number of the step.
      score: held-out score, lower is better; None where there is none.
      meta: values that JSON can hold, saved beside the state.
      made_with: versions and devices of the program that saved the step.
      digest: SHA-256 of the state, of ``tree_paths.digest``.
      layout: type and shape of every array of the state by path.
      files: size and SHA-256 of every file by name.
    """

    format: int
    run_id: str
    step: int
    score: float | None
    meta: dict[str, Any]
    made_with: dict[str, Any]
    digest: str
    layout: dict[str, str]
    files: dict[str, list[Any]]


def draft(run_id: str, step: int, meta: Mapping[str, Any], score: float | None) -> Manifest:
    """Make the manifest of a step that is not on disk yet.

    Raises:
      ValueError: the step is negative, or JSON does not return ``meta`` unchanged.
    """
    if step < 0:
        raise ValueError(f"step: expected ≥ 0, got {step}")
    meta = dict(meta)
    try:
        back = json.loads(json.dumps(meta, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"meta: expected what JSON can hold, all numbers finite: {error}") from None
    if back != meta:
        raise ValueError(f"meta: expected what JSON gives back as it was (string keys, lists, no tuples), got {meta}")
    score = float(score) if score is not None and math.isfinite(score) else None
    return Manifest(FORMAT, run_id, int(step), score, back, _made_with(), "", {}, {})


def seal(folder: pathlib.Path, record: Manifest) -> None:
    """Write every file of the folder durably to disk, then the manifest of the files and its seal."""
    entries = {name: list(_measure(path, durable=True)) for name, path in _files(folder).items()}
    text = json.dumps(record._replace(files=entries)._asdict(), indent=1, allow_nan=False).encode() + b"\n"
    _write(folder / _NAME, text)
    _write(folder / _SEAL, _seal_of(text))
    for directory, _, _ in os.walk(folder, topdown=False):
        files.sync(pathlib.Path(directory))


def read(folder: pathlib.Path, run_id: str | None = None, *, anywhere: bool = False) -> Manifest:
    """Read the sealed manifest of a step; the files that it lists are not verified.

    Args:
      folder: folder of the step.
      run_id: required name of the run; None accepts any run.
      anywhere: True to accept a folder whose name is not the number of the step.

    Raises:
      Damaged: the manifest is missing, or does not fit its seal.
      CheckpointError: a newer program wrote the step, or another run than ``run_id``.
    """
    text, seal = (_small(folder, name) for name in (_NAME, _SEAL))
    if seal != _seal_of(text):
        raise Damaged(f"{folder / _NAME}: does not fit its seal, {folder / _SEAL}")
    record = _parse(folder, text, anywhere)
    if run_id not in (None, record.run_id):
        raise CheckpointError(
            f"{folder} belongs to run {files.shown(record.run_id)}, this is run {files.shown(run_id or '')}; "
            "use another workdir, or move the step away"
        )
    return record


def verify(folder: pathlib.Path, record: Manifest) -> None:
    """Raise Damaged, naming the file, unless the folder holds exactly the files of the manifest, byte for byte."""
    try:
        paths = _files(folder)
        for name in sorted(paths.keys() ^ record.files.keys()):
            raise Damaged(f"{folder / name}: {'missing' if name in record.files else 'not in the manifest'}")
        for name, path in paths.items():
            expected, size = record.files[name][0], path.stat().st_size
            if size != expected:
                raise Damaged(f"{path}: expected {expected} bytes, got {size}")
        for name, path in paths.items():
            if list(_measure(path)) != record.files[name]:
                raise Damaged(f"{path}: its SHA-256 is not that of the manifest")
    except OSError as error:
        raise Damaged(f"{error.filename or folder}: {error.strerror}") from error


def check_fit(folder: pathlib.Path, record: Manifest, layout: Mapping[str, str], *, partial: bool) -> None:
    """Raise CheckpointError, leaf by leaf, unless the step has this layout; ``partial`` allows more leaves."""
    saved = {name: leaf for name, leaf in record.layout.items() if name in layout or not partial}
    if differing := tree_paths.differences(saved, layout):
        more = [f"and {len(differing) - 20} more"] if len(differing) > 20 else []
        raise CheckpointError("\n  ".join([f"{folder} does not fit (saved -> expected):", *differing[:20], *more]))


def check_stored(folder: pathlib.Path, record: Manifest, stored: Any) -> None:
    """Raise Damaged unless orbax is about to allocate the arrays of the manifest; orbax itself does not check."""
    kept = {name: leaf for name, leaf in record.layout.items() if not tree_paths.is_empty(leaf)}
    chunks = [(leaf.storage.chunk_shape, leaf.shape) for leaf in tree_paths.named(stored).values()]
    if tree_paths.layout(stored) != kept or any(math.prod(chunk) > math.prod(shape) for chunk, shape in chunks):
        raise Damaged(f"{folder / 'state'}: orbax describes other arrays than the manifest")


def check_words(folder: pathlib.Path, handler: str) -> None:
    """Raise Damaged unless orbax's own files name only the parts of a step of this project.

    Orbax looks up handlers and types by the names in these files. It does so in a table, and imports nothing; this
    check keeps unknown names out even if that changes.

    Args:
      folder: folder of the step.
      handler: name of the handler of a tree of arrays, in the version of orbax at hand.
    """
    try:
        handlers = documents.json_object(folder / _WHOLE)["item_handlers"]
        state = documents.json_object(folder / _STATE)
        kinds = {leaf["value_metadata"]["value_type"] for leaf in state["tree_metadata"].values()}
        sound = handlers.keys() == {"state"} and handlers["state"] in (_HANDLER, handler)
        sound = sound and kinds <= {"np.ndarray"} and state.get("value_metadata_tree") is None
    except (documents.Unreadable, LookupError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise Damaged(f"{folder} names other parts than numpy arrays in a tree; it cannot be read")


@contextlib.contextmanager
def as_checkpoint_error(path: pathlib.Path) -> Iterator[None]:
    """Turn an OSError into a CheckpointError that names the file, for files that a run cannot do without."""
    try:
        yield
    except OSError as error:
        name = files.shown(error.filename if isinstance(error.filename, str) else path)
        raise CheckpointError(f"{name} cannot be read, written or deleted: {error.strerror}") from error


def brief(error: BaseException) -> str:
    """Summarise an exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    if code := getattr(error, "errno", None) or re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(code if isinstance(code, int) else int(code[1]))
    return f"{type(error).__name__}: {text.partition(chr(10))[0][:300]}"


def _made_with() -> dict[str, Any]:
    packages = {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint", "numpy")}
    machine = {"platform": jax.default_backend(), "devices": jax.device_count(), "processes": jax.process_count()}
    return {"python": platform.python_version()} | packages | machine


def _parse(folder: pathlib.Path, text: bytes, anywhere: bool) -> Manifest:
    try:
        fields = json.loads(text)
        if (version := fields["format"]) > FORMAT:
            raise CheckpointError(
                f"{folder} has format {version!r}, this program reads {FORMAT}; use a newer version of it"
            )
        record = Manifest(**fields)
        sound = {type(record.run_id), type(record.digest)} == {str} and isinstance(record.score, float | None)
        sound &= {type(record.meta), type(record.layout), type(record.files)} == {dict}
        sound &= all([type(size), type(sha)] == [int, str] for size, sha in record.files.values())
        sound &= type(record.step) is int and (anywhere or str(record.step) == folder.name)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise Damaged(f"{folder / _NAME}: not a manifest of step {folder.name}")
    return record


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every file below the folder except manifest and seal, by its name relative to the folder. Links are refused."""
    paths: dict[str, pathlib.Path] = {}
    for directory, folders, names in os.walk(folder, onerror=_refuse):
        for path in (pathlib.Path(directory, name) for name in folders + names):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise Damaged(f"{path}: expected a plain file, got a link or a device")
            if stat.S_ISREG(mode):
                paths[path.relative_to(folder).as_posix()] = path
    return {name: path for name, path in sorted(paths.items()) if name not in (_NAME, _SEAL)}


def _refuse(error: OSError) -> None:
    raise error


def _measure(path: pathlib.Path, durable: bool = False) -> tuple[int, str]:
    """The size and the SHA-256 of a file."""
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
        raise Damaged(f"{path}: {error.strerror}") from error


def _seal_of(text: bytes) -> bytes:
    return f"{hashlib.sha256(text).hexdigest()}  {_NAME}\n".encode()


def _write(path: pathlib.Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
