"""What the documentation names is there (files, links, options), and its example runs."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from gfgp_cupy import replace_pooling
from tests.support.command_line import run_here
from tests.support.paths import REPOSITORY

FOLDERS = "benchmarks|docs|examples|experiments|gfgp_cupy|models|notebooks|tests|training"
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    REPOSITORY / "benchmarks/README.md",
    *sorted(REPOSITORY.glob("docs/**/*.md")),
]

OF_OTHER_COMMANDS = {"--logdir", "--nnodes", "--format", "--model-file", "--nonblacklist"}
"""TensorBoard's, torchrun's, those of ``training.export`` and of the published test script."""


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_text_exist(page):
    paths = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)", page.read_text(encoding="utf-8"))
    missing = [path for path in paths if not (REPOSITORY / path.partition("NAME")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", ["migration.md", "training.md", "when-something-fails.md"])
def test_options_are_those_of_the_command_line(page):
    code, known, _ = run_here("--help")
    assert code == 0
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    commands = re.findall(r"```[^`]+```|`[^`]+`", text)
    commands = [each for each in commands if not each.startswith("`torchrun")]
    named = set(re.findall(r"(?<![^\s`])--[a-z][\w-]*", "\n".join(commands)))
    assert len(named) > 3
    assert named <= set(re.findall(r"--[a-z][\w-]*", known)) | OF_OTHER_COMMANDS


def test_guided_pooling_of_the_readers_own():
    """That of the page is made and pools as its last line says; its global poolings pool, too."""
    text = (REPOSITORY / "docs/poolings.md").read_text(encoding="utf-8")
    global_poolings, code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(global_poolings, names)
    assert names["descriptors"].shape == (8, 128)
    assert names["network"].eval()(torch.rand(1, 3, 64, 64)).shape == (1, 10)
    exec(code, names)
    assert str(list(names["y"].shape)) == code.rpartition("# ")[2].strip()


def test_network_is_saved_and_trained_on(tmp_path, monkeypatch):
    """As the page's first two examples have it, in one session, with a smaller network."""
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs/networks.md").read_text(encoding="utf-8")
    text = text.replace("models.densenet121()", "models.squeezenet1_1()")
    made, saved = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    names = {}
    exec(made, names)
    before = names["net"].state_dict()
    exec(saved, names)
    after = names["net"].state_dict()
    assert any(".head." in name for name in before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_poolings_are_left_out_of_the_weight_decay():
    """As the page's example has it, and as far as it says of those that are not."""
    text = (REPOSITORY / "docs/networks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"### Weight decay\n.*?```python\n(.*?)```", text, re.DOTALL)
    names = {"torchvision": torchvision, "torch": torch, "replace_pooling": replace_pooling}
    for call in ('"max_ent_unguided")', '"max_ent_unguided", strided_convs=True)'):
        code = code.replace('"max_ent_unguided")', call)
        exec(code.replace("models.densenet121()", "models.squeezenet1_1()"), names)
        check_groups(names)

    lam = torch.nn.Parameter(torch.ones(()))
    decaying = torch.optim.SGD([lam], lr=0.1, momentum=0.9, weight_decay=5e-4)
    lam.grad = torch.zeros(())
    for _ in range(2000):
        decaying.step()
    assert round(lam.item(), 2) == 0.37


def check_groups(names):
    others, of_poolings = names["optimizer"].param_groups
    assert (others["weight_decay"], of_poolings["weight_decay"]) == (5e-4, 0.0)
    learned = [p for name, p in names["net"].named_parameters() if name.endswith("lam")]
    assert len(learned) >= 3
    assert list(map(id, of_poolings["params"])) == list(map(id, learned))
    assert len(others["params"]) == len(list(names["net"].parameters())) - len(learned)
