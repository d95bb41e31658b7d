"""Augmentation policies: torchvision's and timm's, with all randomness from PyTorch's generator."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import InterpolationMode, v2

from tests.support.command_line import error_here
from training.errors import UserError
from training.images.datasets import ImageArray
from training.images.policies import rand_augment
from training.loading.samples import SampleKey, training_images
from training.recipes import RECIPES

OF_A2 = "rand-m7-mstd0.5-inc1"
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)


def policy(setting):
    return rand_augment(setting, 40, mean=(0.5,) * 3, interpolation=InterpolationMode.BICUBIC)


def results(step, seeds=range(12)):
    images = []
    for seed in seeds:
        torch.manual_seed(seed)
        images.append(np.asarray(step(Image.fromarray(PIXELS))))
    return images


def assert_same(actual, expected):
    assert all(map(np.array_equal, actual, expected))


def test_number_is_the_magnitude_of_torchvision():
    expected = v2.RandAugment(magnitude=20, interpolation=InterpolationMode.BICUBIC)
    assert_same(results(policy(20)), results(expected))


def test_configuration_is_timm_s():
    """From a seed that PyTorch draws."""
    parameters = {
        "translate_const": 18,
        "img_mean": (128, 128, 128),
        "interpolation": Image.Resampling.BICUBIC,
    }
    of_timm = rand_augment_transform(OF_A2, parameters)

    def expected(image):
        seed = int(torch.randint(2**32, ()))
        random.seed(seed)
        np.random.seed(seed)
        return of_timm(image)

    assert_same(results(policy(OF_A2)), results(expected))


def test_timm_follows_pytorch_and_leaves_the_other_generators_alone():
    step = policy(OF_A2)
    random.seed(1), np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].copy()
    first = results(step)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    random.seed(2), np.random.seed(2)
    assert_same(results(step), first)
    assert len({image.tobytes() for image in first}) > 6


def test_unknown_configuration_is_refused():
    with pytest.raises(UserError, match="timm knows no such configuration"):
        policy("rand-q7")


def test_one_bin_is_refused():
    """torchvision divides by the number of bins less one."""
    message = error_here("--trivial-augment", 1, "--cpu")
    assert "--trivial-augment: must be a whole number from 2 on, or 0, got '1'" in message


@pytest.mark.parametrize("setting", ["rand-m10-inc1", "rand-m0", "rand-m20-mmax20-inc1"])
def test_timm_at_either_end_of_its_magnitudes(setting):
    """Of the pixels' bits, Posterize would keep none, or less."""
    step = policy(setting)
    names = [operation.name for operation in step.policy.ops]
    (number,) = [number for number, name in enumerate(names) if name.startswith("Posterize")]
    operation = step.policy.ops[number]
    operation.prob = 1.0
    colours = np.asarray(operation(Image.fromarray(PIXELS)))
    assert set(np.unique(colours)) == {0, 128}


@pytest.mark.parametrize("name", ["imagenet", "digits", "fashion-mnist"])
@pytest.mark.parametrize("options", [{"rand_augment": 25}, {"trivial_augment": 31}])
def test_every_recipe_takes_a_policy(name, options):
    array = ImageArray(PIXELS[None], np.zeros(1))
    keys = [SampleKey(epoch, 0) for epoch in range(8)]
    plain, augmented = (
        [training_images(array, recipe, 0)[key].image for key in keys]
        for recipe in (RECIPES[name], replace(RECIPES[name], **options))
    )
    assert [image.shape for image in plain] == [image.shape for image in augmented]
    assert sum(not torch.equal(*pair) for pair in zip(plain, augmented, strict=True)) > 4


def test_policy_follows_fast_decoding():
    recipe = replace(RECIPES["imagenet"], decode="fast", rand_augment=9)
    image = training_images(ImageArray(PIXELS[None], np.zeros(1)), recipe, 0)[SampleKey(0, 0)].image
    assert image.shape == (3, 224, 224)
    assert image.dtype == torch.uint8
