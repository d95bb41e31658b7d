"""``python -m training.predict`` against the network and the images' preparation written out."""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch.optim.swa_utils import AveragedModel

from models import create_model
from tests.support.image_folders import write_image_folder
from tests.support.paths import REPOSITORY
from training.images.datasets import load_image_folders
from training.predict.__main__ import main
from training.predict.formats import CSV_COLUMNS

CLASSES = [f"class {letter}" for letter in "abcdefg"]
STATS = ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")


def run(*options):
    """Return the exit code, what was printed, and the lines of the standard error."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(option) for option in options])
    return code, out.getvalue(), err.getvalue().splitlines()


def succeeded(*options):
    code, out, err = run(*options)
    assert (code, err) == (0, [])
    return out


def network_of(classes):
    """With logits that depend on the image."""
    model = create_model("resnet18", "skip", classes).eval()
    with torch.no_grad():
        model.fc.weight *= 20
    return model


def save(path, model, **content):
    whole = {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": model.state_dict(),
        "stats": {name: [1.0] for name in STATS},
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1).state_dict(),
        "args": {"pool": "skip", "config_name": "digits"},
    }
    torch.save(whole | content, path)
    return path


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    return network_of(7)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_image_folder(tmp_path_factory.mktemp("images"), train=1, val=2)


@pytest.fixture
def checkpoint(tmp_path, model):
    return save(tmp_path / "checkpoint.pth.tar", model, classes=CLASSES)


def probabilities(model, path):
    """Of a network whose recipe is the digits'."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    pixels = torchvision.transforms.functional.to_tensor(small)
    with torch.inference_mode():
        return model((pixels[None] - 0.5) / 0.5)[0].softmax(0)


def test_classes_and_probabilities(model, images, checkpoint, tmp_path):
    """Of a folder's images in their order, however many go through the network together."""
    files = sorted((images / "val").rglob("*.JPEG"))
    out = succeeded(checkpoint, images / "val", "--cpu", "--batch-size", 3, "--workers", 0)
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["image", "rank", "class", "probability"]
    assert [row[0] for row in rows] == [str(file) for file in files for _ in range(5)]
    for file in files:
        own = [row[1:] for row in rows if row[0] == str(file)]
        expected = probabilities(model, file).sort(descending=True)
        assert [rank for rank, *_ in own] == ["1", "2", "3", "4", "5"]
        assert [name for _, name, _ in own] == [CLASSES[one] for one in expected.indices[:5]]
        shares = torch.tensor([float(share) for *_, share in own])
        torch.testing.assert_close(shares, expected.values[:5], rtol=1e-4, atol=1e-6)
    options = ("--cpu", "--batch-size", 3, "--out", tmp_path / "predictions.csv")
    assert succeeded(checkpoint, *files, *options) == ""
    assert (tmp_path / "predictions.csv").read_text() == out


def test_json_without_names(model, images, tmp_path):
    """Classes are numbers; no more are named than there are."""
    path = save(tmp_path / "checkpoint.pth.tar", model)
    file = next((images / "val").rglob("*.JPEG"))
    (one,) = json.loads(succeeded(path, file, "--format", "json", "--top", 9, "--cpu"))
    expected = probabilities(model, file)
    assert one["image"] == str(file)
    assert sorted(each["class"] for each in one["predictions"]) == list("0123456")
    for each in one["predictions"]:
        assert each["probability"] == pytest.approx(expected[int(each["class"])].item(), rel=1e-4)
    assert sum(each["probability"] for each in one["predictions"]) == pytest.approx(1, abs=1e-4)


def test_published_checkpoint_takes_images_as_imagenets(model, tmp_path):
    args = argparse.Namespace(pool="skip")
    tensors = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    path = save(tmp_path / "published.pth.tar", model, args=args, state_dict=tensors)
    noise = torch.randint(0, 256, (300, 260, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(tmp_path / "image.png")
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        expected = model(transform(Image.open(tmp_path / "image.png"))[None])[0].softmax(0).max(0)
    out = succeeded(path, tmp_path / "image.png", "--top", 1, "--cpu")
    ((_, _, name, share),) = list(csv.reader(io.StringIO(out)))[1:]
    assert name == str(expected.indices.item())
    assert float(share) == pytest.approx(expected.values.item(), rel=1e-4)


def test_averaged_weights_are_taken_where_they_were_better(model, images, tmp_path):
    torch.manual_seed(3)
    other = network_of(7)
    path = save(tmp_path / "checkpoint.pth.tar", other, ema=AveragedModel(model).state_dict())
    file = next((images / "val").rglob("*.JPEG"))
    (one,) = json.loads(succeeded(path, file, "--format", "json", "--top", 1, "--cpu"))
    expected = probabilities(model, file).max().item()
    assert one["predictions"][0]["probability"] == pytest.approx(expected, rel=1e-4)


def test_images_that_cannot_be_read(images, checkpoint, tmp_path):
    """They are named, the others predicted, also where a batch has no other."""
    folder = shutil.copytree(images / "val" / "class0", tmp_path / "images")
    (folder / "0_0_bad.jpg").write_bytes(b"no image")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "bad.PNG").write_bytes(b"")
    (folder / "notes.txt").write_text("no image either, and not taken for one")
    code, out, err = run(checkpoint, folder, "--cpu", "--batch-size", 1)
    assert code == 2
    assert [line.partition(":")[0] for line in err[:-1]] == [
        str(folder / "0_0_bad.jpg"),
        str(folder / "deeper" / "bad.PNG"),
    ]
    assert "error: 2 of 4 images cannot be read" in err[-1]
    named = {row[0] for row in list(csv.reader(io.StringIO(out)))[1:]}
    assert named == {str(path) for path in folder.glob("*.JPEG")}


def test_folder_has_the_images_that_training_finds(images, checkpoint, tmp_path):
    """Classes that are linked, and none of what a point hides, but for the folder itself."""
    folder = tmp_path / ".hidden"
    (folder / "val").mkdir(parents=True)
    (folder / "val" / "linked").symlink_to(images / "val" / "class0")
    shutil.copytree(images / "val" / "class1", folder / "val" / "class1")
    shutil.copytree(images / "val" / "class0", folder / "val" / "class1" / ".ipynb_checkpoints")
    (folder / "val" / "class1" / "._1_0.JPEG").write_bytes(b"no image")
    (folder / "val" / "class1" / "folder.jpg").mkdir()
    out = succeeded(checkpoint, folder / "val", "--cpu", "--top", 1, "--workers", 0)
    named = [row[0] for row in list(csv.reader(io.StringIO(out)))[1:]]
    (folder / "train").symlink_to(folder / "val")
    found = load_image_folders(str(folder), None, train=False).val
    assert named == [found.name(index) for index in range(len(found))]
    assert [str(Path(name).relative_to(folder / "val")) for name in named] == [
        *("class1/1_0.JPEG", "class1/1_1.JPEG", "linked/0_0.JPEG", "linked/0_1.JPEG"),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("nowhere.pth", "."), ("CHECKPOINT nowhere.pth: no such file",)),
        (("TENSOR", "."), ("CHECKPOINT", "tensor.pth: is no checkpoint", "dict, not Tensor")),
        (("CHECKPOINT", "nowhere"), ("IMAGES nowhere: no such file or folder",)),
        (("CHECKPOINT", "EMPTY"), ("holds no images", ".jpg")),
        (("CHECKPOINT", "EMPTY", "--cpu", "--gpu", 0), ("--gpu 0 and --cpu",)),
        (("CHECKPOINT", "EMPTY", "--top", 0), ("--top",)),
        (("CHECKPOINT",), ("IMAGES",)),
    ],
)
def test_errors_in_one_line(checkpoint, tmp_path, options, words):
    (tmp_path / "empty").mkdir()
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    places = {
        "CHECKPOINT": checkpoint,
        "EMPTY": tmp_path / "empty",
        "TENSOR": tmp_path / "tensor.pth",
    }
    code, out, err = run(*(places.get(option, option) for option in options))
    assert (code, out) == (2, "")
    (line,) = err
    assert line.startswith("training.predict: error: ")
    assert all(word in line for word in words), line


def test_help_waits_for_no_large_package():
    program = (
        "import sys\n"
        "from training.predict.__main__ import make_parser\n"
        "make_parser().print_help()\n"
        "print(sorted({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert "--top N" in done.stdout
    assert all(column in done.stdout for column in CSV_COLUMNS)
    assert done.stdout.endswith("\n[]\n")
