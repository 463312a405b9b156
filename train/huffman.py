"""Compress a file: ``python -m train.huffman FILE``, and ``python -m train.huffman FILE.huff --restore``."""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import tyro

from genjax import data
from genjax.theory import huffman, information
from train import config, record, runtime


@dataclasses.dataclass(frozen=True)
class Huffman:
    """Compress a file with a Huffman code of its bytes, or restore one; what is there is not overwritten."""

    file: Annotated[str, tyro.conf.Positional]
    """What to compress, or to restore."""
    out: str = ""
    """Where to. Default: FILE.huff; to restore, FILE without it."""
    restore: bool = False
    """Restore what was compressed."""
    force: bool = False
    """Overwrite what is there."""
    traceback: bool = False
    """Show where in the code an error arose."""


def main(argv: Sequence[str]) -> None:
    """Compress or restore as the command line says."""
    settings = tyro.cli(Huffman, prog="python -m train.huffman", args=argv)
    source = pathlib.Path(settings.file)
    if source.is_dir():
        raise config.UsageError(f"{source} is a folder; name a file")
    out = pathlib.Path(settings.out) if settings.out else _beside(source, settings.restore)
    _check_out(out, settings.force)
    started = time.monotonic()
    try:
        content = source.read_bytes()
        if settings.restore:
            _write(out, _restored(source, content))
        else:
            packed = huffman.encode(content)
            _write(out, packed, restores=content)
            _report(content, len(packed), time.monotonic() - started)
    except OSError as error:
        raise config.UsageError(f"{error.filename or source}: {error.strerror}") from error
    record.say(f"{source} -> {out}")


def _check_out(out: pathlib.Path, force: bool) -> None:
    if out.is_dir():
        raise config.UsageError(f"--out {out}: is a folder; name a file")
    if out.exists() and not force:
        raise config.UsageError(f"{out} is there already; name another with --out, or overwrite it with --force")
    if not out.absolute().parent.is_dir():
        raise config.UsageError(f"--out {out}: there is no folder {out.absolute().parent}")


def _write(out: pathlib.Path, result: bytes, restores: bytes | None = None) -> None:
    """All of the file or nothing: written in a folder of its own beside, read back, then moved."""
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".huffman-") as folder:
        partial = pathlib.Path(folder) / out.name
        partial.write_bytes(result)
        if restores is not None and huffman.decode(partial.read_bytes()) != restores:
            raise AssertionError(f"{out}: what was written does not decode to the file; nothing is kept")
        partial.replace(out)


def _restored(source: pathlib.Path, packed: bytes) -> bytes:
    try:
        return huffman.decode(packed)
    except ValueError as error:
        raise data.DataError(f"{source}: {str(error).removeprefix('data: ')}") from error


def _report(content: bytes, packed: int, seconds: float) -> None:
    """What the code costs beside what it must."""
    if not content:
        return record.say(f"the file is empty: 0 -> {packed} bytes; it restores the file")
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    frequencies = {byte: int(count) for byte, count in enumerate(counts) if count}
    length = huffman.expected_length(huffman.code(frequencies), frequencies)
    entropy = float(information.entropy_bits(counts / counts.sum()))
    record.say(f"entropy of the bytes   {entropy:.4f} bits per symbol")
    record.say(f"Huffman's code         {length:.4f} bits per symbol")
    record.say(f"the file with header   {8 * packed / len(content):.4f} bits per symbol")
    share = f"{packed / len(content):.1%}, {len(content) / packed:.2f} to 1"
    record.say(f"{len(content)} -> {packed} bytes ({share}) in {seconds:.2f} s; it restores the file, byte for byte")


def _beside(source: pathlib.Path, restore: bool) -> pathlib.Path:
    if not restore:
        return source.with_name(source.name + ".huff")
    if source.suffix != ".huff":
        raise config.UsageError(f"{source}: its name does not end in .huff; say where to restore it with --out")
    return source.with_suffix("")


if __name__ == "__main__":
    runtime.main(main)
