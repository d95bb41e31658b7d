"""What stands in several of the repository's files is the same in all of them."""

import os
import re
from collections.abc import Iterable

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gfgp_cupy
from tests.support.paths import REPOSITORY

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")


def text_of(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


PYPROJECT = tomllib.loads(text_of("pyproject.toml"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
WORKFLOW = yaml.safe_load(text_of(".github/workflows/ci.yml"))
COMMANDS = [
    step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step
]


def names(requirements: Iterable[str]) -> list[str]:
    return sorted(canonicalize_name(Requirement(line).name) for line in requirements)


def pinned(requirement: str) -> str:
    """The version of the one package that ``requirement`` begins, among those for developers."""
    (found,) = (line for line in EXTRAS["dev"] if line.startswith(requirement))
    return str(Requirement(found).specifier).removeprefix("==")


def test_requirements_are_those_of_the_extras():
    expected = list(PYPROJECT["project"]["dependencies"])
    for extra in ("cpu", "cuda12", "train", "test"):
        expected += EXTRAS[extra]
    assert names(text_of("requirements.txt").splitlines()) == names(expected)


def test_version():
    released = re.findall(r"^## \[([\d.]+)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert gfgp_cupy.__version__ == released[0]
    assert released[-1] == "0.1.0"


def test_citation():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == gfgp_cupy.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["authors"] == PYPROJECT["project"]["authors"]
    date = citation["date-released"].isoformat()
    assert f"## [{citation['version']}] - {date}\n" in text_of("CHANGELOG.md")
    paper = citation["preferred-citation"]
    assert paper["title"] == "Global Feature Guided Local Pooling"
    assert paper["authors"] == [{"given-names": "Takumi", "family-names": "Kobayashi"}]
    assert (paper["year"], paper["start"], paper["end"]) == (2019, 3365, 3374)
    assert paper["url"] == PYPROJECT["project"]["urls"]["Paper"]


def test_workflow_runs_scripts_of_the_repository():
    scripts = sorted(f".ci/{path.name}" for path in (REPOSITORY / ".ci").glob("run*"))
    assert ".ci/run" in scripts
    assert sorted(COMMANDS) == scripts
    for command in COMMANDS:
        assert os.access(REPOSITORY / command, os.X_OK), command


def test_oldest_torch():
    (torch,) = (line for line in PYPROJECT["project"]["dependencies"] if line.startswith("torch>="))
    oldest = torch.removeprefix("torch>=")
    assert ".ci/run_oldest_torch" in COMMANDS
    assert f"'torch=={oldest}.*'" in text_of(".ci/run_oldest_torch")


def test_formatter_is_the_same_before_a_commit():
    (hooks,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    assert hooks["rev"] == f"v{pinned('ruff')}"
    assert {hook["id"] for hook in hooks["hooks"]} == {"ruff-check", "ruff-format"}
