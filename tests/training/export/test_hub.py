"""Folders for the Hugging Face Hub, made of checkpoints."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from models.model_card import Measured
from tests.support.paths import REPOSITORY
from training.checkpoints.format import Checkpoint
from training.checkpoints.partial_epoch import PartialEpoch
from training.errors import UserError
from training.export.command import export
from training.export.hub import measured_of
from training.records.history import history_from_stats

huggingface_hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")

STATS = {
    **{"train_err1": [60.0, 30.0], "train_err5": [20.0, 10.0], "train_loss": [2.0, 1.0]},
    **{"test_err1": [50.0, 12.5], "test_err5": [9.0, 3.25], "test_loss": [2.0, 1.0]},
}
AVERAGED = {**STATS, "ema_val_err1": [60.0, 11.5], "ema_val_err5": [9.5, 2.25]}


@pytest.fixture(scope="module")
def network():
    return models.create_model("resnet18", "max_ent", num_classes=3).eval()


@pytest.fixture
def checkpoint(network, tmp_path):
    content = {
        "epoch": 2,
        "arch": "resnet18",
        "state_dict": network.state_dict(),
        "stats": STATS,
        "optimizer": torch.optim.SGD(network.parameters(), 0.1).state_dict(),
        "args": {"pool": "max_ent", "config_name": "digits", "dataset": "digits", "seed": 0},
        "classes": ["zero", "one"],
    }
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(content, path)
    return path


def exported(checkpoint: Path, out: Path) -> str:
    return export(str(checkpoint), str(out), "hub", pool=None, image_size=None)


def test_checkpoint_becomes_a_folder(checkpoint, network, tmp_path):
    folder = tmp_path / "folder"
    said = exported(checkpoint, folder)
    assert said.endswith("top-1 error 12.50%, top-5 error 3.25%")
    found = models.from_pretrained(folder)
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    config = json.loads((folder / "config.json").read_text())
    assert config == found.config
    assert config["id2label"] == {"0": "zero", "1": "one", "2": "class 2"}
    assert config["label2id"] == {"zero": 0, "one": 1, "class 2": 2}
    assert (config["image_size"], config["resized_to"]) == (32, 32)
    assert (config["mean"], config["std"]) == ([0.5] * 3, [0.5] * 3)
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert "Top-1 error 12.50%, top-5 error 3.25%: validation on digits after epoch 2" in card.text
    assert "zero, one, class 2" in card.text
    assert [result.metric_value for result in card.data.eval_results] == [0.875, 0.9675]


def test_classs_name_may_be_no_text(checkpoint, tmp_path):
    """As a folder's may be; no file of a folder can hold it as it is."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "classes": ["caf\udce9", "one"]}, checkpoint)
    exported(checkpoint, tmp_path / "folder")
    labels = models.from_pretrained(tmp_path / "folder").config["id2label"]
    assert labels["0"] == "caf\N{REPLACEMENT CHARACTER}"
    card = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    assert "caf\N{REPLACEMENT CHARACTER}, one" in card


def test_code_of_the_page(checkpoint, tmp_path, monkeypatch):
    page = (REPOSITORY / "docs/deployment.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Hugging Face Hub\n\n```python\n(.*?)```", page, re.DOTALL)
    exported(checkpoint, tmp_path / "network.hub")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["name"] == "zero"


def test_errors_are_one_line(checkpoint, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(UserError, match=r"cannot be written .*File exists.*choose another"):
        exported(checkpoint, file)
    assert file.read_text() == "before"
    for name in [*sys.modules, "safetensors.torch"]:
        if name.partition(".")[0] == "safetensors":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"--format hub: .*pip install safetensors"):
        exported(checkpoint, tmp_path / "folder")


def checkpoint_of(stats, args=None, **others) -> Checkpoint:
    history = history_from_stats(stats, epoch=2)
    return Checkpoint(
        *(2, "resnet18", "max_ent", None), state_dict={}, optimizer={}, history=history, args=args,
        **others,
    )  # fmt: skip


def test_figures_are_of_the_weights_that_are_taken():
    plain = checkpoint_of(STATS)
    assert measured_of(plain) == Measured(err1=12.5, err5=3.25, data=None, epoch=2)
    averaged = checkpoint_of(AVERAGED, ema={})
    assert measured_of(averaged) == Measured(err1=11.5, err5=2.25, data=None, epoch=2)
    worse = checkpoint_of({**AVERAGED, "ema_val_err1": [60.0, 13.0]}, ema={})
    assert measured_of(worse) == measured_of(plain)


def test_weights_that_were_not_validated_have_no_figures():
    plain = checkpoint_of(STATS)
    assert measured_of(replace(plain, history=[])) is None
    within = PartialEpoch(4, torch.zeros(4), seconds=1.0, random_states=[], order={})
    assert measured_of(replace(plain, partial_epoch=within)) is None
    unknown = {**STATS, "test_err1": [math.nan] * 2}
    assert measured_of(checkpoint_of(unknown)) is None


def test_data_is_named_where_it_is_known():
    def data(**args):
        return measured_of(checkpoint_of(STATS, args)).data

    assert data(dataset="fashion-mnist", limit_val_batches=None) == "fashion-mnist"
    assert data(dataset="digits", limit_val_batches=3) == "digits (the first 3 batches)"
    # To the command line, any folder of images is called so.
    assert data(dataset="imagenet", data="pets") is None
