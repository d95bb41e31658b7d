"""--pretrained and --weights: what is taken from torchvision's networks and from files."""

import re

import pytest
import torch
import torchvision
from timm.data import ImageNetInfo
from torch import nn

from models import create_model, list_models
from tests.support.command_line import (
    checked_error,
    error_here,
    free_dist_url,
    output_here,
    run_command,
)
from tests.support.networks_without_memory import without_memory
from tests.support.tiny_network import TinyNetwork
from train_imagenet import parse_settings
from training.checkpoints.fitting import layer_of, take_fitting, with_own_names
from training.checkpoints.weights import (
    Weights,
    start_from_weights,
    torchvision_name,
    torchvision_weights,
    weights_of_file,
)
from training.errors import UserError
from training.images.datasets import Data
from training.processes.ranks import Process
from training.run import Run

SMALL_DIGITS = (
    *("--dataset", "digits", "--arch", "resnet18", "--cpu", "--batch-size", 4, "--seed", 0),
    *("--epochs", 1, "--limit-train-batches", 1, "--limit-val-batches", 1, "--lr", 1e-12),
)


def torchvision_network(name, **options):
    return torchvision.models.get_model(name, weights=None, **options)


def with_random_statistics(model):
    """``model`` with norms that differ from fresh ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked.fill_(7)
    return model


def taken_and_left(summary):
    taken, total, left = re.match(r"(\d+) of (\d+) tensors taken, (\d+|none)", summary).groups()
    assert int(taken) + (0 if left == "none" else int(left)) == int(total)
    return int(taken), 0 if left == "none" else int(left)


# Of each family: with every kind of pooling, the others with the published one.
SMALLEST = ("resnet18", "resnetp18", "resnext50_32x4d", "vgg11bow", "vgg11orig_bn", "densenet121")


@pytest.mark.parametrize("arch", list_models())
def test_every_convolution_and_norm_of_torchvision_fits(arch):
    """And everything else but the classifier of the bow networks, which torchvision lacks."""
    with without_memory():
        weights = torchvision_network(torchvision_name(arch)).state_dict()
        for pool in ("max", "max_ent", "skip") if arch in SMALLEST else ("max_ent",):
            model = create_model(arch, pool)
            before = model.state_dict()
            summary = take_fitting(model, weights)
            left = 6 if "bow" in arch else 0
            assert taken_and_left(summary) == (len(weights) - left, left)
            assert [*model.state_dict()] == [*before]
            assert not left or "6 (classifier." in summary


@pytest.mark.parametrize(("arch", "kind"), [("resnet18", "head"), ("densenet121", "head|norm2")])
def test_what_starts_fresh(arch, kind):
    """The poolings' heads, and the norms that the published DenseNet adds."""
    with without_memory():
        model = create_model(arch)
        weights = torchvision_network(torchvision_name(arch)).state_dict()
        summary = take_fitting(model, weights)
    expected = [
        name
        for name in model.state_dict()
        if re.search(rf"\.({kind})\.", name) and "denselayer" not in name
    ]
    assert f"left; {len(expected)} ({expected[0]}, " in summary


def test_resnet_skip_is_torchvisions_network():
    theirs = with_random_statistics(torchvision_network("resnet18")).eval()
    model = create_model("resnet18", "skip")
    summary = take_fitting(model, theirs.state_dict())
    assert summary == "122 of 122 tensors taken, none left; none of the network's start fresh"
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.eval()(x), theirs(x))


def test_vgg_classifiers_match_layer_by_layer():
    with without_memory():
        for arch, places in (("vgg11orig", (0, 2, 4)), ("vgg11orig_bn", (0, 3, 6))):
            theirs = torchvision_network(torchvision_name(arch)).state_dict()
            named = with_own_names(create_model(arch), theirs)
            for own, place in zip(places, (0, 3, 6), strict=True):
                for kind in ("weight", "bias"):
                    expected = theirs[f"classifier.{place}.{kind}"]
                    assert named[f"classifier.{own}.{kind}"] is expected


def test_a_layer_is_taken_whole_or_not_at_all():
    """A bias of the right shape beside a weight of the wrong one, for instance."""
    model = create_model("resnet18", "skip", num_classes=10)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = create_model("resnet18", "skip", num_classes=10).state_dict()
    weights["fc.weight"] = torch.zeros(10, 7)
    del weights["bn1.running_mean"]
    del weights["layer1.0.bn1.num_batches_tracked"]  # old files lack it
    weights["layer1.1.bn1.num_batches_tracked"] = torch.zeros(0)  # of a file made by hand
    summary = take_fitting(model, weights)
    assert taken_and_left(summary) == (len(weights) - 7, 7)
    assert "7 (bn1.weight, " in summary
    del weights["layer1.1.bn1.num_batches_tracked"]
    for name, tensor in model.state_dict().items():
        expected = fresh if layer_of(name) in ("bn1", "fc") else weights
        assert torch.equal(tensor, expected.get(name, torch.tensor(0))), name


def test_old_densenet_names():
    weights = torchvision_network("densenet121").state_dict()
    old = {
        re.sub(r"(denselayer\d+\.[a-z]+)([12])\.", r"\1.\2.", name): tensor
        for name, tensor in weights.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    model = create_model("densenet121", "max_ent")
    assert taken_and_left(take_fitting(model, old)) == (len(old), 0)
    own = model.state_dict()
    for name in old.keys() & weights.keys():
        assert torch.equal(own[name], weights[name])
    name = "features.denseblock2.denselayer3.conv2.weight"
    assert torch.equal(own[name], weights[name])


def published_names(model):
    """The state dict as the published implementation saves it from a data-parallel run."""
    names = {"conv1": "1", "norm1": "2", "conv2": "4", "norm2": "5"}
    return {
        "module." + re.sub(r"head\.(\w+)\.", lambda m: f"ToParam.{names[m[1]]}.", name): tensor
        for name, tensor in model.state_dict().items()
    }


def test_weights_of_files(tmp_path):
    source = with_random_statistics(create_model("resnet18", "max_ent", num_classes=10))
    path = str(tmp_path / "weights.pth")
    for content in (
        source.state_dict(),
        {"state_dict": source.state_dict(), "epoch": 3, "arch": "resnet18"},
        {"state_dict": published_names(source), "epoch": 3},
    ):
        torch.save(content, path)
        model = create_model("resnet18", "max_ent", num_classes=10)
        summary = take_fitting(model, weights_of_file("--weights", path).tensors)
        assert "none left; none of the network's start fresh" in summary
        for name, tensor in source.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name


CLASSES = ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("theirs", "rows", "note"),
    [
        (CLASSES, [0, 1, 2, 3], ""),
        (None, [0, 1, 2, 3], ""),
        (("owl", "cat", "dog"), [1, 2, 0, 3], "; the rows of fc are put in the order of"),
        (
            ("cat", "eel", "owl"),
            None,
            "; fc starts fresh, for the classes are others: 1 (eel) of the weights, 1 (dog) of",
        ),
    ],
)
def test_classifier_is_taken_by_the_names_of_its_classes(theirs, rows, note):
    """A fourth row, of --num-classes, has no name."""
    model = create_model("resnet18", "skip", num_classes=4)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = create_model("resnet18", "skip", num_classes=4).state_dict()
    nn.init.normal_(weights["fc.bias"])
    summary = take_fitting(model, weights, theirs, CLASSES)
    assert summary.partition("fresh")[2].startswith(note)
    assert (note == "") is summary.endswith("none of the network's start fresh")
    for kind in ("fc.weight", "fc.bias"):
        expected = fresh[kind] if rows is None else weights[kind][rows]
        assert torch.equal(model.state_dict()[kind], expected)
    assert torch.equal(model.conv1.weight, weights["conv1.weight"])


def test_classifier_of_another_size_starts_fresh_whatever_its_classes():
    model = create_model("resnet18", "skip", num_classes=3)
    weights = create_model("resnet18", "skip", num_classes=4).state_dict()
    summary = take_fitting(model, weights, ("a", "b", "c", "d"), CLASSES)
    assert summary.endswith("2 (fc.weight, fc.bias) of the network's start fresh")


@pytest.mark.parametrize(
    ("others", "note"),
    [
        ({}, ""),
        (
            {"n01440764": "n99999999"},
            "; fc starts fresh, for the classes are others: 1 (n01440764) of the weights, 1 (n99",
        ),
    ],
)
def test_imagenets_classifier_is_for_imagenets_classes(monkeypatch, capsys, others, note):
    """A thousand WordNet IDs may be of others."""
    tensors = {name: tensor + 1 for name, tensor in TinyNetwork(1000).state_dict().items()}
    weights = Weights("--pretrained tiny", "", 1000, tensors, of_imagenet=True)
    monkeypatch.setattr("training.checkpoints.weights.weights_to_start_from", lambda _: weights)
    names = [others.get(name, name) for name in ImageNetInfo("imagenet-1k").label_names()]
    model = TinyNetwork(1000)
    fresh = model.fc.weight.detach().clone()
    run = Run(parse_settings(["--pretrained"]), Process(0, 1, torch.device("cpu")), seed=0)
    start_from_weights(model, Data(train=None, val=None, classes=tuple(names)), run)
    assert capsys.readouterr().out.partition("network's start fresh")[2].startswith(note or "\n")
    assert torch.equal(model.fc.weight, fresh if others else tensors["fc.weight"])
    assert torch.equal(model.conv.weight, tensors["conv.weight"])


class Code:
    def __reduce__(self):
        return (print, ("code of the file ran",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], ["holds no tensors by name", "state_dict"]),
        ({"model": {"weight": torch.ones(1)}}, ["holds no tensors by name", "state_dict"]),
        ({"weight": Code()}, ["is no checkpoint that can be read"]),
    ],
)
def test_files_without_weights(tmp_path, capsys, content, words):
    path = str(tmp_path / "weights.pth")
    torch.save(content, path)
    with pytest.raises(UserError) as raised:
        weights_of_file("--weights", path)
    for word in (f"--weights {path}", *words):
        assert word in str(raised.value)
    assert "ran" not in capsys.readouterr().out


def test_weights_of_another_network_do_not_fit():
    model = create_model("resnet18")
    with pytest.raises(ValueError, match=r"none of its tensors, 2 \(weight, bias\), fits"):
        take_fitting(model, nn.Linear(3, 2).state_dict())


# From the command line


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torchvision's cache, empty, on a machine whose every way out is a port nobody listens on."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, free_dist_url().replace("tcp", "http"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "torch_home" / "hub" / "checkpoints"


def test_offline_pretrained_is_one_clear_line(tmp_path, hub):
    out = tmp_path / "out"
    message = error_here(*SMALL_DIGITS, "--out-dir", out, "--pretrained")
    for word in ("--pretrained: https://", "resnet18-", "cannot be downloaded", "--weights FILE"):
        assert word in message
    assert not out.exists()


def test_a_damaged_download_is_named(tmp_path, hub):
    hub.mkdir(parents=True)
    kept = hub / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    kept.touch()
    message = error_here(*SMALL_DIGITS, "--out-dir", tmp_path / "out", "--pretrained")
    assert f"--pretrained: {kept} cannot be read" in message and "remove it" in message
    kept.unlink()
    message = error_here(*SMALL_DIGITS, "--out-dir", tmp_path / "out", "--pretrained")
    assert "cannot be downloaded" in message


def test_pretrained_takes_what_torchvision_downloaded_before(tmp_path, hub):
    theirs = with_random_statistics(torchvision_network("resnet18"))
    hub.mkdir(parents=True)
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    torch.save(theirs.state_dict(), hub / url.rpartition("/")[2])
    weights = torchvision_weights("resnetp18").tensors
    assert torch.equal(weights["conv1.weight"], theirs.conv1.weight)
    printed = output_here(*SMALL_DIGITS, "--out-dir", tmp_path / "out", "--pretrained")
    assert "--pretrained resnet18: 120 of 122 tensors taken, 2 (fc.weight, fc.bias) left" in printed
    trained = weights_of_file("", str(tmp_path / "out" / "checkpoint-epoch1.pth.tar")).tensors
    torch.testing.assert_close(trained["conv1.weight"], theirs.conv1.weight.detach())
    assert trained["bn1.num_batches_tracked"] == 8


def test_weights_on_the_command_line(tmp_path):
    """Of a resumed run, the checkpoint decides."""
    file, out = tmp_path / "weights.pth", tmp_path / "out"
    options = (*SMALL_DIGITS, "--out-dir", out, "--weights", file)
    assert f"--weights {file}: no such file" in error_here(*options)
    assert not out.exists()
    torch.save(torchvision_network("resnet18").state_dict(), file)
    assert f"--weights {file}: 120 of 122 tensors taken" in output_here(*options)
    file.unlink()
    printed = output_here(*options, "--epochs", 2, "--resume", out / "checkpoint-epoch1.pth.tar")
    assert "tensors taken" not in printed


@pytest.mark.slow
def test_weights_in_two_processes(tmp_path):
    """One of them reads and says so, and the error of that one is the error of both."""
    file, out = tmp_path / "weights.pth", tmp_path / "out"
    options = (
        *(*SMALL_DIGITS, "--out-dir", out, "--weights", file),
        *("--multiprocessing-distributed", "--nproc", 2, "--dist-url", free_dist_url()),
    )
    result = run_command(*options)
    assert f"--weights {file}: no such file" in checked_error(result.returncode, result.stderr)
    theirs = torchvision_network("resnet18").state_dict()
    torch.save(theirs, file)
    result = run_command(*options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"--weights {file}: 120 of 122 tensors taken") == 1
    trained = weights_of_file("", str(out / "checkpoint-epoch1.pth.tar")).tensors
    torch.testing.assert_close(trained["conv1.weight"], theirs["conv1.weight"])
