"""The recipes: the published numbers, the schedules, the augmentation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from train_imagenet import parse_settings
from training.images.datasets import ImageArray
from training.images.lighting import Lighting
from training.loading.batches import SampleKey, collate, training_images, validation_images
from training.recipes import RECIPES


def random_image(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_imagenet_is_the_published_recipe():
    recipe = RECIPES["imagenet"]
    assert recipe.batch_size == 256
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
    published = [0.1] * 30 + [0.01] * 30 + [0.001] * 30 + [0.0001] * 30
    assert recipe.learning_rates() == published


def test_imagenet_validation_resizes_the_short_side_and_crops_the_centre():
    image = random_image(300, 400)
    resized = image.resize((256, 341), Image.Resampling.BILINEAR)
    left, top = 16, round((341 - 224) / 2)
    crop = transforms.functional.to_tensor(resized.crop((left, top, left + 224, top + 224)))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    in_worker, on_device = RECIPES["imagenet"].val_steps()
    result = on_device(in_worker(image)[None], [])[0]
    assert torch.equal(result, (crop - mean) / std)


def test_epochs_and_lr_override_the_recipe():
    options = ["--config-name", "imagenet", "--epochs", "31", "--lr", "0.5"]
    assert parse_settings(options).learning_rates == [0.5] * 30 + [0.05]
    assert len(parse_settings(["--config-name", "digits", "--epochs", "3"]).learning_rates) == 3


def test_lr_schedule_and_warm_up_override_the_recipe():
    options = ["--config-name", "imagenet", "--epochs", "40", "--lr", "0.6"]
    warm = parse_settings([*options, "--warmup-epochs", "5"]).learning_rates
    assert warm[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert warm[5:] == pytest.approx([0.6] * 25 + [0.06] * 10)
    both = [*options, "--warmup-epochs", "5", "--lr-schedule", "cosine"]
    rates = parse_settings(both).learning_rates
    assert rates[:5] == pytest.approx(warm[:5])
    expected = [0.3 * (1 + math.cos(math.pi * k / 35)) for k in range(35)]
    assert rates[5:] == pytest.approx(expected)


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 50])
def test_digits_learning_rate_rises_to_the_peak_and_falls(epochs):
    rates = replace(RECIPES["digits"], epochs=epochs, lr=0.2).learning_rates()
    peak = rates.index(max(rates))
    assert all(0 < rate <= 0.2 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if epochs >= 10:
        assert max(rates) == 0.2
        assert rates[-1] < 0.02


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [(32, 32), (50, 37)])
def test_every_recipe_takes_every_image_size(name, size):
    recipe = RECIPES[name]
    side = {"imagenet": 224, "digits": 32, "fashion-mnist": 32}[name]
    array = ImageArray(np.asarray(random_image(*size))[None], np.zeros(1))
    for images in (training_images(array, recipe, 0), validation_images(array, recipe, 0)):
        batch = collate([images[SampleKey(0, 0)]]).samples
        result = images.batch_transform(batch.image, batch.draws)
        assert result.shape == (1, 3, side, side)
        assert result.dtype == torch.float32


def test_lighting_adds_colour_noise_of_the_published_covariance():
    """Section 4.1 of the AlexNet paper: covariance P diag((std l)^2) P^T, the same all over."""
    torch.manual_seed(0)
    eigenvalues = torch.tensor([0.2175, 0.0188, 0.0045])
    vectors = torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    lighting = Lighting(0.1)
    images = torch.rand(4000, 3, 2, 2)
    noise = lighting(images, torch.stack([lighting.draw() for _ in images])) - images
    torch.testing.assert_close(noise, noise[:, :, :1, :1].expand_as(noise), atol=1e-6, rtol=0)
    expected = vectors @ torch.diag((0.1 * eigenvalues) ** 2) @ vectors.T
    measured = noise[:, :, 0, 0].T.cov()
    torch.testing.assert_close(measured, expected, rtol=0.1, atol=1e-6)
    assert noise.mean().abs() < 1e-3
