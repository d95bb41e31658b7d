"""What the page for users of the published code shows runs, and makes what it says."""

import re
import shlex

import pytest
import torch

from tests.support.networks_without_memory import without_memory
from tests.support.paths import REPOSITORY
from train_imagenet import parse_settings

PAGE = (REPOSITORY / "docs/migration.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_commands():
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert [words[:2] for words in commands] == [["python", "train_imagenet.py"]] * 2
    train, test = (parse_settings(words[2:]) for words in commands)
    assert (train.arch, train.pool, train.dataset) == ("resnet50", "max_ent", "imagenet")
    assert train.learning_rates == [0.1] * 30 + [0.01] * 30 + [0.001] * 30 + [0.0001] * 30
    assert (train.recipe.batch_size, train.recipe.momentum) == (256, 0.9)
    assert test.evaluate
    assert (test.dataset, test.resume) == ("imagenet", "FILE")


def test_published_learning_rates():
    """As a list in the published configuration, and as both rows of options make them."""
    row = next(line for line in PAGE.splitlines() if line.startswith("| `'lrs'"))
    published, step, milestones = re.findall(r"`([^`]+)`", row)
    expected = eval(published.partition(":")[2])
    assert len(expected) == 120
    # The second form is what replaces the schedule of the first.
    for options in (step, f"--lr 0.1 --epochs 120 {milestones}"):
        rates = parse_settings(["--dataset", "imagenet", *options.split()]).learning_rates
        assert rates == pytest.approx(expected, rel=1e-12)


def test_published_flags(monkeypatch):
    environment = {"MASTER_ADDR": "h", "MASTER_PORT": "1", "WORLD_SIZE": "3", "RANK": "2"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    row = next(line for line in PAGE.splitlines() if line.startswith("| `--dist-url env://`"))
    options = shlex.split(" ".join(re.findall(r"`(--[^`]+)`", row)))
    settings = parse_settings(["--multiproc", *options])
    assert (settings.world_size, settings.rank) == (3, 2)
    assert settings.multiprocessing_distributed
    assert not settings.resume


def test_code():
    layers, networks = blocks("python")
    names = {}
    with without_memory():
        exec(layers, names)
        exec(networks, names)
    assert f"# {list(names['weight'].shape)}" in layers
    assert names["gauss"](torch.ones(2, 64, 8, 8, device="meta")).shape == (2, 64, 4, 4)
    assert str(names["net"]) == str(names["same"]) == str(names["ours"])
    assert names["net"].layer2[0].pooling.ToParam[1].weight.shape == (256, 512, 1, 1)
