"""``--data hf:PATH``: a folder of datasets or of Parquet files, without a network."""

import io
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.command_line import error_here, output_here
from tests.support.tiny_network import create_tiny_network
from training.errors import UserError
from training.images.huggingface import load_huggingface
from training.loading.bad_images import BadImage
from training.loading.samples import SampleKey, validation_images
from training.recipes import RECIPES

datasets = pytest.importorskip("datasets", reason="pip install datasets")
parquet = pytest.importorskip("pyarrow.parquet", reason="pip install datasets")

CLASSES = ["dog", "cat"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No network, and a cache of the test's own."""

    connect = socket.socket.connect

    def local_only(this, address):
        assert this.family == socket.AF_UNIX, f"a connection to {address} was tried"
        connect(this, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encoded(split, number):
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (number, len(split), 7)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{number}.png"}


def columns(split, count):
    return {
        "label": [number % 2 for number in range(count)],
        "photo": [encoded(split, number) for number in range(count)],
    }


def splits_of(val="validation"):
    features = datasets.Features(
        {"label": datasets.ClassLabel(names=CLASSES), "photo": datasets.Image()}
    )
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(columns(split, count), features=features)
            for split, count in (("train", 8), (val, 4))
        }
    )


def write_saved(folder):
    splits_of().save_to_disk(str(folder))


def write_parquet(folder):
    folder.mkdir()
    for split, rows in splits_of().items():
        for part in range(2):
            rows.shard(2, part, contiguous=True).to_parquet(
                str(folder / f"{split}-{part:05d}-of-00002.parquet")
            )


def write_older_parquet(folder):
    """As uploads were called once."""
    folder.mkdir()
    for split, rows in splits_of("val").items():
        rows.to_parquet(str(folder / f"{split}-00000-of-00001-0123456789abcdef.parquet"))


def write_parquet_folders(folder):
    for split, rows in splits_of("test").items():
        (folder / split).mkdir(parents=True)
        rows.to_parquet(str(folder / split / "0000.parquet"))


def colours(images):
    return [images.image(index).convert("RGB").getpixel((0, 0)) for index in range(len(images))]


@pytest.mark.parametrize(
    ("write", "val"),
    [
        *((write_saved, "validation"), (write_parquet, "validation"), (write_older_parquet, "val")),
        (write_parquet_folders, "test"),
    ],
)
def test_images_and_classes(tmp_path, write, val):
    write(tmp_path / "data")
    data = load_huggingface(f"hf:{tmp_path / 'data'}", train=True)
    assert data.classes == ("dog", "cat")
    assert data.classes_have_names
    for images, split, count in ((data.train, "train", 8), (data.val, val, 4)):
        assert len(images) == count
        assert colours(images) == [(number, len(split), 7) for number in range(count)]
        assert [images.target(index) for index in range(count)] == [n % 2 for n in range(count)]
        assert images.name(2) == f"hf:{tmp_path / 'data'}, {split}, image 3"
        assert images.targets.dtype == np.int32
    assert load_huggingface(f"hf:{tmp_path / 'data'}", train=False).train is None


@pytest.mark.parametrize("write", [write_parquet, write_parquet_folders])
def test_one_of_several_data_sets_has_to_be_named(tmp_path, write):
    for name in ("full_size", "320px"):
        write(tmp_path / name)
    with pytest.raises(UserError, match=r"split train lie in several folders \(320px"):
        load_huggingface(f"hf:{tmp_path}", train=True)
    assert len(load_huggingface(f"hf:{tmp_path / '320px'}", train=True).train) == 8


@pytest.mark.parametrize("kind", ["numpy", "torch", "arrow", "pandas"])
def test_format_that_was_saved_is_of_no_influence(tmp_path, kind):
    """Not even one that hides the images."""
    splits_of().with_format(kind, columns=["label"]).save_to_disk(str(tmp_path / "data"))
    images = load_huggingface(f"hf:{tmp_path / 'data'}", train=True).train
    assert colours(images) == [(number, 5, 7) for number in range(8)]
    assert [images.target(index) for index in range(8)] == [0, 1] * 4


@pytest.mark.parametrize("name", ["image", "img"])
def test_image_is_the_column_of_several_that_is_called_so(tmp_path, name):
    splits = splits_of()
    for split, rows in splits.items():
        features = datasets.Features({name: datasets.Image()})
        others = {name: [encoded("", 9)] * len(rows)}
        others = datasets.Dataset.from_dict(others, features=features)
        splits[split] = datasets.concatenate_datasets([rows, others], axis=1)
    splits.save_to_disk(str(tmp_path / "data"))
    images = load_huggingface(f"hf:{tmp_path / 'data'}", train=False).val
    assert colours(images) == [(9, 0, 7)] * 4


def test_parquet_of_others(tmp_path):
    """Without what datasets adds to it: a structure for the image, a number for the class."""
    import pyarrow

    for split, count in (("train", 4), ("val", 3)):
        parquet.write_table(
            pyarrow.table(columns(split, count)), str(tmp_path / f"{split}.parquet")
        )
    data = load_huggingface(f"hf:{tmp_path}", train=True)
    assert data.classes == ("0", "1")
    assert not data.classes_have_names
    assert colours(data.val) == [(number, 3, 7) for number in range(3)]


def test_images_lie_in_a_mapped_file(tmp_path):
    """Workers that are handed the images get the file's name, and not its content."""
    write_saved(tmp_path / "data")
    images = load_huggingface(f"hf:{tmp_path / 'data'}", train=True).train
    assert Path(images.rows.cache_files[0]["filename"]).is_file()
    again = pickle.loads(pickle.dumps(images))
    assert colours(again) == colours(images)


def test_row_without_an_image_is_a_bad_one(tmp_path):
    splits = splits_of()
    splits["validation"] = splits["validation"].map(
        lambda row, number: {"photo": None if number == 2 else row["photo"]}, with_indices=True
    )
    splits.save_to_disk(str(tmp_path / "data"))
    data = load_huggingface(f"hf:{tmp_path / 'data'}", train=False)
    prepared = validation_images(data.val, RECIPES["digits"], seed=0)
    bad = prepared[SampleKey(epoch=0, index=2)]
    assert bad == BadImage(data.val.name(2), "there is none in this row")


def test_training_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)
    write_saved(tmp_path / "data")
    run = (
        *("--data", f"hf:{tmp_path / 'data'}", "--config-name", "digits", "--arch", "resnet18"),
        *("--pool", "skip", "--lr-schedule", "step", "--batch-size", 4, "--cpu", "--seed", 2),
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    printed = output_here(*run, "--epochs", 2, "--workers", 2, "--out-dir", whole)
    assert "epoch 2/2: lr" in printed
    output_here(*run, "--epochs", 1, "--workers", 0, "--out-dir", parts)
    output_here(*run, "--epochs", 2, "--workers", 0, "--out-dir", parts, "--resume", "auto")
    one, other = (
        torch.load(folder / "checkpoint-epoch2.pth.tar", weights_only=True)["state_dict"]
        for folder in (whole, parts)
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda splits: splits.pop("validation"), "has the splits train; there must be train"),
        (lambda splits: splits.pop("train"), "there must be train"),
        (lambda splits: _without(splits, "label"), "needs one column of class labels"),
        (lambda splits: _without(splits, "photo"), "needs one column of images"),
        (lambda splits: _unlabelled(splits), "without a class number"),
        (lambda splits: _with_several_labels(splits), "one number an image"),
        (lambda splits: _with_masks(splits), "needs one column of images, or of several one"),
    ],
)
def test_folder_that_does_not_fit_is_refused(tmp_path, change, words):
    splits = splits_of()
    change(splits)
    splits.save_to_disk(str(tmp_path / "data"))
    with pytest.raises(UserError, match=words):
        load_huggingface(f"hf:{tmp_path / 'data'}", train=True)


def _without(splits, column):
    for name, rows in splits.items():
        splits[name] = rows.remove_columns([column])


def _unlabelled(splits):
    rows = splits["validation"].remove_columns(["label"])
    splits["validation"] = rows.add_column("label", [-1] * len(rows))


def _with_several_labels(splits):
    for name, rows in splits.items():
        splits[name] = rows.remove_columns(["label"]).add_column("label", [[0]] * len(rows))


def _with_masks(splits):
    for name, rows in splits.items():
        masks = rows.select_columns(["photo"]).rename_column("photo", "mask")
        splits[name] = datasets.concatenate_datasets([masks, rows], axis=1)


def test_options_that_do_not_go_with_it(tmp_path):
    assert "no such directory" in error_here("--data", f"hf:{tmp_path}/none", "--cpu")
    assert "has the splits (none)" in error_here("--data", f"hf:{tmp_path}", "--cpu")
    (tmp_path / "dataset_dict.json").write_text("no JSON")
    assert "cannot be read" in error_here("--data", f"hf:{tmp_path}", "--cpu")
    message = error_here("--data", f"hf:{tmp_path}", "--val-data", "x.tar", "--cpu")
    assert "--val-data x.tar: does not go with --data hf:" in message
