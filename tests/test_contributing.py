"""CONTRIBUTING.md: its skeletons run, and its table names what there is."""

import importlib
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import train
from genjax import data, diffusion
from train.run import command as run_command
from train.run import registry

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SKELETONS = dict(re.findall(r"<!-- (\w+) -->\n```\w+\n(.*?)```\n<!-- end -->", TEXT, re.DOTALL))
ROWS = re.findall(r"^\| (.+?) \| (.*?) ?\| (`[a-z_]+\..+`) \|$", TEXT.partition("## Which formula")[2], re.MULTILINE)


def run(name):
    """What a skeleton defines, run as a program in the current folder."""
    names = {"__name__": "__main__"}
    exec(compile(SKELETONS[name], f"CONTRIBUTING.md, {name}", "exec"), names)
    return names


def test_every_skeleton_is_short():
    assert {name: len(code.splitlines()) for name, code in SKELETONS.items() if len(code.splitlines()) >= 60} == {}
    assert SKELETONS.keys() == {"model", "config", "sampler", "data"}


def test_the_data_set_is_one_and_is_read_from_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = run("data")["checkerboards"]()
    assert data.summary(made) == "checkerboards: 360 to train, 40 held out, 2 classes"
    assert data.fingerprint(data.npz("checkerboards.npz")) == data.fingerprint(made)


def test_the_model_is_trained_drawn_and_loaded_from_its_own_folder(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "independent.py").write_text(SKELETONS["model"])
    (tmp_path / "configs" / "digits.toml").write_text(SKELETONS["config"])
    recipe = registry.from_module("independent.py")
    run_command.trainer(recipe)(["--steps", "4", "--every", "4", "--log-every", "1", "--steps-per-call", "2"])
    losses = [
        json.loads(line)["loss"]
        for line in pathlib.Path("runs/independent-digits/metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]
    assert command("sample", "--recipe", "independent.py", "--workdir", "runs/independent-digits", "--num", 4)[0] == 0
    assert train.load("runs/independent-digits", recipe=recipe).params["mean"].shape == (8, 8, 1)


def test_the_sampler_is_of_second_order():
    """Euler's method would halve its error as the steps double; this one divides it by four at least."""
    midpoint, denoise = run("sampler")["midpoint"], lambda x, sigma: x * sigma[:, None] / (0.25 + sigma[:, None] ** 2)
    with jax.enable_x64(True):
        grids = [diffusion.karras(num, sigma_min=0.01, sigma_max=10.0) for num in (20, 40)]
        ends = [midpoint(denoise, grid)(jax.random.key(0), jnp.full((1, 1), 20.0)) for grid in grids]
        coarse, fine = (abs(float(end[0, 0]) - 20 * 0.5 / math.hypot(0.5, 10)) for end in ends)  # exact for N(0, 0.5²)
    assert 3.5 < coarse / fine and fine < 1e-3


@pytest.mark.parametrize(("formula", "source", "names"), ROWS, ids=[row[2].split("`")[1] for row in ROWS])
def test_each_formula_stands_where_the_table_says(formula, source, names):
    module, files = None, []
    for name in re.findall(r"`([^`]+)`", names):
        if "." in name:
            path, _, name = name.rpartition(".")
            module = importlib.import_module(f"genjax.{path}")
            files.append(pathlib.Path(module.__file__))
        assert callable(getattr(module, name)), f"{module.__name__}.{name}"
    cited = re.findall(r"(?:^|; )((?:van den )?[A-Z]\w+)", source.replace("ń", "n"))
    text = " ".join(" ".join(path.read_text(encoding="utf-8").replace("ń", "n") for path in files).split())
    assert all(author in text for author in cited), f"{formula}: {cited} not all in {[path.name for path in files]}"


def test_the_table_is_of_every_part_of_the_library_with_formulas():
    assert len(ROWS) > 25
    parts = {name.partition(".")[0] for _, _, names in ROWS for name in re.findall(r"`(\w+\.[^`]+)`", names)}
    assert parts == {"theory", "diffusion", "models", "nn", "metrics"}


def test_every_file_and_folder_it_names_is_there():
    named = re.findall(r"\]\((?!http)([^)#]+)", TEXT) + re.findall(r"`((?:tests|train|genjax|docs)/[\w/.]*)`", TEXT)
    folder, tree = "", TEXT.partition("## The layout")[2].partition("\n## ")[0]
    for indent, name in re.findall(r"^    ( *)([\w/.]+) ", tree, re.MULTILINE):
        folder = folder if indent else name
        named.append(folder + name if indent else name)
    assert len(named) > 20 and [name for name in named if not (ROOT / name).exists()] == []
