"""Classes are matched by their names, or refused: nothing is trained or judged under wrong ones."""

import json
import shutil

import pytest
import torch

from tests.support.command_line import error_here, output_here
from tests.support.image_folders import write_image_folder
from tests.support.tiny_network import create_tiny_network
from tests.training.checkpoints.test_resuming import assert_same_bits
from train_imagenet import parse_settings
from training.class_names import check_classes, with_classes_of
from training.command import match_classes
from training.errors import UserError
from training.images.datasets import Data, ImageFiles, load_image_folders, relabelled
from training.processes.ranks import Process
from training.write_shards import write_split

RUN = (
    *("--dataset", "imagenet", "--config-name", "digits", "--arch", "resnet18", "--pool", "skip"),
    *("--cpu", "--workers", 0, "--batch-size", 4, "--seed", 5, "--epochs", 1),
)


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of images of class0, class1 and class2, and the checkpoint of a run on them."""
    root = tmp_path_factory.mktemp("trained")
    data = write_image_folder(root / "data", train=4, val=2, classes=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        output_here(*RUN, "--data", data, "--out-dir", root / "out")
    return data, root / "out" / "checkpoint-epoch1.pth.tar"


def test_names_decide_and_not_their_order():
    for of_data, numbers in (
        (["cat", "dog", "owl"], [0, 1, 2]),
        (["owl", "cat", "dog"], [2, 0, 1]),
        (["dog"], [1]),
    ):
        assert check_classes("here", ["cat", "dog", "owl"], of_data) == numbers
    with pytest.raises(UserError, match="cat, dog, owl; not dog, cat"):
        check_classes("here", ["cat", "dog", "owl"], ["dog", "cat"], subset=False)
    with pytest.raises(UserError, match=r"here: .* cat, dog; not Dog, cat"):
        check_classes("here", ["cat", "dog"], ["Dog", "cat"])


def test_long_lists_tell_what_only_one_of_them_has():
    names = [f"n{number:04d}" for number in range(1000)]
    with pytest.raises(UserError) as raised:
        check_classes("here", names, [*names[8:], "stranger"])
    message = str(raised.value)
    assert "of its 1000, 8 (n0000, n0001, n0002, n0003, n0004, n0005, …) are not in the" in message
    assert "of the data's 993, 1 (stranger) are not in the checkpoint" in message
    assert len(message) < 400


def test_classes_without_names_are_those_of_their_numbers():
    images = ImageFiles([("a", 0), ("b", 1)])
    data = Data(None, images, ("0", "1"), classes_have_names=False)
    for of_checkpoint, subset, expected in (
        (("cat", "dog"), False, ("cat", "dog")),
        (("cat", "dog", "owl"), True, ("cat", "dog", "owl")),
        (("cat", "dog", "owl"), False, ("0", "1")),
        (None, True, ("0", "1")),
    ):
        matched = with_classes_of(data, "here", of_checkpoint, subset)
        assert matched.classes == expected
        assert matched.val is images


def test_goes_on_with_classes_without_names(capsys):
    """Nothing was matched by names that are none."""
    data = Data(None, ImageFiles([("a", 0), ("b", 1)]), ("0", "1"), classes_have_names=False)
    settings = parse_settings(["--resume", "file"])
    process = Process(rank=0, world_size=1, device=torch.device("cpu"))
    assert match_classes(data, ("cat", "dog"), settings, process).classes == ("cat", "dog")
    assert capsys.readouterr().out == (
        "--resume file: the data's classes have no names: taken in their order, unchecked\n"
    )


def shards_with_classes(data, folder, order):
    """Write shards of the images of ``data`` whose class i is the folders' number ``order[i]``."""
    found = load_image_folders(str(data), None, True)
    numbers = [order.index(number) for number in range(len(order))]
    named = relabelled(found, numbers, tuple(found.classes[number] for number in order))
    for split, images in (("train", named.train), ("val", named.val)):
        indices = list(range(len(images)))
        write_split(images, indices, named.classes, folder=folder, split=split, samples=100)
    return ("--data", f"{folder}/train-0000.tar", "--val-data", f"{folder}/val-0000.tar")


def scores(out):
    content = json.loads((out / "evaluation.json").read_text())
    return [content[name] for name in ("top1_error", "top5_error", "loss", "images")]


def evaluated(checkpoint, out, *data):
    printed = output_here(*RUN, *data, "--evaluate", "--resume", checkpoint, "--out-dir", out)
    return printed, scores(out)


def test_evaluation_of_classes_in_another_order(trained, tmp_path):
    data, checkpoint = trained
    expected = evaluated(checkpoint, tmp_path, "--data", data)[1]
    shards = shards_with_classes(data, tmp_path / "shards", order=[2, 0, 1])
    printed, found = evaluated(checkpoint, tmp_path, *shards)
    assert "in another order than the checkpoint's: matched by their names" in printed
    assert found == pytest.approx(expected)


def test_training_goes_on_with_classes_in_another_order(trained, tmp_path):
    """The same bits as with them in order, and the checkpoint keeps its own order."""
    data, checkpoint = trained
    ends = []
    for order in ([0, 1, 2], [1, 2, 0]):
        folder = tmp_path / str(order)
        shards = shards_with_classes(data, folder / "shards", order)
        resume = ("--resume", checkpoint, "--epochs", 2, "--out-dir", folder / "out")
        output_here(*RUN, *shards, *resume)
        ends.append(torch.load(folder / "out" / "checkpoint-epoch2.pth.tar", weights_only=True))
    for end in ends:
        assert end["classes"] == ["class0", "class1", "class2"]
    assert_same_bits(ends[0]["state_dict"], ends[1]["state_dict"])
    assert ends[0]["stats"]["test_loss"] == ends[1]["stats"]["test_loss"]


def with_val_of(data, folder, *classes):
    """Return a folder that has only val/, of some of the classes."""
    for name in classes:
        shutil.copytree(data / "val" / name, folder / "val" / name)
    return folder


def test_validation_set_of_some_classes(trained, tmp_path):
    """Alone, or beside training images of all: each image is judged among all outputs."""
    data, checkpoint = trained
    whole = evaluated(checkpoint, tmp_path, "--data", data)[1]
    parts = []
    for name in ("class0", "class1", "class2"):
        some = with_val_of(data, tmp_path / name, name)
        printed, found = evaluated(checkpoint, tmp_path, "--data", some)
        assert "1 of the checkpoint's 3, matched by their names" in printed
        parts.append(found)
    assert [sum(values) / 3 for values in zip(*parts, strict=True)][:3] == pytest.approx(whole[:3])
    assert len({tuple(part) for part in parts}) == 3
    shutil.copytree(data / "train", tmp_path / "class1" / "train")
    assert evaluated(checkpoint, tmp_path, "--data", tmp_path / "class1")[1] == parts[1]


def renamed(data, folder, **names):
    shutil.copytree(data, folder)
    for split in ("train", "val"):
        for old, new in names.items():
            (folder / split / old).rename(folder / split / new)
    return folder


@pytest.mark.parametrize("what", [("--epochs", 2), ("--evaluate",)])
def test_other_names_are_refused(trained, tmp_path, what):
    data, checkpoint = trained
    other = renamed(data, tmp_path / "other", class1="Class1")
    options = (*RUN, *what, "--data", other, "--out-dir", tmp_path / "out")
    message = error_here(*options, "--resume", checkpoint)
    assert f"--resume {checkpoint}: was trained on other classes" in message
    assert "class0, class1, class2; not Class1, class0, class2" in message
    assert not (tmp_path / "out").exists()


def test_training_on_some_classes_has_to_be_asked_for(trained, tmp_path):
    data, checkpoint = trained
    some = shutil.copytree(data, tmp_path / "some")
    for split in ("train", "val"):
        shutil.rmtree(some / split / "class0")
    options = (*RUN, "--epochs", 2, "--data", some, "--resume", checkpoint)
    message = error_here(*options, "--out-dir", tmp_path / "out")
    assert "class0, class1, class2; not class1, class2" in message
    printed = output_here(*options, "--num-classes", 3, "--out-dir", tmp_path / "out")
    assert "2 of the checkpoint's 3" in printed


def test_more_outputs_than_classes(trained, tmp_path):
    data, out = trained[0], tmp_path / "out"
    options = (*RUN, "--data", data, "--num-classes", 5, "--out-dir", out)
    output_here(*options)
    output_here(*options, "--epochs", 2, "--resume", "auto")
    content = torch.load(out / "checkpoint-epoch2.pth.tar", weights_only=True)
    assert content["classes"] == ["class0", "class1", "class2"]
    assert len(content["state_dict"]["fc.bias"]) == 5
    evaluated(out / "checkpoint-epoch2.pth.tar", tmp_path, "--data", data, "--num-classes", 5)


def test_checkpoint_without_names_goes_on_as_ever(trained, tmp_path):
    data, checkpoint = trained
    content = torch.load(checkpoint, weights_only=True)
    del content["classes"]
    nameless = tmp_path / "nameless.pth.tar"
    torch.save(content, nameless)
    other = renamed(data, tmp_path / "other", class1="klass1")
    printed = output_here(
        *(*RUN, "--epochs", 2, "--data", other, "--resume", nameless),
        *("--out-dir", tmp_path / "out"),
    )
    assert f"--resume {nameless}: the file has no names of classes: taken in" in printed
    content = torch.load(tmp_path / "out" / "checkpoint-epoch2.pth.tar", weights_only=True)
    assert content["classes"] == ["class0", "class2", "klass1"]


def test_numbers_as_names_keep_the_order_of_text(tmp_path):
    folder = write_image_folder(tmp_path, train=1, val=1, classes=4)
    for split in ("train", "val"):
        for label, name in enumerate(("0", "1", "10", "2")):
            (folder / split / f"class{label}").rename(folder / split / name)
    data = load_image_folders(str(folder), None, True)
    assert data.classes == ("0", "1", "10", "2")
    for images in (data.train, data.val):
        assert [images.target(index) for index in range(4)] == [0, 1, 2, 3]
        assert images.name(2).endswith("2_0.JPEG")


def test_hidden_folders_are_no_classes(tmp_path):
    """Nor are copies in a class's own one more of its images."""
    folder = write_image_folder(tmp_path, train=1, val=1, classes=2)
    for split in ("train", "val"):
        for where in (folder / split, folder / split / "class0"):
            shutil.copytree(folder / split / "class1", where / ".ipynb_checkpoints")
    data = load_image_folders(str(folder), None, True)
    assert data.classes == ("class0", "class1")
    assert len(data.train) == len(data.val) == 2
    hidden_within = folder / "train" / "class1" / ".ipynb_checkpoints"
    shutil.copytree(folder / "train" / "class0", hidden_within)
    (folder / "train" / "class1" / "._1_0.JPEG").write_bytes(b"of macOS")
    assert len(load_image_folders(str(folder), None, True).train) == 2
    shutil.rmtree(folder / "train")
    assert load_image_folders(str(folder), None, False).classes == ("class0", "class1")


def test_empty_class_is_named(tmp_path):
    folder = write_image_folder(tmp_path, train=1, val=1, classes=2)
    (folder / "val" / "class1" / "1_0.JPEG").unlink()
    with pytest.raises(UserError, match="val: holds no images of the classes class1"):
        load_image_folders(str(folder), None, True)
    (folder / "val" / "class1").rmdir()
    assert len(load_image_folders(str(folder), None, True).val) == 1
    (folder / "train" / "bare").mkdir()
    with pytest.raises(UserError, match="train: holds no images of the classes bare"):
        load_image_folders(str(folder), None, True)
