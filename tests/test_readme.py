"""The README is true: its snippets run where it has installed what they need, its figures are those
of the files with the results, and it is short."""

import importlib.metadata
import json
import re
import subprocess
import sys
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torchvision
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import models
from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling
from tests.support.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TEXT = README.replace("\n", " ")


@dataclass
class Session:
    """Blocks of Python between two installations: the README shows what they print."""

    visible: set[str]  # the distributions that the README has installed by then
    code: str = ""
    output: str = ""


def sessions() -> list[Session]:
    found = []
    for block in re.finditer(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", README, re.DOTALL):
        visible = installed(README[: block.start()])
        if not found or found[-1].visible != visible:
            found.append(Session(visible))
        found[-1].code += block[1]
        found[-1].output += block[2] or ""
    return found


def installed(text: str) -> set[str]:
    """The distributions that the ``pip install`` commands of ``text`` bring, and what they need.

    The project's extras are alternatives, so there may be none of them.
    """
    arguments = " ".join(re.findall(r"pip install ([^`\n&]+)", text)).replace("'", "").split()
    others = [name for name in arguments if not name.startswith(".")]
    return {"gfgp-cupy", *needed([*project_dependencies(), *others])}


def project_dependencies() -> list[str]:
    pyproject = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    return json.loads(re.search(r"^dependencies = (\[.*?\])$", pyproject, re.M | re.S)[1])


def needed(requirements: list[str]) -> set[str]:
    """The names of ``requirements`` and of what they require, as far as it is installed here."""
    here = {canonicalize_name(each.name): each for each in importlib.metadata.distributions()}
    left = [Requirement(text) for text in requirements]
    seen = set()
    while left:
        requirement = left.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or name not in here:
            continue
        seen.add((name, extras))
        left += [
            each
            for each in map(Requirement, here[name].requires or ())
            if not each.marker
            or any(each.marker.evaluate({"extra": extra}) for extra in extras | {""})
        ]
    return {name for name, _ in seen}


def without_all_but(visible: set[str]) -> str:
    """Python that makes every import fail of what is installed here beside ``visible``."""
    hidden = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if visible.isdisjoint(map(canonicalize_name, distributions))
    ]
    return f"import sys; sys.modules |= dict.fromkeys({hidden!r})\n"


def shape_checks(code: str) -> str:
    """The comments that say a shape, as assertions."""
    shapes = re.findall(r"^(\w+) = .*  # (\[[\d, ]+\])$", code, re.MULTILINE)
    return "".join(f"assert list({name}.shape) == {shape}\n" for name, shape in shapes)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("session", sessions(), ids=lambda session: session.code.split()[1])
def test_snippets_run_with_what_the_readme_has_installed(session):
    result = run(without_all_but(session.visible) + session.code + shape_checks(session.code))
    assert result.returncode == 0, result.stderr
    assert result.stdout == session.output


def test_what_the_readme_has_not_installed_is_hidden_from_its_snippets():
    layer, network = sessions()
    assert {"torch", "numpy"} <= layer.visible
    assert layer.visible.isdisjoint({"torchvision", "numba", "matplotlib", "pytest"})
    assert "torchvision" in network.visible
    assert network.visible.isdisjoint({"numba", "matplotlib", "pytest"})
    result = run(without_all_but(layer.visible) + "import torchvision")
    assert "ModuleNotFoundError" in result.stderr


def test_poolings_of_its_network():
    with torch.device("meta"):
        plain = torchvision.models.resnet50()
        published = models.create_model("resnet50", pool="max_ent")
    assert "without `strides` it is `maxpool` alone" in TEXT
    assert [change.path for change in replace_pooling(plain)] == ["maxpool"]
    # As many as in its table, and at the same places.
    paths = [path for path, each in published.named_modules() if type(each) is GFGPMaxEntPool2d]
    places = [path.partition(".")[0] for path in paths]
    assert places == ["pool1", "pool", "layer2", "layer3", "layer4"]


def test_networks_of_the_survey():
    page = (REPOSITORY / "docs/surgery-survey.md").read_text(encoding="utf-8").replace("\n", " ")
    (counts,) = re.findall(r"left out, is replaced wholly in (\d+ of \d+)", page)
    assert f"In {counts} networks" in TEXT


def medians_of(file):
    """Milliseconds of forward and backward by shape, without its padding, and contender."""
    results = json.loads((REPOSITORY / "benchmarks/results" / file).read_text())
    return {
        (time["shape"].rpartition("/")[0], time["contender"]): 1e3 * time["seconds"]["median"]
        for time in results["times"]
        if time["direction"] == "both"
    }


def test_table_of_speed_is_that_of_the_results():
    files = re.findall(r"\(benchmarks/results/(\S+\.json)\)", README)
    medians = dict(zip(("CPU", "GPU"), map(medians_of, files), strict=True))
    contenders = "max_ent_pool2d", "GFGP fused", "max_pool2d", "avg_pool2d", "eager composition"
    rows = re.findall(r"^\| (CPU|GPU) \| (\S+), (\d/\d) \| (.*) \|$", README, re.MULTILINE)
    assert len(rows) == 6
    for device, shape, window, cells in rows:
        place = f"{shape.replace('×', 'x')}:{window}"
        expected = [medians[device][place, contender] for contender in contenders]
        shown = [float(cell) for cell in cells.split(" | ")]
        assert shown == [float(f"{milliseconds:.3g}") for milliseconds in expected]


@pytest.mark.slow
def test_picture_is_what_the_library_draws(tmp_path):
    committed = REPOSITORY / "docs/idea.png"
    drawn = tmp_path / "idea.png"
    command = [sys.executable, REPOSITORY / "docs/idea.py", "--out", drawn]
    subprocess.run(command, check=True, timeout=300)
    difference = np.abs(plt.imread(drawn) - plt.imread(committed))
    # Another λ in one of its four photographs makes it more.
    assert difference.mean() < 0.001, "draw it again: python docs/idea.py"
    assert committed.stat().st_size < 300_000


def test_readme_is_short():
    assert README.count("\n") <= 150
