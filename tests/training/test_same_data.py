"""Machines with images of their own: those of each must be the same."""

import pytest
import torch

from tests.support.gloo_group import gloo_group
from tests.support.image_folders import write_image_folder
from tests.support.warm_python import run_warm
from train_imagenet import parse_settings
from training.data import load_data
from training.errors import UserError
from training.images.datasets import load_image_folders
from training.processes.ranks import Process

MACHINES = 2


def load_on(rank, folder, words, options):
    """Load the images of one of two machines; both are to say ``words``, None for no error."""
    process = Process(rank, MACHINES, torch.device("cpu"))
    settings = parse_settings(["--data", str(folder / f"machine{rank}"), "--cpu", *options])
    with gloo_group(folder, rank, MACHINES):
        if words is None:
            assert len(load_data(settings, process).val) > 0
            return
        with pytest.raises(UserError) as error:
            load_data(settings, process)
        for each in words:
            assert each in str(error.value)


def lack(folder):
    (folder / "train" / "class1" / "1_2.JPEG").unlink()


def lack_validation_image(folder):
    (folder / "val" / "class1" / "1_2.JPEG").unlink()


def name_otherwise(folder):
    (folder / "val" / "class1" / "1_2.JPEG").rename(folder / "val" / "class1" / "1_7.JPEG")


def name_class_otherwise(folder):
    for split in ("train", "val"):
        (folder / split / "class1").rename(folder / split / "one")


@pytest.mark.parametrize(
    ("change", "words", "options"),
    [
        (lack, ("7 training images", " 8 training images"), ()),
        (lack_validation_image, ("5 validation images", " 6 validation images"), ()),
        (name_otherwise, ("validation images whose names",), ("--evaluate", "--resume", "auto")),
        (name_class_otherwise, ("a class 'one'", "a class 'class1'"), ()),
        (lambda folder: None, None, ()),
    ],
)
def test_machines_with_other_images_are_refused(tmp_path, change, words, options):
    for machine in range(MACHINES):
        write_image_folder(tmp_path / f"machine{machine}")
    change(tmp_path / "machine1")
    words = words and ("process 1 (on ", *words, "each machine needs the same images")
    run_warm(load_on, (tmp_path, words, options), MACHINES)


def test_checksum_is_of_names_below_the_folder(tmp_path):
    """And of those that an evaluation has not left out."""
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("0_1.JPEG\n")
    first, second = (
        load_image_folders(str(write_image_folder(tmp_path / name)), exclude, False).val
        for name in ("a", "elsewhere")
    )
    assert first.name(0) != second.name(0)
    assert first.checksum() == second.checksum()
