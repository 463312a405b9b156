"""Compress a file: ``python -m train.huffman FILE``, and ``python -m train.huffman FILE.huff --restore``."""

import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import tyro

from genjax import data
from genjax.theory import huffman, information
from train.run import claims, config, documents, files, logging, process


@dataclasses.dataclass(frozen=True)
class Huffman:
    """Compress a file with a Huffman code of its bytes, or restore one; no file is overwritten without --force."""

    file: Annotated[str, tyro.conf.Positional]
    """File to compress or to restore."""
    out: str = ""
    """Output file. Default: FILE.huff; with --restore, FILE without .huff."""
    restore: bool = False
    """Restore a compressed file."""
    force: bool = False
    """Overwrite the output file if it exists."""
    traceback: bool = False
    """Show where in the code an error arose."""


def main(argv: Sequence[str]) -> None:
    """Compress or restore a file, from the arguments of the command line."""
    settings, _ = config.command(Huffman, "huffman", argv)
    source = pathlib.Path(settings.file)
    started = time.monotonic()
    content = _content(source)
    out = pathlib.Path(settings.out) if settings.out else _default_output(source, settings.restore)
    files.check_output(out)
    if claims.belongs_to_a_run(out):
        raise config.UsageError(f"--out {out}: belongs to a run; name another file")
    if out.exists() and out.samefile(source):
        raise config.UsageError(f"--out {out}: is the file itself, {source}; name another")
    if os.path.lexists(out) and not settings.force:
        raise config.UsageError(f"{out} is there already; name another with --out, or overwrite it with --force")
    result = _restore(source, content) if settings.restore else huffman.encode(content)
    if not settings.restore and huffman.decode(result) != content:
        raise AssertionError(f"{out}: the code does not decode to the file; nothing is written")
    with documents.writing(out):
        files.replace(out, result)
    if not settings.restore:
        _report(content, len(result), time.monotonic() - started)
    logging.log(f"{source} -> {out}")


def _content(source: pathlib.Path) -> bytes:
    if source.is_dir():
        raise config.UsageError(f"{source} is a folder; name a file")
    try:
        return files.content(source, sys.maxsize)
    except OSError as error:
        raise config.UsageError(f"{source}: {error.strerror}") from error


def _restore(source: pathlib.Path, compressed: bytes) -> bytes:
    try:
        return huffman.decode(compressed)
    except ValueError as error:
        raise data.DataError(f"{source}: {str(error).removeprefix('data: ')}") from error


def _report(content: bytes, packed: int, seconds: float) -> None:
    """Print the entropy, the length of the code and the size of the compressed file."""
    if not content:
        return logging.log(f"the file is empty: 0 -> {packed} bytes; it restores the file")
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    frequencies = {byte: int(count) for byte, count in enumerate(counts) if count}
    length = huffman.expected_length(huffman.code(frequencies), frequencies)
    entropy = float(information.entropy_bits(counts / counts.sum()))
    logging.log(f"entropy of the bytes   {entropy:.4f} bits per symbol")
    logging.log(f"Huffman's code         {length:.4f} bits per symbol")
    logging.log(f"the file with header   {8 * packed / len(content):.4f} bits per symbol")
    share = f"{packed / len(content):.1%}, {len(content) / packed:.2f} to 1"
    logging.log(f"{len(content)} -> {packed} bytes ({share}) in {seconds:.2f} s; it restores the file, byte for byte")


def _default_output(source: pathlib.Path, restore: bool) -> pathlib.Path:
    if not restore:
        return source.with_name(source.name + ".huff")
    if source.suffix != ".huff":
        raise config.UsageError(f"{source}: its name does not end in .huff; say where to restore it with --out")
    return source.with_suffix("")


if __name__ == "__main__":
    process.main(main)
