"""What the study's networks learn: images that are moved, and the canvas."""

import gzip

import numpy as np
import torch

from experiments.pooling_study import tasks
from experiments.pooling_study.tasks import Images
from tests.experiments.pooling_study.images import random_images
from tests.training.images.test_fashion_mnist import idx_bytes, write_files


def test_cut_moves_and_mirrors_each_image():
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    images[:, 0, 3, 4] = 255  # 1 down and 2 right within the 4 × 4 in the middle
    found = Images(images, torch.zeros(3), margin=2).cut(
        torch.tensor([2, 0, 1]),
        down=torch.tensor([0, 2, -1]),
        right=torch.tensor([0, -2, 1]),
        mirrored=torch.tensor([False, False, True]),
    )
    assert found.shape == (3, 1, 4, 4)
    places = [tuple(each[0].nonzero().tolist()) for each in found > 0]
    # The third is moved to (0, 3), and then mirrored.
    assert places == [([1, 2],), ([3, 0],), ([0, 0],)]
    assert (found.min(), found.max()) == (-1, 1)


def test_every_is_spread_evenly():
    images = random_images(10)
    assert images.every(3).targets.tolist() == [0, 3, 6]
    assert len(images.every(100)) == 10


def test_canvas_has_its_image_whole_in_the_middle_over_noise_and_fragments():
    images = np.full((4, 28, 28), 255, np.uint8)
    canvases = tasks.clutter(images, 64, 8, np.random.default_rng(0))
    assert canvases.shape == (4, 80, 80)
    corners = set()
    for canvas in canvases:
        whole = np.lib.stride_tricks.sliding_window_view(canvas[8:-8, 8:-8], (28, 28))
        (corner,) = np.argwhere((whole == 255).all((2, 3)))[:1]
        corners.add(tuple(corner))
        light = (canvas == 255).sum()
        assert 28 * 28 < light <= 28 * 28 + 8 * 12 * 12
        assert canvas[canvas < 255].max() < tasks.NOISE
    assert len(corners) == 4


def test_lighter_pixel_is_seen_where_things_overlap():
    dark = tasks.clutter(np.zeros((2, 28, 28), np.uint8), 64, 8, np.random.default_rng(0))
    noise = np.random.default_rng(0).integers(0, tasks.NOISE, (2, 80, 80), dtype=np.uint8)
    assert np.array_equal(dark, noise)


def test_tasks_are_the_same_every_time_and_hold_all_images(tmp_path):
    write_files(tmp_path)
    for name, margins in (("fashion", (2, 8)), ("canvas", (2, 8))):
        found, again = (tasks.TASKS[name](str(tmp_path)) for _ in range(2))
        assert torch.equal(found.train.images, again.train.images)
        assert torch.equal(found.test.images, again.test.images)
        assert (found.train.margin, found.test.margin) == margins
        assert found.train.size == found.test.size == {"fashion": 28, "canvas": 64}[name]


def test_canvas_to_test_on_is_another_one(tmp_path):
    """Where the images are the same, and black."""
    write_files(tmp_path, train=6, val=6)
    black = gzip.compress(idx_bytes(np.zeros((6, 28, 28))))
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(black)
    task = tasks.cluttered_canvas(str(tmp_path))
    learned, scored = task.train.images[..., 2:-2, 2:-2], task.test.images[..., 8:-8, 8:-8]
    assert learned.shape == scored.shape
    assert not torch.equal(learned, scored)
