"""MixUp and CutMix: torchvision's, the same for the same seed."""

import pytest
import torch
from torchvision.transforms import v2

from training.images.mixing import Mixing

IMAGES = torch.rand(8, 3, 12, 16, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([3, 1, 4, 1, 5, 0, 2, 5])


@pytest.mark.parametrize(
    ("alphas", "kind"), [((0.4, 0.0), v2.MixUp), ((0.0, 1.0), v2.CutMix)], ids=["mixup", "cutmix"]
)
def test_images_and_targets_are_those_of_torchvision(alphas, kind):
    images, _, soft_targets = Mixing(*alphas, classes=6)(IMAGES, TARGETS, seed=7)
    torch.manual_seed(7)
    order = torch.randperm(8)
    torch.randint(1, ())
    expected = kind(alpha=sum(alphas), num_classes=6)(IMAGES[order], TARGETS[order])
    assert torch.equal(images, expected[0])
    assert torch.equal(soft_targets, expected[1])


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0)])
def test_targets_have_the_shares_of_their_images(alphas):
    """Seen in images of one colour, which is the class: each pixel is of one, or mixed of two."""
    classes = torch.arange(4)
    colours = (classes + 1.0).view(4, 1, 1, 1).expand(4, 3, 10, 10)
    for seed in range(20):
        images, targets, soft_targets = Mixing(*alphas, classes=4)(colours, classes, seed)
        torch.testing.assert_close(soft_targets.sum(1), torch.ones(4))
        expected = soft_targets @ (classes + 1.0)
        torch.testing.assert_close(images.mean((1, 2, 3)), expected)
        largest = soft_targets.max(dim=1).values
        assert torch.equal(soft_targets.gather(1, targets[:, None])[:, 0], largest)
        assert largest.min() >= 0.5


def test_each_batch_has_one_of_both():
    """CutMix leaves pixels as they are, MixUp hardly one."""
    values = set(IMAGES.flatten().tolist())
    kinds = set()
    for seed in range(20):
        images, *_ = Mixing(0.4, 1.0, classes=6)(IMAGES, TARGETS, seed)
        kinds.add(set(images.flatten().tolist()) <= values)
    assert kinds == {True, False}


def test_seed_decides_and_the_random_state_is_left_alone():
    mixing, before = Mixing(0.4, 1.0, classes=6), torch.get_rng_state()
    first, again, other = (mixing(IMAGES, TARGETS, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
