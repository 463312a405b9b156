"""The wheel, built and installed in a fresh environment: the library, the commands, their configs, the index's page."""

import email
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, by way of the source archive, as a release is built; from a copy of the files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("genjax", "train", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    done = run(sys.executable, "-c", script, cwd=source)
    assert done.returncode == 0, done.stderr
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        assert not [name for name in packed.getnames() if name.split("/")[1:2] == ["tests"]]  # they need the checkout
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation")
    done = run(*pip, "-w", out, archive)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """An environment with the wheel, which finds all other packages where this process does."""
    folder = tmp_path_factory.mktemp("fresh")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which may lead to a checkout
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index")
    done = run(*pip, wheel, env=alone)
    assert done.returncode == 0, done.stderr
    purelib = pathlib.Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (purelib / "others.pth").write_text("".join(f"{path}\n" for path in sorted(others)))
    return folder / "bin"


@pytest.fixture
def start(fresh, tmp_path, monkeypatch):
    """Starts a program of the fresh environment in an empty folder."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return lambda program, *argv, **options: run(fresh / program, *argv, cwd=tmp_path, **options)


def test_the_wheel_holds_the_code_and_every_config_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for top in ("genjax", "train") for path in (ROOT / top).rglob("*.*")]
    here = {path.relative_to(ROOT).as_posix() for path in files if path.suffix in (".py", ".typed", ".npz", ".toml")}
    assert held == here and {"train/run/process.py", "train/configs/ddpm/digits.toml"} <= held


def test_images_and_links_of_the_readme_lead_somewhere_from_a_package_index(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    headers = email.message_from_bytes(archive.read(metadata))
    page = headers.get_payload(decode=True).decode("utf-8")
    assert headers["Version"] == PROJECT["version"] and headers["Description-Content-Type"] == "text/markdown"
    home = re.escape(f"{PROJECT['urls']['Homepage']}/")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", page)
    assert len(links) > 10
    for image, link in links:
        ours = re.fullmatch(home + rf"(raw|blob)/v{re.escape(PROJECT['version'])}/([^#]+)(#.*)?", link)
        assert ours or link.startswith("https://"), link
        assert not ours or (ROOT / ours[2]).exists() and (ours[1] == "raw") == bool(image), link


def test_the_installed_package_is_what_runs(start, fresh):
    script = "import genjax, train; print(genjax.__file__); print(train.__file__); print(genjax.__version__)"
    *files, version = start("python", "-c", script).stdout.split()
    assert len(files) == 2 and all(name.startswith(str(fresh.parent)) for name in files)
    assert version == PROJECT["version"]


def test_genjax_lists_its_commands_and_helps_who_mistypes_one(start):
    listed = start("genjax", "--help")
    assert listed.returncode == 0 and listed.stderr == "" and listed.stdout == start("genjax").stdout
    commands = dict(line.strip().split(maxsplit=1) for line in listed.stdout.splitlines() if line.startswith("  "))
    configured = {path.name for path in (ROOT / "train" / "configs").iterdir()}
    assert configured | {"sample", "evaluate", "judge", "theory"} <= commands.keys()
    for name, line in commands.items():
        assert len(line) > 8 and not re.search("``|python -m|[.:]$", line), f"{name}: {line}"
    assert start("genjax", "--version").stdout == f"genjax {PROJECT['version']}\n"
    for word, hint in (("smaple", "did you mean sample?"), ("--workdir", "expected one of actor_critic, ae")):
        done = start("genjax", word)
        assert (done.returncode, done.stdout) == (2, "") and hint in done.stderr, done.stderr


def test_a_model_is_trained_and_drawn_from_an_empty_folder(start, tmp_path):
    tiny = ("--steps", 2, "--every", 2, "--log-every", 1, "--steps-per-call", 1, "--num-samples", 4, "--hidden", 8)
    done = start("genjax", "vae", *tiny, "--workdir", "run")
    assert done.returncode == 0 and (tmp_path / "run" / "checkpoints").is_dir(), done.stderr
    done = start("genjax", "sample", "--workdir", "run", "--num", 4)
    assert done.returncode == 0 and (tmp_path / "samples.png").is_file(), done.stderr


def test_a_command_says_how_it_was_started_and_ends_with_the_same_codes(start):
    done = start("genjax", "sample", "--workdir", "nowhere")
    assert done.returncode == 4 and "train one with genjax ddpm" in done.stderr, done.stderr
    done = start("python", "-m", "train", "vae", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m train vae ")


def test_without_the_extra_a_command_says_what_to_install(start, fresh, tmp_path):
    (others,) = fresh.parent.rglob("others.pth")
    text = others.read_text()
    try:
        others.write_text("")
        done = start("genjax", "sample", "--workdir", "nowhere")
        library = start("python", "-c", "import genjax; print(genjax.__version__)")
    finally:
        others.write_text(text)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("train needs orbax-checkpoint") and 'install "jax-genmodels[train]"' in done.stderr
    assert library.stdout == f"{PROJECT['version']}\n"


def test_an_early_interrupt_is_one_line_and_closed_streams_are_no_trouble(fresh, tmp_path):
    (tmp_path / "jax.py").write_text("import time; print('importing', flush=True); time.sleep(600)")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([fresh / "genjax", "sample"], env=env, text=True, stdout=-1, stderr=-1, cwd=tmp_path)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "interrupted\n") and process.returncode == 130
    (tmp_path / "jax.py").unlink()
    assert run("bash", "-c", f"{fresh}/genjax --help <&- >&- 2>&-", cwd=tmp_path).returncode == 0
