"""``--evaluate`` of checkpoints, state dicts and torchvision's weights: which network, which
classes, and what is refused."""

import csv
import json
from collections import Counter

import pytest
import torch
import torchvision
from PIL import Image

from models import create_model
from tests.support.command_line import (
    error_here,
    free_dist_url,
    output_here,
    output_of_command,
)
from tests.support.image_folders import write_image_folder
from tests.support.tiny_network import SMALL_DIGITS, TinyNetwork, create_tiny_network

DIGITS = ("--dataset", "digits", "--cpu", "--batch-size", 16, "--limit-val-batches", 2)


@pytest.fixture
def tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


def saved(path, **content):
    torch.save(content, path)
    return path


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def evaluated(out, *options):
    """Return what was printed, and evaluation.json."""
    printed = output_here(*options, "--evaluate", "--out-dir", out)
    return printed, json.loads((out / "evaluation.json").read_text())


@pytest.mark.usefixtures("tiny_network")
def test_network_is_that_of_the_checkpoint(tmp_path):
    """Neither --arch nor --pool is given, to evaluate, to train on, or with --resume auto."""
    out = tmp_path / "out"
    output_here(*SMALL_DIGITS, "--epochs", 1, "--out-dir", out)
    last = out / "checkpoint-epoch1.pth.tar"
    printed, evaluation = evaluated(tmp_path / "evaluation", *DIGITS, "--resume", last)
    assert "resnet18 with skip pooling" in printed
    assert evaluation["checkpoint"] == str(last)
    assert evaluation["images"] == 32
    limits = ("--limit-train-batches", 1, "--out-dir", out)
    for epochs, resume in ((2, last), (3, "auto")):
        printed = output_here(*DIGITS, *limits, "--epochs", epochs, "--resume", resume)
        assert "resnet18 with skip pooling" in printed
    checkpoint = torch.load(out / "checkpoint-epoch3.pth.tar", weights_only=True)
    assert checkpoint["arch"] == checkpoint["args"]["arch"] == "resnet18"
    for options in (("--arch", "resnet34"), ("--pool", "max")):
        for evaluate in (("--evaluate",), ("--epochs", 4)):
            message = error_here(*DIGITS, *limits, *evaluate, "--resume", last, *options)
            assert f"--resume {last}: is of --arch resnet18 --pool skip, not of --arch" in message
            assert " ".join(options) in message


@pytest.mark.usefixtures("tiny_network")
def test_network_is_the_default_where_there_is_no_checkpoint_yet(tmp_path):
    printed = output_here(
        *(*DIGITS, "--epochs", 1, "--limit-train-batches", 1, "--out-dir", tmp_path),
        *("--resume", "auto"),
    )
    assert "resnet50 with max_ent pooling" in printed


@pytest.mark.parametrize("option", ["--resume", "--weights"])
def test_state_dict_is_evaluated(tmp_path, option):
    """With the network that --arch and --pool say, or what a file around it says."""
    tensors = create_model("resnet18", "skip", num_classes=10).state_dict()
    path = tmp_path / "weights.pth"
    torch.save(tensors, path)
    run = (*DIGITS, "--limit-val-batches", 1, option)
    given = ("--arch", "resnet18", "--pool", "skip")
    printed, evaluation = evaluated(tmp_path / "out", *run, path, *given)
    assert "no names of classes" in printed
    assert evaluation["checkpoint"] == str(path)
    around = saved(tmp_path / "f.pth", state_dict=tensors, arch="resnet18", args={"pool": "skip"})
    printed, other = evaluated(tmp_path / "out", *run, around)
    assert "resnet18 with skip pooling" in printed
    assert other == evaluation | {"checkpoint": str(around)}


def test_state_dict_must_have_every_tensor_and_no_other(tmp_path):
    tensors = create_model("resnet18", "max_ent", num_classes=10).state_dict()
    path = tmp_path / "weights.pth"
    run = (*DIGITS, "--evaluate", "--weights", path, "--out-dir", tmp_path)
    torch.save(tensors, path)
    message = error_here(*run)
    its = f"--weights {path}: its tensors are not those of --arch resnet50 --pool max_ent"
    assert its in message
    assert "missing: " in message
    assert "pass the --arch and --pool that they are of, as the file does not say them" in message
    # Each tensor of resnet18 without heads is there, but so are others.
    message = error_here(*run, "--arch", "resnet18", "--pool", "skip")
    heads = len(tensors) - len(create_model("resnet18", "skip").state_dict())
    assert f"not of this network: {heads} (" in message
    torch.save({name: each for name, each in tensors.items() if name != "bn1.weight"}, path)
    assert "missing: 1 (bn1.weight)" in error_here(*run, "--arch", "resnet18")
    torch.save(tensors | {"bn1.weight": torch.ones(3)}, path)
    message = error_here(*run, "--arch", "resnet18")
    assert "of another shape: 1 (bn1.weight [3] in place of [64])" in message


@pytest.mark.parametrize(("outputs", "advised"), [(12, True), (4, False)])
def test_advice_where_the_data_has_other_classes_works(tmp_path, outputs, advised):
    """Of the digits' 10 classes no 4 outputs are all, and 12 may have them first."""
    path = tmp_path / "weights.pth"
    torch.save(create_model("resnet18", "skip", num_classes=outputs).state_dict(), path)
    run = (*DIGITS, "--evaluate", "--weights", path, "--arch", "resnet18", "--pool", "skip")
    message = error_here(*run, "--out-dir", tmp_path)
    assert f"has {outputs} classes, not 10; use its data set" in message
    advice = f"--num-classes {outputs}"
    assert (advice in message) is advised
    if advised:
        assert "top-1 error" in output_here(*run, *advice.split(), "--out-dir", tmp_path)


def test_what_to_evaluate_must_be_said():
    assert "--resume FILE, or --weights FILE or --pretrained" in error_here(*DIGITS, "--evaluate")


IMAGENET_CLASSES = {
    "n01440764": (0, "tench"),
    "n01491361": (3, "tiger shark"),
    "n06794110": (919, "street sign"),
    "n15075141": (999, "toilet tissue"),
}
"""Some of ImageNet's folders, their numbers among all, and torchvision's names for them."""


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Validation images of four of ImageNet's classes."""
    root = tmp_path_factory.mktemp("data")
    pixels = torch.Generator().manual_seed(1)
    for name, (number, _) in IMAGENET_CLASSES.items():
        folder = root / "val" / name
        folder.mkdir(parents=True)
        noise = torch.randint(0, 256, (260 + number % 7, 300, 3), generator=pixels)
        Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / "image.png")
    return root


def test_pretrained_scores_are_torchvisions_own(tmp_path, monkeypatch, imagenet):
    """Of the network, the images as it wants them, and the numbers of the classes."""
    theirs = torchvision.models.resnet18(weights=None).eval()
    with torch.no_grad():
        theirs.fc.weight *= 20  # or the logits hardly depend on the image
    enum = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save(theirs.state_dict(), cache / enum.url.rpartition("/")[2])
    run = ("--data", imagenet, "--arch", "resnet18", "--cpu", "--workers", 0, "--pretrained")
    printed, evaluation = evaluated(tmp_path / "out", *run)
    assert "resnet18 with skip pooling" in printed
    assert "4 of the checkpoint's 1000, matched by their names" in printed
    assert evaluation["checkpoint"] == enum.url
    paths = [imagenet / "val" / name / "image.png" for name in IMAGENET_CLASSES]
    images = torch.stack([enum.transforms()(Image.open(path)) for path in paths])
    targets = torch.tensor([number for number, _ in IMAGENET_CLASSES.values()])
    for number, name in IMAGENET_CLASSES.values():
        assert enum.meta["categories"][number] == name
    with torch.inference_mode():
        logits = theirs(images)
    loss = torch.nn.functional.cross_entropy(logits, targets).item()
    assert evaluation["loss"] == pytest.approx(loss, rel=1e-6)
    wrong = (logits.argmax(dim=1) != targets).double().mean().item()
    assert evaluation["top1_error"] == pytest.approx(100 * wrong)
    for pool in ("avg", "max_ent"):
        message = error_here(*run, "--evaluate", "--pool", pool, "--out-dir", tmp_path)
        assert "--pretrained resnet18: is of --arch resnet18 --pool skip, not of" in message
    others = ("--data", write_image_folder(tmp_path / "data"), "--out-dir", tmp_path)
    message = error_here(*run, *others, "--evaluate")
    assert "--pretrained resnet18: has 1000 classes, not 2" in message


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("classes", [("cat", "dog", "owl"), ("owl", "eel", "cat", "dog")])
def test_classes_are_found_by_name(tmp_path, classes):
    """In folders of three classes, of which the checkpoint has another order, and more."""
    data = write_image_folder(tmp_path / "data", classes=3)
    for number, name in enumerate(("cat", "dog", "owl")):
        for split in ("train", "val"):
            folder = data / split / f"class{number}"
            folder.rename(folder.with_name(name))
    model = TinyNetwork(len(classes)).eval()
    path = saved(
        tmp_path / "checkpoint.pth",
        state_dict=model.state_dict(),
        arch="resnet18",
        args={"pool": "skip"},
        classes=list(classes),
    )
    run = ("--data", data, "--config-name", "digits", "--cpu", "--workers", 0)
    printed, evaluation = evaluated(tmp_path / "out", *run, "--resume", path)
    counts = Counter()
    for file in sorted((data / "val").rglob("*.JPEG")):
        with Image.open(file) as image:
            pixels = torchvision.transforms.functional.to_tensor(image.resize((32, 32), 2))
        predicted = classes[model((pixels[None] - 0.5) / 0.5).argmax().item()]
        counts[file.parent.name, predicted] += 1
    right = sum(count for (true, predicted), count in counts.items() if true == predicted)
    assert evaluation["top1_error"] == pytest.approx(100 * (1 - right / 9))
    header, *rows = read_csv(tmp_path / "out" / "confusion.csv")
    found = {(true, predicted): int(count)
             for true, *row in rows for predicted, count in zip(header[1:], row, strict=True)
             if count != "0"}  # fmt: skip
    assert found == counts
    assert ("matched by their names" in printed) is (len(classes) == 4)
    (data / "val" / "owl").rename(data / "val" / "fox")
    (data / "train" / "owl").rename(data / "train" / "fox")
    message = error_here(*run, "--evaluate", "--resume", path, "--out-dir", tmp_path)
    assert "other classes" in message
    assert "fox" in message


@pytest.mark.usefixtures("tiny_network")
def test_images_prepared_otherwise_than_by_the_run_are_told(tmp_path):
    """As where the run had a --config-name, which the evaluation forgets."""
    content = {"state_dict": TinyNetwork(10).state_dict(), "arch": "resnet18"}
    args = {"pool": "skip", "config_name": "imagenet", "image_size": 160}
    other = saved(tmp_path / "other.pth", **content, args=args)
    same = saved(tmp_path / "same.pth", **content, args=args | {"config_name": "digits"})
    of_nothing = saved(tmp_path / "nothing.pth", **content)
    options = (*DIGITS, "--pool", "skip")
    printed, _ = evaluated(tmp_path, *options, "--resume", other)
    assert f"--resume {other}: its run prepared validation images otherwise: image_size" in printed
    assert "image_size 160, here 32; crop_pct 0.875, here 1.0; mean (0.485, 0.4" in printed
    printed, _ = evaluated(tmp_path, *options, "--image-size", 160, "--resume", same)
    assert "images otherwise" not in printed
    printed, _ = evaluated(tmp_path, *options, "--resume", of_nothing)
    assert "images otherwise" not in printed


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"ema": 5}, "holds no tensors by name"),
        ({"averaged_is_better": torch.ones(2)}, None),
        ({"args": {"crop_pct": torch.ones(2)}}, None),
        ({"arch": 5, "args": 5, "classes": 5}, None),
        ({"arch": "resnet999"}, "is of --arch resnet999, not of --arch resnet50 --pool"),
        ({"args": {"pool": "sum", "config_name": ["x"]}}, "is of --pool sum, not of --arch"),
        ({"classes": [str(number) for number in range(12)]}, "has 10 classes, not 12"),
    ],
)
def test_hand_made_files_are_one_line(tmp_path, content, words):
    path = saved(tmp_path / "f.pth", **{"state_dict": TinyNetwork(10).state_dict()} | content)
    options = (*DIGITS, "--out-dir", tmp_path, "--evaluate", "--resume", path)
    if words is None:
        assert "top-1 error" in output_here(*options)
    else:
        assert words in error_here(*options)


@pytest.mark.slow
def test_two_processes_write_what_one_does(tmp_path):
    model = create_model("resnet18", "skip", num_classes=10)
    path = saved(tmp_path / "weights.pth", state_dict=model.state_dict(), arch="resnet18")
    options = (*DIGITS, "--pool", "skip", "--evaluate", "--weights", path, "--out-dir")
    output_here(*options, tmp_path / "one")
    several = ("--multiprocessing-distributed", "--nproc", 2, "--dist-url", free_dist_url())
    output_of_command(*options, tmp_path / "two", *several)
    for name in ("evaluation_classes.csv", "confusion.csv", "confused_pairs.csv"):
        table = (tmp_path / "one" / name).read_text()
        assert (tmp_path / "two" / name).read_text() == table
    images = [int(row[1]) for row in read_csv(tmp_path / "two" / "evaluation_classes.csv")[1:]]
    assert sum(images) == 32
