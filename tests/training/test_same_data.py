"""Machines with images of their own: those of each must be the same."""

import os
from dataclasses import replace

import pytest
import torch

from tests.support.gloo_group import gloo_group
from tests.support.image_folders import write_image_folder
from tests.support.warm_python import run_warm
from train_imagenet import parse_settings
from training import write_shards
from training.data import load_data
from training.errors import UserError
from training.images.datasets import load_image_folders
from training.processes.ranks import Process, gather_objects
from training.same_data import facts_of

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
        (name_class_otherwise, ("classes whose names have the checksum",), ()),
        (lambda folder: None, None, ()),
    ],
)
def test_machines_with_other_images_are_refused(tmp_path, change, words, options):
    for machine in range(MACHINES):
        write_image_folder(tmp_path / f"machine{machine}")
    change(tmp_path / "machine1")
    words = words and ("process 1 (on ", *words, "each machine needs the same images")
    run_warm(load_on, (tmp_path, words, options), MACHINES)


def fail_on(rank, folder, options, text):
    """Find no images, or others, in a working directory of one's own; the error is ``text``."""
    process = Process(rank, MACHINES, torch.device("cpu"))
    os.chdir(folder / f"machine{rank}")
    settings = parse_settings([*options, "--cpu"])
    with gloo_group(folder, rank, MACHINES):
        with pytest.raises(UserError, match=text):
            load_data(settings, process)
        # And the processes are in step.
        assert gather_objects(rank, process) == [0, 1]


@pytest.fixture
def shards(tmp_path):
    """Return the folder of two machines that each have the same two shards."""
    for machine in range(MACHINES):
        images = write_image_folder(tmp_path / f"images{machine}")
        shards = tmp_path / f"machine{machine}"
        assert write_shards.main([str(images), str(shards), "--samples", "3"]) == 0
    return tmp_path


VAL_SHARDS = ("--evaluate", "--resume", "auto", "--val-data", "val-{0000..0001}.tar")


@pytest.mark.parametrize("failing", range(MACHINES))
def test_folder_missing_on_one_machine_is_told_by_all(tmp_path, failing):
    for machine in range(MACHINES):
        (tmp_path / f"machine{machine}").mkdir()
    write_image_folder(tmp_path / f"machine{1 - failing}" / "images")
    text = rf"^process {failing} \(on .*\): --data images"
    run_warm(fail_on, (tmp_path, ("--data", "images"), text), MACHINES)


def test_shard_that_one_process_reads_in_vain_is_told_by_all(shards):
    for machine in range(MACHINES):
        (shards / f"machine{machine}" / "val-0001.tar").write_bytes(b"no archive")
    text = r"^process 1 \(on .*\): --val-data val-.* val-0001.tar cannot be read as a shard"
    run_warm(fail_on, (shards, VAL_SHARDS, text), MACHINES)


def test_shard_that_another_machine_alone_has_is_missed(shards):
    (shards / "machine0" / "val-0001.tar").unlink()  # which process 1 describes
    text = r"^process 0 \(on .*\): val-0001.tar cannot be read .* each machine has all shards"
    run_warm(fail_on, (shards, VAL_SHARDS, text), MACHINES)


def test_shards_of_other_contents_are_refused(shards):
    """Of the same names and numbers of images."""
    target = shards / "machine1" / "val-0001.tar"
    target.write_bytes(target.read_bytes()[:-1] + b"1")  # of the zeros behind the last image
    text = r"process 1 .* validation images whose .* files have the checksum .* the same images"
    run_warm(fail_on, (shards, VAL_SHARDS, text), MACHINES)


def test_class_names_are_not_sent(tmp_path):
    """Of 21,000 classes they are 0.6 MB for each process."""
    data = load_image_folders(str(write_image_folder(tmp_path)), None, True)
    many = replace(data, classes=tuple(f"class{number}" for number in range(1000)))
    assert len(str(facts_of(many))) < 1000


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
