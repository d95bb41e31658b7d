"""Random erasing: torchvision's rectangles, for a whole batch."""

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from training.images.random_erasing import RandomErasing

IMAGES = torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(0)) + 1


def test_rectangles_are_those_of_torchvision():
    erasing, of_torchvision = RandomErasing(1.0, 20), v2.RandomErasing(p=1.0)
    draws, expected = [], []
    for seed, image in enumerate(IMAGES):
        torch.manual_seed(seed)
        draws.append(erasing.draw())
        torch.manual_seed(seed)
        torch.rand(())
        expected.append(functional.erase(image, **of_torchvision.make_params([image])))
    erased = erasing(IMAGES, torch.stack(draws))
    assert torch.equal(erased, torch.stack(expected))
    assert torch.all((erased == 0).flatten(1).any(1))


def test_probability_is_the_share_of_erased_images():
    torch.manual_seed(0)
    for probability in (0.0, 0.25, 1.0):
        draws = torch.stack([RandomErasing(probability, 20).draw() for _ in range(400)])
        assert abs((draws.sum(1) > 0).float().mean() - probability) < 0.07


def test_nothing_is_erased_without_a_rectangle():
    erasing = RandomErasing(0.0, 20)
    assert torch.equal(erasing(IMAGES, torch.stack([erasing.draw() for _ in IMAGES])), IMAGES)
