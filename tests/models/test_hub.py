"""Networks saved as folders of the Hugging Face Hub, and read from them."""

import copy
import json
import pickle
import re
import shutil
import sys

import pytest
import torch
from torch import nn

import models
from gfgp_cupy import replace_pooling
from models.model_card import OURS, Measured
from models.resnet import BasicBlock, ResNet, resnet_stem
from tests.support.small_networks import small_resnet

safetensors_torch = pytest.importorskip("safetensors.torch", reason="pip install safetensors")
huggingface_hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")

PAPERS_ERRORS = ("22.64", "24.50", "21.77", "21.55", "22.24")


@pytest.fixture(scope="module")
def net():
    """A network whose statistics and steps, too, are not those of a new one."""
    net = models.create_model("resnet18", pool="max_ent", num_classes=3)
    net(torch.rand(8, 3, 32, 32))
    return net.eval()


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "a" / "folder"
    net.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the saved folder, to be damaged."""
    return shutil.copytree(saved, tmp_path / "saved")


def card_of(folder):
    return huggingface_hub.ModelCard.load(folder / "README.md")


def assert_same_tensors(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def error_of(error, folder):
    with pytest.raises(error) as raised:
        models.from_pretrained(folder)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_what_is_saved_comes_back(net, saved):
    before = torch.get_rng_state()
    found = models.from_pretrained(saved)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(found) is type(net)
    assert not found.training
    assert_same_tensors(found.state_dict(), net.state_dict())
    assert all(parameter.requires_grad for parameter in found.parameters())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(found(images), net(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["densenet121", "vgg11bow_bn"])
def test_other_families_and_types(name, tmp_path):
    net = models.create_model(name, pool="mixed", num_classes=2).bfloat16()
    net = net.to(memory_format=torch.channels_last)
    net.save_pretrained(tmp_path)
    assert_same_tensors(models.from_pretrained(str(tmp_path)).state_dict(), net.state_dict())


def test_files_are_those_of_the_hub(saved, net):
    assert {path.name for path in saved.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    config = json.loads((saved / "config.json").read_text())
    assert config == {"name": "resnet18", "pool": "max_ent", "num_classes": 3}
    assert config == net.config
    with safetensors_torch.safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_folder_is_read_by_the_mixin_itself(saved, net):
    """``huggingface_hub``'s own loader finds the arguments and the tensors where it looks."""

    class Mixed(ResNet, huggingface_hub.PyTorchModelHubMixin):
        def __init__(self, pool: str, num_classes: int) -> None:
            super().__init__(BasicBlock, (2, 2, 2, 2), resnet_stem, pool, num_classes)

    found = Mixed.from_pretrained(saved, strict=True)
    assert_same_tensors(found.state_dict(), net.state_dict())


def test_card_without_figures_has_none(saved):
    card = card_of(saved)
    assert (card.data.license, card.data.library_name) == ("mit", "gfgp_cupy")
    assert card.data.pipeline_tag == "image-classification"
    assert "resnet18" in card.data.tags
    assert card.data.eval_results is None
    assert "None were measured" in card.text
    assert "%" not in card.text
    assert not any(error in card.content for error in PAPERS_ERRORS)


def test_figures_that_are_none_are_refused_before_anything_is_written(net, tmp_path):
    with pytest.raises(TypeError, match=r"pass Measured\(err1=…, err5=…, data=…, epoch=…\)"):
        net.save_pretrained(tmp_path / "new", measured={"err1": 12.25})
    assert not (tmp_path / "new").exists()


def test_card_states_what_was_measured(net, tmp_path):
    measured = Measured(err1=12.25, err5=1.5, data='pets: "mine"', epoch=7)
    labels = {0: "cat", 1: "dog: big", 2: "Grüße"}
    net.save_pretrained(tmp_path, config={"id2label": labels}, measured=measured)
    card = card_of(tmp_path)
    assert "Top-1 error 12.25%, top-5 error 1.50%" in card.text
    assert "after epoch 7" in card.text
    assert "cat, dog: big, Grüße" in card.text
    assert "None were measured" not in card.text
    results = card.data.eval_results
    assert [result.dataset_name for result in results] == ['pets: "mine"'] * 2
    assert [result.metric_value for result in results] == [0.8775, 0.985]
    assert not any(error in card.content for error in PAPERS_ERRORS)


def test_labels_travel_on(net, tmp_path):
    net.save_pretrained(tmp_path / "a", config={"id2label": {0: "cat", 1: "dog", 2: "owl"}})
    models.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    found = models.from_pretrained(tmp_path / "b")
    assert found.config["id2label"] == {"0": "cat", "1": "dog", "2": "owl"}
    assert "cat, dog, owl" in card_of(tmp_path / "b").text
    assert "id2label" not in net.config


def test_labels_that_are_no_text(net, tmp_path):
    """Such as names of folders that are not UTF-8."""
    net.save_pretrained(tmp_path, config={"id2label": {0: "caf\udce9", 1: "dog", 2: "owl"}})
    labels = models.from_pretrained(tmp_path).config["id2label"]
    assert labels["0"] == "caf\N{REPLACEMENT CHARACTER}"
    assert "caf\N{REPLACEMENT CHARACTER}, dog" in card_of(tmp_path).text


def test_nothing_is_left_of_what_cannot_be_written(net, tmp_path):
    """Nor is a page of other people's read as text, whatever it is written in."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        net.save_pretrained(tmp_path / "new", config={"classes": {"cat"}})
    assert not (tmp_path / "new").exists()
    (tmp_path / "README.md").write_bytes(b"caf\xe9")
    net.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == b"caf\xe9"
    assert models.from_pretrained(tmp_path).config == net.config


def test_file_that_is_written_anew_leaves_the_network_that_was_read_from_it(net, folder):
    found = models.from_pretrained(folder)
    with torch.no_grad():
        models.from_pretrained(folder).apply(
            lambda module: [tensor.zero_() for tensor in module.parameters(recurse=False)]
        ).save_pretrained(folder)
    assert_same_tensors(found.state_dict(), net.state_dict())
    assert not models.from_pretrained(folder).fc.weight.any()


def test_only_our_own_card_is_written_anew(net, folder):
    net.save_pretrained(folder, measured=Measured(err1=1.0, err5=0.0, data="digits", epoch=1))
    assert "1.00%" in card_of(folder).text
    net.save_pretrained(folder)  # whose figures nobody has given
    assert "1.00%" not in card_of(folder).text
    path = folder / "README.md"
    path.write_text(path.read_text().replace(OURS, "A page of mine."))
    net.save_pretrained(folder, measured=Measured(err1=1.0, err5=0.0, data="digits", epoch=1))
    assert "A page of mine." in path.read_text()
    assert "1.00%" not in path.read_text()


def test_config_of_another_network_is_refused(net, tmp_path):
    with pytest.raises(ValueError, match="pool='max', the network 'max_ent': leave pool out"):
        net.save_pretrained(tmp_path, config={"pool": "max"})
    for labels in ({0: "cat"}, ["cat", "dog", "owl"]):
        with pytest.raises(ValueError, match=r"id2label=.*: pass a dict of 3 names"):
            net.save_pretrained(tmp_path, config={"id2label": labels})
    assert list(tmp_path.iterdir()) == []


def test_changed_network_is_refused(tmp_path):
    net = models.create_model("resnet18", pool="max", num_classes=3)
    replace_pooling(net, pool="avg", sample_shape=(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"models\.create_model: .*AvgPool2d.*MaxPool2d"):
        net.save_pretrained(tmp_path)
    net = models.create_model("resnet18", pool="max", num_classes=3)
    net.add_module("more", nn.ReLU())
    with pytest.raises(ValueError, match=re.escape("'(more): ReLU()' in place of ")):
        net.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="made otherwise"):
        small_resnet().save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_for_saving_is_in_no_other_tools_way():
    net = models.create_model("resnetp18", pool="max", num_classes=3).eval()
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(torch.jit.script(net)(images), net(images))
    assert pickle.loads(pickle.dumps(net)).config == copy.deepcopy(net).config == net.config


def test_folders_that_are_not_there(tmp_path):
    assert "no such folder" in error_of(FileNotFoundError, tmp_path / "none")
    assert "no such folder" in error_of(FileNotFoundError, "./none")
    assert "has no config.json" in error_of(FileNotFoundError, tmp_path)


def test_folders_of_others(folder):
    config = folder / "config.json"
    for text in ('{"architectures": ["ResNetForImageClassification"]}', "[1]"):
        config.write_text(text)
        assert "has no name, pool and num_classes" in error_of(ValueError, folder)
    config.write_text("{")
    assert "is not JSON" in error_of(ValueError, folder)
    config.write_text('{"name": "resnet19", "pool": "max_ent", "num_classes": 3}')
    assert "did you mean 'resnet18'" in error_of(ValueError, folder)
    config.write_text('{"name": "resnet18", "pool": "max_ent", "num_classes": "3"}')
    assert "num_classes must be an int" in error_of(ValueError, folder)
    config.write_text('{"name": "resnet18", "pool": "max_ent", "num_classes": 4}')
    assert "fc.weight" in error_of(ValueError, folder)
    config.write_text('{"name": "resnet18", "pool": "skip", "num_classes": 3}')
    assert "Unexpected key" in error_of(ValueError, folder)


def test_weights_are_read_from_safetensors_alone(folder, tmp_path):
    weights = folder / "model.safetensors"
    torch.save(safetensors_torch.load_file(weights), folder / "pytorch_model.bin")
    whole = weights.read_bytes()
    weights.unlink()
    assert "has no model.safetensors" in error_of(FileNotFoundError, folder)
    for damaged in (whole[:-1], (folder / "pytorch_model.bin").read_bytes(), b""):
        weights.write_bytes(damaged)
        assert "cannot be read as safetensors" in error_of(ValueError, folder)
    safetensors_torch.save_file({"scale": torch.ones(1)}, weights)
    assert "Missing key" in error_of(ValueError, folder)


def test_repository_is_a_folder_of_the_cache(saved, net, tmp_path):
    """As huggingface_hub keeps those that it has downloaded."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--user--name"
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = models.from_pretrained("user/name", cache_dir=tmp_path, local_files_only=True)
    assert_same_tensors(found.state_dict(), net.state_dict())
    with pytest.raises(FileNotFoundError):
        models.from_pretrained("user/other", cache_dir=tmp_path, local_files_only=True)


def test_missing_package_is_named(net, saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="pip install huggingface_hub"):
        models.from_pretrained("user/name")
    for name in [*sys.modules, "safetensors.torch"]:
        if name.partition(".")[0] == "safetensors":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        models.from_pretrained(saved)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        net.save_pretrained(tmp_path)
