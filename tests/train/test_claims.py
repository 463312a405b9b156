"""A run owns what its record says: nothing else is deleted or overwritten, and no message advises it."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from genjax import data
from train import ae, evaluate, judge, vae
from train.checkpoint import lock, store
from train.run import claims, config, files, load, logging, metrics_file, record

SETTINGS = ae.Config(workdir="run", steps=4, every=2)
STATE = {"w": np.arange(3.0)}


def dataset(value=0, name="digits"):
    split = {"image": np.full((4, 8, 8, 1), value, np.uint8)}
    return data.Dataset(name, split, split)


def begin(folder, settings=SETTINGS, rows=None, name="0123abcd"):
    rows = rows or dataset()
    return record.write(folder, "ae", name, settings, rows, data.fingerprint(rows))


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


@pytest.fixture
def run(tmp_path):
    """What a run of two reports leaves."""
    folder = tmp_path / "run"
    with store.Checkpoints(folder, run_id="0123abcd") as checkpoints:
        own = begin(folder)
        log = metrics_file.MetricsFile(folder / "metrics.jsonl", SETTINGS, 0, own)
        for step in (2, 4):
            log.append({"step": step, "loss": 1.0, "heldout_loss": 1.0})
            own.add_step(step)
            checkpoints.save(step, STATE, {})
            checkpoints.wait()
            (folder / "samples").mkdir(exist_ok=True)
            with files.claimed(own):
                for name in (f"samples/{step:07d}.png", "samples/latest.png", "curves.png"):
                    files.replace(folder / name, b"picture")
    return folder


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")


def restarted(settings=SETTINGS):
    return dataclasses.replace(settings, restart=True)


MINE = (
    "notes.txt",
    "samples/mine.png",
    "samples/0000006.png",
    "samples/inner/latest.png",
    "checkpoints/README",
    "checkpoints/mine/4",
    "checkpoints/6.corrupt/mine",
    "checkpoints/4.corrupt/mine",
    "tensorboard/events.out.tfevents.1.mine",
    "members.partial",
)


def test_starting_over_deletes_what_the_run_wrote_and_nothing_else(run):
    put(run, *MINE)
    (run / "checkpoints/2/manifest.json").unlink()  # damaged, and still the run's: it is on the list
    record.check(run, restarted(), "ae")
    claims.clear(run, "0123abcd")
    left = {name for name, content in everything(run).items() if content is not None}
    assert left == {*MINE, "config.json", ".genjax"}
    begin(run, restarted(), name="9876")
    assert json.loads((run / "config.json").read_text())["run_id"] == "9876"
    assert claims.owned(run, "9876") == {"config.json", "metrics.jsonl"}  # nothing of the old list


def test_a_run_of_before_the_list_owns_the_names_it_is_known_to_have_written(run):
    (run / ".genjax").unlink()
    put(run, "samples/mine.png", "samples/forward.png", "samples/0000004-reverse.png", "checkpoints/notes/a", "b.png")
    claims.clear(run, "0123abcd")
    left = {name for name, content in everything(run).items() if content is not None}
    assert left == {"samples/mine.png", "checkpoints/notes/a", "b.png", "config.json"}


PROJECTS = [
    ("samples/0000020.png",),
    ("checkpoints/7/weights.bin",),
    ("checkpoints/README",),
    ("metrics.jsonl",),
    ("curves.png",),
    ("tensorboard/events.out.tfevents.1.mine",),
    (".genjax",),
    ("config.json",),
    ("config.json", "metrics.jsonl", "samples/a.png", "checkpoints/1/a"),
    ("config.json/inner",),
]


@pytest.mark.parametrize("names", PROJECTS)
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("text", ["mine", '{"model_type": "bert"}'])
def test_a_folder_of_somebody_else_is_refused_and_stays_as_it_is(tmp_path, names, restart, text):
    put(tmp_path, *names)
    for name in names:
        (tmp_path / name).write_text(text)
    before = everything(tmp_path)
    settings = restarted() if restart else SETTINGS
    with pytest.raises(lock.WorkdirError, match=pathlib.Path(names[0]).parts[0]) as caught:
        record.check(tmp_path, settings, "ae")
    assert "restart" not in str(caught.value) and everything(tmp_path) == before


def test_a_folder_with_other_things_or_empty_folders_is_free(tmp_path):
    put(tmp_path, "notes.txt", "src/a.py")
    (tmp_path / "samples").mkdir()
    (tmp_path / "checkpoints").mkdir()
    record.check(tmp_path, SETTINGS, "ae")


@pytest.mark.parametrize("name", ["curves.png", "checkpoints/6/weights.bin", "samples"])
def test_starting_over_is_refused_where_somebody_elses_files_are_in_the_way(run, name):
    if name == "samples":
        (run / "samples").rename(run / "kept")
    put(run, name)
    if name == "curves.png":
        text = (run / ".genjax").read_text()
        (run / ".genjax").write_text(text.replace("curves.png\n", ""))
    before = everything(run)
    for refuse in (lambda: record.check(run, restarted(), "ae"), lambda: claims.clear(run, "0123abcd")):
        with pytest.raises(lock.WorkdirError, match=f"holds {name.removesuffix('/weights.bin')}, which the run"):
            refuse()
    assert everything(run) == before


@pytest.mark.parametrize("name", claims.NAMES)
@pytest.mark.parametrize("settings", [SETTINGS, restarted()])
def test_links_in_a_workdir_are_refused_before_anything_is_deleted(run, tmp_path, name, settings):
    kept = tmp_path / "elsewhere"
    if os.path.lexists(run / name):
        (run / name).rename(kept)
    else:
        kept.write_text("mine")
    (run / name).symlink_to(kept)
    before = everything(tmp_path)
    with pytest.raises(lock.WorkdirError, match=f"{name} is a link to {kept}"):
        record.check(run, settings, "ae")
    assert everything(tmp_path) == before


def test_a_file_that_is_not_the_runs_is_not_overwritten(run):
    put(run, "samples/0000006.png")
    own = begin(run)
    with files.claimed(own):
        with pytest.raises(OSError, match="not this run's"):
            files.replace(run / "samples/0000006.png", b"picture")
        files.replace(run / "samples/0000004.png", b"again")
        files.replace(run.parent / "outside.png", b"not asked about")
    assert (run / "samples/0000006.png").read_text() == "mine"
    assert (run / "samples/0000004.png").read_bytes() == b"again"


def test_a_forged_list_reaches_no_file_outside_and_a_torn_line_owns_nothing(run, tmp_path):
    put(tmp_path, "victim", "run/samples/mine.png", "run/samples/b")
    names = ["../victim", str(tmp_path / "victim"), "samples/../../victim", "notes", "samples/b/c"]
    with (run / ".genjax").open("a") as file:
        file.write("\n".join([*names, "samples/mine.png"]))  # and no line break
    claims.clear(run, "0123abcd")
    assert (tmp_path / "victim").exists() and (run / "samples/mine.png").exists() and (run / "samples/b").exists()


def test_the_list_of_another_run_counts_for_nothing(run):
    assert "curves.png" in claims.owned(run, "0123abcd") and "curves.png" not in claims.owned(run, "other")


# ---------------------------------------------------------------- what the record says


def test_a_run_of_another_script_is_named(run):
    with pytest.raises(config.UsageError, match="was trained by train.ae") as caught:
        record.check(run, vae.Config(workdir="run"), "vae")
    assert "beta" not in str(caught.value)
    record.check(run, vae.Config(workdir="run", restart=True), "vae")


BROKEN = [b"", b"{", b"[]", b'{"run_id": 3}', b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("steps", [False, True])
def test_a_record_that_cannot_be_read_is_named_and_never_a_reason_to_start_over(run, content, steps):
    (run / "config.json").write_bytes(content)
    if not steps:
        (run / "checkpoints").rename(run / "kept")
    before = everything(run)
    for settings in (SETTINGS, restarted()):
        kind = store.CheckpointError if steps else lock.WorkdirError
        with pytest.raises(kind, match=r"config.json is not a run's record") as caught:
            record.check(run, settings, "ae")
        assert "restart" not in str(caught.value)
    assert everything(run) == before


@pytest.mark.parametrize(
    "name",
    ["config.json", "metrics.jsonl", ".genjax", "curves.png", "samples/latest.png", "checkpoints/4/manifest.json"],
)
def test_what_a_command_writes_takes_no_place_of_a_run(run, name):
    asked = lambda out: evaluate.Evaluate(str(run), out=str(out))
    with pytest.raises(config.UsageError, match="belongs to a run"):
        load.check_output(asked(run / name))
    assert load.check_output(asked(run / "scores.json")) == run / "scores.json"


def test_what_a_command_writes_takes_no_place_of_what_it_reads(tmp_path):
    put(tmp_path, "images.npz", "weights.safetensors")
    (tmp_path / "run").mkdir()
    begin(tmp_path / "run", dataclasses.replace(SETTINGS, data=f"npz:{tmp_path / 'images.npz'}#x"))
    for out in ("images.npz", "weights.safetensors"):
        asked = judge.Judge(str(tmp_path / "run"), inception=str(tmp_path / "weights.safetensors"))
        with pytest.raises(config.UsageError, match="is what is read"):
            load.check_output(dataclasses.replace(asked, out=str(tmp_path / out)))
    assert (tmp_path / "images.npz").read_text() == "mine"


def test_values_of_another_type_in_a_record_are_other_settings(run):
    described = json.loads((run / "config.json").read_text())
    described["config"] |= {"data": 5, "hidden": "x", "size": None}
    (run / "config.json").write_text(json.dumps(described))
    with pytest.raises(config.UsageError, match="hidden: 'x' -> "):
        record.check(run, SETTINGS, "ae")


def test_a_folder_in_place_of_the_lines_is_named(run):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(store.CheckpointError, match=r"metrics.jsonl cannot be .*: Is a directory"):
        metrics_file.MetricsFile(run / "metrics.jsonl", SETTINGS, 4, claims.Claims(run, "0123abcd"))


def test_a_pipe_in_place_of_the_record_does_not_hang(run):
    (run / "config.json").unlink()
    os.mkfifo(run / "config.json")
    with pytest.raises(store.CheckpointError, match="expected a plain file"):
        record.check(run, SETTINGS, "ae")


def test_checkpoints_without_a_record_are_no_fresh_start(run):
    (run / "config.json").unlink()
    with pytest.raises(store.CheckpointError, match="no config.json") as caught:
        record.check(run, SETTINGS, "ae")
    assert "restart" not in str(caught.value)


def test_the_same_data_elsewhere_are_the_same_and_other_data_are_never(run):
    moved = dataclasses.replace(SETTINGS, data="npz:/elsewhere/digits.npz", data_dir="/elsewhere")
    record.check(run, moved, "ae")
    begin(run, moved, dataset(name="moved"))
    record.check_data(run, dataset(name="again"), data.fingerprint(dataset()))
    with pytest.raises(config.UsageError, match="other data") as caught:
        record.check_data(run, dataset(1), data.fingerprint(dataset(1)))
    assert "--restart" not in str(caught.value)


def test_what_was_changed_or_overridden_stays_in_the_record(run):
    with pytest.raises(config.UsageError, match="seed: 0 -> 5"):
        record.check(run, dataclasses.replace(SETTINGS, seed=5), "ae")
    for settings in (
        dataclasses.replace(SETTINGS, seed=5, override_resume=True),
        dataclasses.replace(SETTINGS, seed=5, lr=0.5),
        dataclasses.replace(SETTINGS, seed=5, lr=0.5, traceback=True),
    ):
        record.check(run, settings, "ae")
        begin(run, settings)
    described = json.loads((run / "config.json").read_text())
    told = [(change["changed"], change["overridden"]) for change in described["changes"]]
    assert told == [([], ["seed: 0 -> 5"]), (["lr: 0.001 -> 0.5"], [])]
    assert len(described["starts"]) == 4 and described["changes"][0]["start"] in described["starts"]


# ---------------------------------------------------------------- metrics.jsonl


def test_lines_of_a_run_whose_checkpoints_are_gone_are_kept_aside(run):
    text = (run / "metrics.jsonl").read_text()
    for i in (1, 2):
        log = metrics_file.MetricsFile(run / "metrics.jsonl", SETTINGS, 0, begin(run))
        assert log.aside == run / f"metrics.jsonl.{i}" and log.aside.read_text() == text
        assert (run / "metrics.jsonl").read_text() == ""
        (run / "metrics.jsonl").write_text(text)
    claims.clear(run, "0123abcd")
    assert not list(run.glob("metrics.jsonl*"))


def test_lines_before_the_first_report_are_written_again_and_damaged_ones_passed_over(run):
    path = run / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n[1]\n"text"\n{"step": "x"}\n' + "[" * 100_000 + '\n\n{"step": 1, "lo')
    one = dataclasses.replace(SETTINGS, log_every=1)
    assert metrics_file.MetricsFile(path, one, 0, begin(run)).aside is None and path.read_text() == ""
    path.write_text('{"step": 1, "loss": 1.0}\nnot json\n{"step": 2, "loss": 2.0, "heldout_loss": 1}\n{"step": 3}\n')
    metrics_file.MetricsFile(path, one, 2, begin(run))
    assert [line["step"] for line in files.lines(path)] == [1, 2]


def test_lines_that_cannot_be_written_wait_and_cost_nothing(run, monkeypatch, capsys):
    log = metrics_file.MetricsFile(run / "metrics.jsonl", SETTINGS, 4, begin(run))
    append = files.append

    def full(path, content, **options):
        append(path, content[:5])
        os.truncate(path, path.stat().st_size - 5)
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "append", full)
    log.append({"step": 5})
    log.append({"step": 6})
    monkeypatch.undo()
    log.append({"step": 7})
    assert [line["step"] for line in files.lines(run / "metrics.jsonl")] == [2, 4, 5, 6, 7]
    assert capsys.readouterr().err.count("No space left") == 1


@pytest.mark.parametrize("saved", [{}, [], "text", {"count": 1, "sums": 3}, {"count": "x", "sums": {}}])
def test_sums_that_are_none_are_an_error_of_the_checkpoint(saved):
    with pytest.raises(store.CheckpointError, match="sums of its metrics"):
        logging.MetricAverage(saved)


def test_a_full_or_closed_terminal_costs_nothing(monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        logging.log("a")
        logging.log("b")  # to nowhere by now
    logging.log("closed by now")
    monkeypatch.setattr("sys.stdout", None)
    logging.log("c")
    monkeypatch.undo()
    assert "No space left" in capfd.readouterr().err
    logging.log("\x1b[2Jname\nnext")
    assert capfd.readouterr().out == "\\x1b[2Jname\nnext\n"
