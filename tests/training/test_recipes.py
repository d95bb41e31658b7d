"""The recipes: the published numbers, the schedules, the augmentation."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models import resnet
from torchvision import transforms

from train_imagenet import parse_settings
from training.checks import check_settings
from training.errors import UserError
from training.images.datasets import ImageArray
from training.images.lighting import Lighting
from training.loading.batches import collate
from training.loading.samples import SampleKey, training_images, validation_images
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


def test_imagenet_a2_has_the_images_of_its_table():
    """Table 2 of "ResNet strikes back", and as timm has the network that it gave."""
    recipe = RECIPES["imagenet-a2"]
    assert (recipe.mixup, recipe.cutmix, recipe.random_erasing) == (0.1, 1.0, 0)
    assert recipe.rand_augment == "rand-m7-mstd0.5-inc1"
    assert recipe.repeated_augmentation > 1
    assert recipe.color_jitter == recipe.lighting == 0
    timm = resnet.default_cfgs["resnet50"].cfgs["a2_in1k"]
    assert (3, recipe.image_size, recipe.image_size) == timm.input_size
    assert (recipe.crop_pct, recipe.interpolation) == (timm.crop_pct, timm.interpolation)
    assert (recipe.mean, recipe.std) == (timm.mean, timm.std)
    assert recipe.resized_to == 235


def prepared(image, *options):
    """Return the pixels of a validation image, in 0 to 255, as the options have it prepared."""
    recipe = parse_settings(["--config-name", *options]).recipe
    in_worker, _ = recipe.val_steps()
    return in_worker(image).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("options", "resized_to", "size", "interpolation"),
    [
        (["imagenet", "--image-size", "64"], 73, 64, "BILINEAR"),
        (["imagenet", "--val-size", "300"], 300, 224, "BILINEAR"),
        (["imagenet", "--image-size", "96", "--crop-pct", "1"], 96, 96, "BILINEAR"),
        (["imagenet", "--crop-pct", "0.95", "--interpolation", "bicubic"], 235, 224, "BICUBIC"),
        (["digits", "--val-size", "40"], 40, 32, "BILINEAR"),
        (["digits", "--image-size", "48", "--interpolation", "nearest"], 48, 48, "NEAREST"),
    ],
)
def test_sizes_and_interpolation_override_the_recipe(options, resized_to, size, interpolation):
    image = random_image(90, 90)
    resized = image.resize((resized_to, resized_to), Image.Resampling[interpolation])
    start = round((resized_to - size) / 2)
    expected = resized.crop((start, start, start + size, start + size))
    assert np.array_equal(prepared(image, *options), np.asarray(expected))
    recipe = parse_settings(["--config-name", *options]).recipe
    array = ImageArray(np.asarray(image)[None], np.zeros(1))
    assert training_images(array, recipe, 0)[SampleKey(0, 0)].image.shape == (3, size, size)


def test_fashion_mnist_keeps_the_share_of_its_margin():
    pixels = prepared(Image.new("RGB", (28, 28), "white"), "fashion-mnist", "--image-size", "64")
    assert pixels.shape == (64, 64, 3)
    assert (pixels[:, :, 0] == 255).sum() == 56 * 56
    assert np.all(pixels[4:60, 4:60] == 255)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("option", [("--val-size", "16"), ("--crop-pct", "0.5")])
def test_training_images_are_the_same_whatever_validation_does(name, option):
    images = np.stack([np.asarray(random_image(28, 28))] * 4)
    array = ImageArray(images, np.zeros(4))
    recipes = [parse_settings(["--config-name", name, *more]).recipe for more in ((), option)]
    plain, other = (
        [training_images(array, recipe, 0)[SampleKey(0, number)].image for number in range(4)]
        for recipe in recipes
    )
    assert recipes[0].resized_to != recipes[1].resized_to
    assert all(map(torch.equal, plain, other))


@pytest.mark.parametrize("name", ["imagenet", "digits"])
def test_training_images_are_resized_as_asked(name):
    image = random_image(300, 200)
    array = ImageArray(np.asarray(image)[None], np.zeros(1))
    nearest, bicubic = (
        training_images(array, replace(RECIPES[name], interpolation=mode), 0)[SampleKey(0, 0)].image
        for mode in ("nearest", "bicubic")
    )
    assert nearest.shape == bicubic.shape
    assert not torch.equal(nearest, bicubic)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--val-size", "256", "--crop-pct", "0.9"], "leave one of them out"),
        (["--config-name", "imagenet", "--val-size", "100"], "no central crop of --image-size 224"),
        (["--crop-pct", "1.5"], "no central crop"),
        (["--config-name", "digits", "--decode", "fast"], "--decode fast: --config-name digits"),
        (["--rand-augment", "--trivial-augment"], "--rand-augment 9 and --trivial-augment 31"),
        (["--config-name", "imagenet-a2", "--trivial-augment"], "with a 0"),
        (["--rand-augment", "rand-x7"], "as timm spells it"),
        (["--rand-augment", "31"], "from 0 to 30"),
        (["--random-erasing", "1.5"], "from 0 to 1"),
        (["--mixup", "-1"], "from 0 on"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(UserError, match=re.escape(words)):
        check_settings(parse_settings(["--cpu", *options]))


def test_ways_out_of_them_work():
    for options in (
        ["--config-name", "imagenet-a2", "--trivial-augment", "--rand-augment", "0"],
        ["--config-name", "fashion-mnist"],
        ["--config-name", "imagenet", "--decode", "fast"],
    ):
        check_settings(parse_settings(["--cpu", *options]))


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
    side = 224 if name.startswith("imagenet") else 32
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
