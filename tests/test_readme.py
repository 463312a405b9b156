"""The README's code runs as printed."""

import importlib
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks import quality
from train.run import config

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
QUICK = {"steps": 2, "every": 2, "log_every": 1, "steps_per_call": 1}
TINY = {"timesteps": 2, "network": "simple", "width": 4, "channel_mults": 1, "num_samples": 1}
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_code_of_the_readme_runs(number, tmp_path, monkeypatch, command):
    names = {}
    if "train.load(" in BLOCKS[number]:  # of the run that the first command leaves
        monkeypatch.chdir(tmp_path)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in (QUICK | TINY).items()]
        code, _, message = command("ddpm", *flags, "--workdir", "runs/ddpm-digits")
        assert code == 0, message
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)
    if "drawn" in names:
        assert names["drawn"].shape == (16, 8, 8, 1) and names["metrics"]["loss"][-1] < names["metrics"]["loss"][0]


def test_the_library_fits_in_fifteen_lines():
    (block,) = re.findall(r"## The library in 15 lines\n\n```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15


def test_every_file_the_readme_names_exists():
    root = pathlib.Path(__file__).parent.parent
    for name in re.findall(r"`((?:tests|train|genjax)/[\w/.]+)`", README) + re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (root / name).exists(), name


TRAINERS = {path.name for path in config.CONFIGS.iterdir()}


def commands():
    """``(script, flags)`` of every command of the README, in the order printed, in code and in running text."""
    found = []
    for text in re.findall(r"^    (.+)$|`([^`\n]+)`", README, re.MULTILINE):
        for part in (text[0] or text[1]).split("&&"):
            words = shlex.split(part, comments=True)
            if "-m" in words[:2] and words[2].startswith("train."):
                found.append((words[2].removeprefix("train."), words[3:]))
            if words[:1] == ["genjax"] and len(words) > 1 and not words[1].startswith("-"):
                found.append((words[1], words[2:]))
    return found


def test_the_readme_has_its_commands():
    scripts = [script for script, _ in commands()]
    assert scripts[0] == "ddpm" and len(scripts) > 25 and TRAINERS | {"sample", "evaluate", "judge"} <= set(scripts)


def filled(flags, place):
    """The flags with something in place of each word in capitals, as a reader would."""
    named = {
        "FOLDER": place / "mnist",
        "folder:PATH": f"folder:{place / 'pictures'}",
        "npz:FILE.npz": f"npz:{place}/a.npz",
    }
    return [str(named.get(flag, flag)) for flag in flags]


def test_each_command_works_after_the_ones_before_it(tmp_path, monkeypatch):
    """No two runs share a folder, and who asks for a run finds one, of any reader who types all of it in order.

    The runs of the benchmarks come after them.
    """
    monkeypatch.chdir(tmp_path)
    runs = {}
    rows = [(row.script, [*row.flags, "--steps", str(row.steps)]) for each in quality.ROWS.values() for row in each]
    for script, flags in [*commands(), *rows]:
        if "--help" in flags or script in ("theory", "huffman", "bridge"):
            continue
        shown = f"python -m train.{script} {' '.join(flags)}"
        module = importlib.import_module(f"train.{script}")
        if script not in TRAINERS:
            asked = flags[flags.index("--workdir") + 1]
            assert asked in runs, f"{shown}: no command before it makes {asked}"
            continue
        settings = config.parse(module.Config, script, filled(flags, tmp_path))
        said = {name: value for name, value in vars(settings).items() if name not in config.changeable(settings)}
        assert runs.setdefault(settings.workdir, (script, said)) == (script, said), f"{shown}: another run is there"
        if getattr(settings, "data", "").startswith("codes:"):
            assert settings.data.partition(":")[2] in runs, f"{shown}: nothing before it makes the codes"
    assert len(runs) > 20


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch, command, put_mnist):
    """As printed and in order; training is cut to two steps, and data sets that are fetched are left out."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(pathlib.Path(__file__).parent.parent / "README.md", tmp_path)
    (tmp_path / "pictures").mkdir()
    for i in range(40):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    for script, flags in commands():
        if "--help" in flags or script == "bridge" or {"mnist", "cifar10"} & {*flags}:
            continue
        given, quick = filled(flags, tmp_path), []
        if script in TRAINERS:  # in the folder of the command as printed; others are named by their steps
            schema = importlib.import_module(f"train.{script}").Config
            quick = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
            quick += ["--workdir", config.parse(schema, script, given).workdir]
        code, _, message = command(script, *given, *quick)
        assert code == 0, f"python -m train.{script} {' '.join(flags)}: {message}"
