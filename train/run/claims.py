"""What in a folder is a run's own. Nothing else in it is ever overwritten or deleted.

A run begins only where nothing of what it would write is there already. From then on ``.genjax`` lists what it writes,
each file and each step before it is written, below the name of the run. Runs that are older than this list own the
files whose names they are known to have written.
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
"""Of everything that a run writes at the top of its folder."""
_DRAWN = "drawn "
_RECORD = {"config.json", "metrics.jsonl"}  # where the first is a run's, so is the second
_KNOWN = re.compile(
    r"(curves|members|rate-distortion|returns)\.png|metrics\.jsonl\.\d+|tensorboard/events\.out\.tfevents\..*"
    r"|samples/(\d{7,}(-reverse|-reconstruction)?|anomaly|completion|first|forward|interpolation|latents|latest"
    r"|manifold|mistakes|rollout|schedule)\.png"
)


class Claims:
    """What a run owns in its folder; ``claim(path)`` owns one file more, before it is written."""

    def __init__(self, workdir: pathlib.Path, run_id: str):
        self.workdir = workdir
        self._old = not os.path.lexists(workdir / LIST)
        self.names = owned(workdir, run_id)
        if primary():
            for folder in (workdir, workdir / "samples"):
                files.clean(folder)
            files.replace(workdir / LIST, "\n".join([_title(run_id), *sorted(self.names), ""]))

    def __call__(self, path: pathlib.Path) -> None:
        """Own a file of the folder; what lies elsewhere is not asked about.

        Raises:
          OSError: somebody else's file is there.
        """
        if not path.is_relative_to(self.workdir):
            return
        if (name := path.relative_to(self.workdir).as_posix()) not in self.names:
            if os.path.lexists(path):
                raise OSError(errno.EEXIST, "it is not this run's, and is left as it is", str(path))
            self._add(name)

    def step(self, step: int) -> None:
        """Own a checkpoint."""
        with contextlib.suppress(OSError):  # its manifest says it too
            self._add(f"checkpoints/{step}")

    def made(self, path: pathlib.Path) -> None:
        """Own a file that has just been made."""
        with contextlib.suppress(OSError):
            self._add(path.relative_to(self.workdir).as_posix())

    def draw(self, step: int) -> None:
        """Note that the pictures of a step are drawn."""
        with contextlib.suppress(OSError):
            self._add(f"{_DRAWN}{step}")

    def drawn(self, step: int) -> bool:
        """Whether they are."""
        return self._old or f"{_DRAWN}{step}" in self.names

    def _add(self, name: str) -> None:
        if name not in self.names:
            files.append(self.workdir / LIST, f"{name}\n", durable=True)
            self.names.add(name)


def drawn(workdir: pathlib.Path, run_id: str, step: int) -> bool:
    """Whether the pictures of a step are drawn; of runs without a list they are, which drew before they saved."""
    return not os.path.lexists(workdir / LIST) or f"{_DRAWN}{step}" in owned(workdir, run_id)


def owned(workdir: pathlib.Path, run_id: str) -> set[str]:
    """The names of the files and steps that a run owns, whose record is ``config.json``."""
    try:
        title, *names = files.content(workdir / LIST).decode("utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        names = [name for name in _files(workdir) if _KNOWN.fullmatch(name)]
    except (OSError, ValueError):
        names = []
    else:
        names = [name for name in names if title == _title(run_id) and _inside(name)]
    return {*names} | _RECORD


def of_a_run(path: pathlib.Path) -> bool:
    """Whether a file belongs to the run of a folder that it lies in: its list, its record, its lock among them."""
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
    """Refuse a folder in which a run that begins would find files in its way; empty folders are not.

    Raises:
      WorkdirError: which.
    """
    check_links(workdir)
    taken = [name for name in NAMES if any(_below(workdir / name))]
    if os.path.lexists(workdir / LIST) and not _written_by_a_run(workdir / LIST):
        taken.append(LIST)
    if taken:
        raise WorkdirError(
            f"workdir {workdir} holds {', '.join(taken)}, and no record of a run says that they are its own; "
            "choose another --workdir"
        )


def check_links(workdir: pathlib.Path) -> None:
    """Refuse a folder of a run that holds links where the run writes: it writes into no other folder.

    Raises:
      WorkdirError: which, and where it points.
    """
    for name in (*NAMES, LIST):
        if (workdir / name).is_symlink():
            target = files.shown(os.readlink(workdir / name))
            raise WorkdirError(
                f"workdir {workdir}: {name} is a link to {target}, and a run writes into its own folder only; "
                "put the files themselves there, or choose another --workdir"
            )


def check_restart(workdir: pathlib.Path, run_id: str) -> None:
    """Refuse to start a run over where what is not its own would be in the way.

    Raises:
      WorkdirError: which files.
    """
    check_links(workdir)
    mine = owned(workdir, run_id)
    root = workdir / "checkpoints"
    taken = [f"checkpoints/{step}" for step in steps.steps(root) if not _own_step(root / str(step), mine, run_id)]
    taken += [name for name in NAMES if name not in mine and (workdir / name).is_file()]
    taken += [name for name in FOLDERS if os.path.lexists(workdir / name) and not (workdir / name).is_dir()]
    if taken:
        raise WorkdirError(
            f"workdir {workdir} holds {', '.join(sorted({*taken}))}, which the run there did not write as far as its "
            "record says, so that they are not deleted; move them away, or choose another --workdir"
        )


def clear(workdir: pathlib.Path, run_id: str) -> None:
    """Delete what the run owns, and nothing else. Its record stays, until another takes its place.

    Raises:
      WorkdirError: as ``check_restart``, before anything is deleted.
      CheckpointError: something could not be deleted.
    """
    check_restart(workdir, run_id)
    mine = owned(workdir, run_id)
    root = workdir / "checkpoints"
    with manifest.kept(workdir):
        for name in sorted(mine - {"config.json"}):
            path = workdir / name
            if os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode):
                path.unlink(missing_ok=True)
        for path in list(root.iterdir()) if root.is_dir() else ():
            if steps.number(path) is not None and _own_step(path, mine, run_id):
                shutil.rmtree(path, ignore_errors=not primary())
        steps.clean(root)


def _own_step(path: pathlib.Path, mine: set[str], run_id: str) -> bool:
    """Whether a folder is a step of the run, whole, damaged or set aside: the list or its manifest says so."""
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        return manifest.read(path, anywhere=True).run_id == run_id
    except manifest.Damaged:
        return f"checkpoints/{steps.number(path)}" in mine and steps.was_step(path)
    except manifest.CheckpointError:
        return False


def _files(workdir: pathlib.Path) -> Iterator[str]:
    """The names of the plain files at the top, in ``samples`` and in ``tensorboard``."""
    for folder in (workdir, workdir / "samples", workdir / "tensorboard"):
        if folder.is_dir() and not (folder.is_symlink() and folder != workdir):
            for path in folder.iterdir():
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path.relative_to(workdir).as_posix()


def _below(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """What would be lost with a path: itself, or what is in the folder; nothing where it is not there."""
    if not path.is_symlink() and path.is_dir():
        for child in path.iterdir():
            yield from _below(child)
    elif os.path.lexists(path):
        yield path


def _inside(name: str) -> bool:
    """Whether a line of the list can be of a run: a file at the top, or in one of its folders."""
    if name.startswith(_DRAWN):
        return True
    first, *rest = pathlib.PurePosixPath(name).parts or ("",)
    plain = name == "/".join([first, *rest]) and ".." not in rest and len(rest) <= 1
    return plain and (first in FOLDERS if rest else first in NAMES or bool(_KNOWN.fullmatch(first)))


def _written_by_a_run(path: pathlib.Path) -> bool:
    try:
        return files.content(path).startswith(_title("").encode())
    except OSError:
        return False


def _title(run_id: str) -> str:
    return f"files of run {run_id}"
