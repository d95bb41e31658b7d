"""The data sets, and the list of images to leave out."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.support.image_folders import write_image_folder
from training.errors import UserError
from training.images.datasets import DATASETS

load_folders = DATASETS["imagenet"].load


def names(images):
    return [Path(images.name(index)).name for index in range(len(images))]


def test_digits_are_split_the_same_way_each_time_and_evenly():
    first, second = (DATASETS["digits"].load("unused", None, True) for _ in range(2))
    assert np.array_equal(first.train.images, second.train.images)
    assert np.array_equal(first.val.targets, second.val.targets)
    assert len(first.train) + len(first.val) == 1797
    assert first.classes == tuple("0123456789")
    share = np.bincount(first.val.targets) / np.bincount(load_digits().target)
    assert np.all(np.abs(share - 0.2) < 0.01)


def test_digits_are_the_right_way_up_in_full_range():
    data = DATASETS["digits"].load("unused", None, True)
    image = np.asarray(data.val.image(0)).astype(float)
    assert image.shape == (32, 32, 3)
    assert image.min() == 0
    assert image.max() > 200
    small = np.asarray(data.val.image(0).resize((8, 8)))[:, :, 0] * (16 / 255)
    same_class = load_digits().images[load_digits().target == data.val.target(0)]
    assert np.abs(same_class - small).mean(axis=(1, 2)).min() < 1


def test_digits_hold_no_image_twice():
    data = DATASETS["digits"].load("unused", None, True)
    train = {image.tobytes() for image in data.train.images}
    assert not train & {image.tobytes() for image in data.val.images}


@pytest.mark.parametrize("val_name", ["val", "val_dir"])
def test_folders(tmp_path, val_name):
    write_image_folder(tmp_path, train=3, val=2, classes=2, val_name=val_name)
    data = load_folders(str(tmp_path), None, True)
    assert data.classes == ("class0", "class1")
    assert names(data.train) == [f"{label}_{k}.JPEG" for label in (0, 1) for k in range(3)]
    assert [data.train.target(index) for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert names(data.val) == [f"{label}_{k}.JPEG" for label in (0, 1) for k in range(2)]
    assert data.val.image(0).mode == "RGB"


def test_validation_classes_keep_the_training_numbers(tmp_path):
    write_image_folder(tmp_path, classes=3)
    for path in (tmp_path / "val" / "class0").iterdir():
        path.unlink()
    (tmp_path / "val" / "class0").rmdir()
    data = load_folders(str(tmp_path), None, True)
    assert {data.val.target(index) for index in range(len(data.val))} == {1, 2}


def test_evaluation_needs_no_training_images(tmp_path):
    write_image_folder(tmp_path, train=0)
    for folder in (tmp_path / "train").iterdir():
        folder.rmdir()
    (tmp_path / "train").rmdir()
    data = load_folders(str(tmp_path), None, False)
    assert data.train is None
    assert data.classes == ("class0", "class1")
    with pytest.raises(UserError, match=r"train: no such directory"):
        load_folders(str(tmp_path), None, True)


def test_the_folder_that_is_missing_is_called_as_in_the_documentation(tmp_path):
    write_image_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"/val: no such directory"):
        load_folders(str(tmp_path), None, True)
    (tmp_path / "elsewhere").rename(tmp_path / "val_dir")
    assert len(load_folders(str(tmp_path), None, True).val) > 0


def test_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such directory"):
        load_folders(str(tmp_path / "nowhere"), None, True)
    write_image_folder(tmp_path)
    (tmp_path / "val" / "stranger").mkdir()
    with pytest.raises(UserError, match="'stranger' is no class of the training images"):
        load_folders(str(tmp_path), None, True)
    (tmp_path / "val" / "stranger").rmdir()
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(UserError, match="classes empty"):
        load_folders(str(tmp_path), None, True)


def ilsvrc_tree(root):
    write_image_folder(root, val=3, classes=2)
    paths = sorted((root / "val").rglob("*.JPEG"))
    for number, path in enumerate(paths, start=1):
        path.rename(path.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
    return root


def test_exclusion_by_number_and_by_name(tmp_path):
    ilsvrc_tree(tmp_path)
    excluded = tmp_path / "blacklist.txt"
    excluded.write_text("2\n\nILSVRC2012_val_00000005.JPEG\n 6 \n1000\n")
    data = load_folders(str(tmp_path), str(excluded), False)
    assert names(data.val) == [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 3, 4)]
    assert [data.val.target(index) for index in range(3)] == [0, 0, 1]


def test_exclusion_that_fits_nothing_is_refused(tmp_path):
    ilsvrc_tree(tmp_path)
    excluded = tmp_path / "blacklist.txt"
    for content, message in (
        ("7\nother.JPEG\n", "none of its 2 entries"),
        ("1\n2\n3\n4\n5\n6\n", "leaves none"),
    ):
        excluded.write_text(content)
        with pytest.raises(UserError, match=message):
            load_folders(str(tmp_path), str(excluded), False)
    with pytest.raises(UserError, match=r"missing\.txt"):
        load_folders(str(tmp_path), str(tmp_path / "missing.txt"), False)
    with pytest.raises(UserError, match="digits"):
        DATASETS["digits"].load("unused", str(excluded), False)
