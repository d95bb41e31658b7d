"""Which Parquet files are a split's: told by their names alone, without the package datasets."""

import re

import pytest

from training.errors import UserError
from training.images.huggingface import parquet_files


def write(root, names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


TRAIN, VAL = "train-00000-of-00001.parquet", "validation.parquet"


@pytest.mark.parametrize(
    ("others", "train"),
    [
        (("a/test.parquet", "b/test.parquet"), True),
        (("a/train.parquet", "b/train.parquet", "train_small.parquet"), False),
        (("test_a.parquet", "trainer.parquet", "val_a.parquet", "small/train_a.parquet"), True),
    ],
)
def test_files_of_splits_that_are_not_read_are_of_no_influence(tmp_path, others, train):
    write(tmp_path, (TRAIN, VAL, *others))
    expected = {"validation": [tmp_path / VAL]}
    if train:
        expected = {"train": [tmp_path / TRAIN], **expected}
    found = parquet_files(tmp_path, train)
    assert found == expected
    assert list(found)[-1] == "validation"


def test_split_that_is_read_lies_in_one_folder(tmp_path):
    write(tmp_path, (VAL, "a/train.parquet", "b/train.parquet"))
    with pytest.raises(UserError, match=r"split train lie in several folders \(a, b\)"):
        parquet_files(tmp_path, True)


@pytest.mark.parametrize(
    "name",
    [
        *("train-part-0.parquet", "train_a.parquet", "train_small-00000-of-00001.parquet"),
        *("train.old.parquet", "validation_a.parquet"),
    ],
)
def test_file_that_may_be_a_part_of_a_split_is_refused(tmp_path, name):
    """Or the part would be missed, or another data set be taken for one."""
    write(tmp_path, (TRAIN, VAL, name))
    split = re.match("[a-z]+", name)[0]
    message = rf"{name} may be a part of the split {split} .*{split}-00000-of-00002\.parquet"
    with pytest.raises(UserError, match=message):
        parquet_files(tmp_path, True)
    (tmp_path / name).rename(tmp_path / f"{split}-1.parquet")
    assert tmp_path / f"{split}-1.parquet" in parquet_files(tmp_path, True)[split]


def test_files_without_a_split_are_named_where_one_is_missing(tmp_path):
    write(tmp_path, ("train-part-0.parquet", VAL))
    message = r"has the splits validation; .* no split's: train-part-0\.parquet"
    with pytest.raises(UserError, match=message):
        parquet_files(tmp_path, True)
