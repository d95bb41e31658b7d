"""Fashion-MNIST from small IDX files that a test writes."""

import gzip
import re
import struct

import numpy as np
import pytest
import torch

from tests.support.command_line import error_here, output_here
from training.errors import UserError
from training.images.datasets import DATASETS
from training.images.idx import read_idx
from training.recipes import RECIPES

load = DATASETS["fashion-mnist"].load


def idx_bytes(array):
    """The format by its definition: magic number, sizes, elements."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_files(folder, train=20, val=6, compress=gzip.compress, end=".gz"):
    """Write the four files; return each split's images and labels."""
    generator = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", train), ("t10k", val)):
        images = generator.integers(0, 256, (count, 28, 28))
        targets = np.arange(count) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", targets)):
            path = folder / f"{name}-{kind}-ubyte{end}"
            path.write_bytes(compress(idx_bytes(array)))
        splits[name] = images, targets
    return splits


@pytest.mark.parametrize(("compress", "end"), [(gzip.compress, ".gz"), (bytes, "")])
def test_images_and_labels(tmp_path, compress, end):
    splits = write_files(tmp_path, compress=compress, end=end)
    data = load(str(tmp_path), None, True)
    assert data.classes[0] == "T-shirt/top"
    assert data.classes[9] == "Ankle boot"
    for images, (pixels, targets) in ((data.train, splits["train"]), (data.val, splits["t10k"])):
        assert [images.target(index) for index in range(len(images))] == targets.tolist()
        image = images.image(3)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels[3][..., None].repeat(3, axis=2))
    assert load(str(tmp_path), None, False).train is None


def test_validation_keeps_each_pixel_in_a_black_margin(tmp_path):
    pixels, _ = write_files(tmp_path)["t10k"]
    image = load(str(tmp_path), None, False).val.image(0)
    in_worker, on_device = RECIPES["fashion-mnist"].val_steps()
    result = (1 + on_device(in_worker(image)[None], [])[0]) * 255 / 2
    expected = torch.nn.functional.pad(torch.from_numpy(pixels[0]).float(), (2, 2, 2, 2))
    torch.testing.assert_close(result, expected.expand(3, 32, 32), atol=1e-3, rtol=0)


WHOLE = idx_bytes(np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no IDX file"),
        (b"text, not numbers", "is no IDX file"),
        (bytes([0, 0, 0x0D]) + WHOLE[3:], "is no IDX file of bytes"),
        (WHOLE[:10], "is no IDX file"),
        (WHOLE[:-1], "says 2x3 bytes and holds 5"),
        (WHOLE + b"1", "says 2x3 bytes and holds 7"),
        (struct.pack(">HBBii", 0, 8, 2, -1, -6) + WHOLE[12:], "says -1x-6"),
        (gzip.compress(WHOLE, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(WHOLE, mtime=0)[:12] + b"~~~~~~~~~~~~", "cannot be read"),
    ],
)
def test_damaged_idx_file_is_named(tmp_path, content, words):
    path = tmp_path / "images"
    path.write_bytes(WHOLE)
    assert np.array_equal(read_idx(path), [[0, 1, 2], [3, 4, 5]])
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: .*{words}"):
        read_idx(path)


def test_files_that_do_not_go_together_are_refused(tmp_path):
    write_files(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    for content, words in (
        (idx_bytes(np.arange(19) % 10), r"\(20, 28, 28\) and labels of shape \(19,\)"),
        (idx_bytes(np.arange(20)), "has a label 19"),
    ):
        labels.write_bytes(content)
        with pytest.raises(UserError, match=words):
            load(str(tmp_path), None, True)
    labels.unlink()
    with pytest.raises(UserError, match=r"holds no train-labels-idx1-ubyte nor .*\.gz"):
        load(str(tmp_path), None, True)
    with pytest.raises(UserError, match=r"--exclude list\.txt"):
        load(str(tmp_path), "list.txt", False)


def test_command(tmp_path):
    write_files(tmp_path)
    options = ("--dataset", "fashion-mnist", "--arch", "resnet18", "--pool", "skip", "--cpu")
    small = ("--batch-size", 10, "--epochs", 1, "--out-dir", tmp_path / "out")
    printed = output_here(*options, *small, "--data", tmp_path)
    assert "20 training and 6 validation images of 10 classes; recipe fashion-mnist" in printed
    (tmp_path / "empty").mkdir()
    elsewhere = ("--data", tmp_path / "empty", "--out-dir", tmp_path / "other")
    assert "empty: holds no train-images-idx3-ubyte" in error_here(*options, *elsewhere)
