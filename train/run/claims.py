"""Files that a run owns in its folder. No other file there is ever overwritten or deleted.

A run begins only where none of the files that it would write exists already. From then on ``.genjax`` lists the files
and the steps of the run, each before it is written, below the name of the run. A run older than this list owns the
files whose names it is known to have written.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import stat
from collections.abc import Iterator

from train.checkpoint import manifest, steps
from train.checkpoint.lock import WorkdirError, primary
from train.run import documents, files

LIST = ".genjax"
FOLDERS = ("checkpoints", "samples", "tensorboard")
NAMES = (*FOLDERS, "config.json", "metrics.jsonl", "curves.png", "members.png", "rate-distortion.png", "returns.png")
"""Every name that a run writes at the top of its folder."""
_FIGURES = "drawn "
"""Word before the number of a step whose figures are written, in a line of the list."""
_RECORD = {"config.json", "metrics.jsonl"}  # where the first belongs to a run, so does the second
_KNOWN = re.compile(
    r"(curves|members|rate-distortion|returns)\.png|metrics\.jsonl\.\d+|tensorboard/events\.out\.tfevents\..*"
    r"|samples/(\d{7,}(-reverse|-reconstruction)?|anomaly|completion|first|forward|interpolation|latents|latest"
    r"|manifold|mistakes|rollout|schedule)\.png"
)
"""Names of files that runs without a list have written, and of files that a line of the list may name."""


class Claims:
    """The files that a run owns in its folder; calling it with a path claims one file more, before it is written."""

    def __init__(self, workdir: pathlib.Path, run_id: str):
        self.workdir = workdir
        self._without_list = not os.path.lexists(workdir / LIST)
        self.names = owned(workdir, run_id)
        if primary():
            for folder in (workdir, workdir / "samples"):
                files.clean(folder)
            files.replace(workdir / LIST, "\n".join([_title(run_id), *sorted(self.names), ""]))

    def __call__(self, path: pathlib.Path) -> None:
        """Claim a file of the folder; a path outside of the folder passes.

        Raises:
          OSError: a file is there that the run does not own.
        """
        if not path.is_relative_to(self.workdir):
            return
        if (name := path.relative_to(self.workdir).as_posix()) not in self.names:
            if os.path.lexists(path):
                raise OSError(errno.EEXIST, "it is not this run's, and is left as it is", str(path))
            self._add(name)

    def add_step(self, step: int) -> None:
        """Claim a checkpoint."""
        with contextlib.suppress(OSError):  # its manifest names the run too
            self._add(f"checkpoints/{step}")

    def add_written(self, path: pathlib.Path) -> None:
        """Claim a file that the run has just written."""
        with contextlib.suppress(OSError):
            self._add(path.relative_to(self.workdir).as_posix())

    def add_figures(self, step: int) -> None:
        """Note that the figures of a step are written."""
        with contextlib.suppress(OSError):
            self._add(f"{_FIGURES}{step}")

    def has_figures(self, step: int) -> bool:
        """True if the figures of a step are written."""
        return self._without_list or f"{_FIGURES}{step}" in self.names

    def _add(self, name: str) -> None:
        if name not in self.names:
            files.append(self.workdir / LIST, f"{name}\n", durable=True)
            self.names.add(name)


def has_figures(workdir: pathlib.Path, run_id: str, step: int) -> bool:
    """True if the figures of a step are written; a run without a list wrote figures before it saved a step."""
    return not os.path.lexists(workdir / LIST) or f"{_FIGURES}{step}" in owned(workdir, run_id)


def owned(workdir: pathlib.Path, run_id: str) -> set[str]:
    """The names of the files and steps that the run of this name owns in a folder."""
    try:
        title, *names = files.content(workdir / LIST).decode("utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        names = [name for name in _plain_files(workdir) if _KNOWN.fullmatch(name)]
    except (OSError, ValueError):
        names = []
    else:
        names = [name for name in names if title == _title(run_id) and _is_valid_line(name)]
    return {*names} | _RECORD


def belongs_to_a_run(path: pathlib.Path) -> bool:
    """True if a file belongs to the run in one of its parent folders: list, record and lock included."""
    for folder in path.resolve().parents:
        try:
            run_id = documents.json_object(folder / "config.json").get("run_id")
        except documents.Unreadable:
            continue
        name = path.resolve().relative_to(folder)
        if isinstance(run_id, str):
            names = {each.as_posix() for each in (name, *name.parents)}
            return name.parts[0] == "checkpoints" or bool(names & {*owned(folder, run_id), LIST, ".lock"})
    return False


def check_free(workdir: pathlib.Path) -> None:
    """Refuse a folder that holds files under names that a new run would write; empty folders pass.

    Raises:
      WorkdirError: there are such files; the message names them.
    """
    check_links(workdir)
    taken = [name for name in NAMES if any(_files_below(workdir / name))]
    if os.path.lexists(workdir / LIST) and not _is_list(workdir / LIST):
        taken.append(LIST)
    if taken:
        raise WorkdirError(
            f"workdir {workdir} holds {', '.join(taken)}, and no record of a run says that they are its own; "
            "choose another --workdir"
        )


def check_links(workdir: pathlib.Path) -> None:
    """Refuse a folder with links under names that the run writes: a run writes into its own folder only.

    Raises:
      WorkdirError: there is such a link; the message says where it points.
    """
    for name in (*NAMES, LIST):
        if (workdir / name).is_symlink():
            target = files.shown(os.readlink(workdir / name))
            raise WorkdirError(
                f"workdir {workdir}: {name} is a link to {target}, and a run writes into its own folder only; "
                "put the files themselves there, or choose another --workdir"
            )


def check_restart(workdir: pathlib.Path, run_id: str) -> None:
    """Refuse to start a run over where files that it does not own would be in the way.

    Raises:
      WorkdirError: there are such files; the message names them.
    """
    check_links(workdir)
    if foreign := _foreign_names(workdir, run_id):
        raise WorkdirError(
            f"workdir {workdir} holds {', '.join(sorted(foreign))}, which the run there did not write as far as its "
            "record says, so that they are not deleted; move them away, or choose another --workdir"
        )


def _foreign_names(workdir: pathlib.Path, run_id: str) -> set[str]:
    """The files and steps that the run does not own, under names that it writes."""
    own_names = owned(workdir, run_id)
    root = workdir / "checkpoints"
    foreign = [step for step in steps.steps(root) if not _is_own_step(root / str(step), own_names, run_id)]
    taken = {f"checkpoints/{step}" for step in foreign}
    taken |= {name for name in NAMES if name not in own_names and (workdir / name).is_file()}
    return taken | {name for name in FOLDERS if os.path.lexists(workdir / name) and not (workdir / name).is_dir()}


def clear(workdir: pathlib.Path, run_id: str) -> None:
    """Delete the files that the run owns, and no others. The record stays until a new one replaces it.

    Raises:
      WorkdirError: ``check_restart`` refuses; nothing is deleted.
      CheckpointError: a file could not be deleted.
    """
    check_restart(workdir, run_id)
    own_names = owned(workdir, run_id)
    root = workdir / "checkpoints"
    with manifest.as_checkpoint_error(workdir):
        for name in sorted(own_names - {"config.json"}):
            path = workdir / name
            if os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode):
                path.unlink(missing_ok=True)
        for path in list(root.iterdir()) if root.is_dir() else ():
            if steps.number(path) is not None and _is_own_step(path, own_names, run_id):
                shutil.rmtree(path, ignore_errors=not primary())
        steps.clean(root)


def _is_own_step(path: pathlib.Path, own_names: set[str], run_id: str) -> bool:
    """True if a folder is a step of the run (whole, damaged or set aside), as its manifest or the list says."""
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        return manifest.read(path, anywhere=True).run_id == run_id
    except manifest.Damaged:
        return f"checkpoints/{steps.number(path)}" in own_names and steps.was_step(path)
    except manifest.CheckpointError:
        return False


def _plain_files(workdir: pathlib.Path) -> Iterator[str]:
    """The names of the plain files at the top, in ``samples`` and in ``tensorboard``."""
    for folder in (workdir, workdir / "samples", workdir / "tensorboard"):
        if folder.is_dir() and not (folder.is_symlink() and folder != workdir):
            for path in folder.iterdir():
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path.relative_to(workdir).as_posix()


def _files_below(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files that would be lost with a path: itself, or all files below a folder; none where nothing exists."""
    if not path.is_symlink() and path.is_dir():
        for child in path.iterdir():
            yield from _files_below(child)
    elif os.path.lexists(path):
        yield path


def _is_valid_line(name: str) -> bool:
    """True if a line of the list can name a file of a run: at the top, or in one of its folders."""
    if name.startswith(_FIGURES):
        return True
    first, *rest = pathlib.PurePosixPath(name).parts or ("",)
    plain = name == "/".join([first, *rest]) and ".." not in rest and len(rest) <= 1
    return plain and (first in FOLDERS if rest else first in NAMES or bool(_KNOWN.fullmatch(first)))


def _is_list(path: pathlib.Path) -> bool:
    try:
        return files.content(path).startswith(_title("").encode())
    except OSError:
        return False


def _title(run_id: str) -> str:
    return f"files of run {run_id}"
