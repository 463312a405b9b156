"""Standard streams as a command may find them: closed, full, or in a foreign code page."""

import contextlib
import io
import logging
import os
import sys
from typing import TextIO

from train.run import files


def prepare() -> None:
    """Make the three streams usable whatever their state; characters that a stream cannot show become "?".

    A closed stream is replaced by the null device, so that no other file takes its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)  # the lowest free number, which is this one or a lower
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream.errors in ("strict", "surrogateescape") else stream.errors)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where its cache cannot be in the home


def write_line(text: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """Print text to stdout or another stream; never raise, whether or not anybody reads the stream.

    Where the reader has left (`| head -1`) or the disk is full, the stream becomes the null device.
    """
    stream = stream or sys.stdout
    try:
        print(files.shown(text, keep="\n\t"), file=stream, flush=True, end=end)
    except ValueError:  # closed
        return
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            stream.flush()
        if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
            write_line(
                f"warning: stdout cannot be written to ({error.strerror}); nothing more is shown there", sys.stderr
            )
