"""What stands beside the code for those who cite, build and publish it."""

import pathlib
import re
import tomllib

import pytest

from train.run import renamed

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def parsed(name):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version():
    citation = parsed("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= citation.keys()
    assert str(citation["version"]) == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]


def test_the_changelog_has_a_dated_section_for_the_version_below_what_is_unreleased():
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    date = re.search(r'^date-released: "([\d-]+)"$', citation, re.MULTILINE)[1]
    assert sections[:2] == ["Unreleased", f"{PROJECT['version']} - {date}"]


@pytest.mark.parametrize("name", ["ci", "release"])
def test_the_workflows_are_well_formed(name):
    workflow = parsed(f".github/workflows/{name}.yml")
    assert workflow["name"] == name and workflow[True] and workflow["permissions"] == {"contents": "read"}  # True: on
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"] and {*job.get("needs", "").split()} <= {*workflow["jobs"]}
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_the_workflow_tests_the_first_and_the_last_python_that_the_package_names():
    classifiers = " ".join(PROJECT["classifiers"])
    versions = sorted(re.findall(r"Python :: (3\.\d+)", classifiers), key=lambda text: int(text[2:]))
    assert parsed(".github/workflows/ci.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"] == [
        versions[0],
        versions[-1],
    ]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_the_changelog_names_renamed_settings_as_they_are_read():
    table = (
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("| command | old | new |")[2].partition("\n\n")[0]
    )
    pairs = set()
    for old, new in re.findall(r"^  \| .* \| (`.*`) \| (`.*`) \|$", table, re.MULTILINE):
        olds, news = re.findall(r"`(\w+)`", old), re.findall(r"`(\w+)`", new)
        pairs |= {*zip(olds, news if len(news) > 1 else news * len(olds), strict=True)}
    assert len(pairs) > 25
    assert pairs <= {pair for table in renamed.RENAMED.values() for pair in table.items()}
