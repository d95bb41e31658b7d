"""The augmentation is that of the published pipeline: its bits, or as a distribution."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.input_pipeline import natural_pixels, published_transform
from training.images.color_jitter import ColorJitter
from training.images.datasets import ImageFiles
from training.images.decoding import DecodedCrop, decode_rgb
from training.loading.batches import collate
from training.loading.samples import SampleKey, training_images
from training.recipes import RECIPES
from training.seeding import derive_seed

SEED = 3


def write_jpegs(folder, sizes, enlarged=1):
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        pixels = natural_pixels(width // enlarged, height // enlarged, generator)
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpeg", quality=95)
    return ImageFiles([(str(folder / f"{number}.jpeg"), number) for number in range(len(sizes))])


def ours(files, epochs, on_cpu=True, **others):
    """Return each epoch's images [epochs * N, 3, 224, 224], as the network gets them."""
    recipe = replace(RECIPES["imagenet"], **others)
    images = training_images(files, recipe, SEED, on_cpu=on_cpu)
    batches = [
        collate([images[SampleKey(epoch, index)] for index in range(len(files))]).samples
        for epoch in range(epochs)
    ]
    return torch.cat([images.batch_transform(batch.image, batch.draws) for batch in batches])


def published(files, epochs):
    """Return what the published pipeline makes of the same files with the same random numbers."""
    transform = published_transform()
    results = []
    for epoch in range(epochs):
        for index in range(len(files)):
            torch.manual_seed(derive_seed(SEED, "augmentation", epoch, index))
            with Image.open(files.name(index)) as image:
                results.append(transform(image.convert("RGB")))
    return torch.stack(results)


def noise(count, height=17, width=23):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_color_jitter_is_that_of_pil_to_the_last_bit():
    """In all six orders, with factors that darken, brighten and clip."""
    images = noise(24)
    published_jitter = transforms.ColorJitter(brightness=0.9, contrast=0.9, saturation=0.9)
    jitter = ColorJitter(brightness=0.9, contrast=0.9, saturation=0.9)
    draws, expected = [], []
    for seed, image in enumerate(images):
        torch.manual_seed(seed)
        draws.append(jitter.draw())
        torch.manual_seed(seed)
        changed = published_jitter(transforms.functional.to_pil_image(image))
        expected.append(transforms.functional.pil_to_tensor(changed))
    assert len({tuple(order.tolist()) for order, _ in draws}) == 6
    assert torch.equal(jitter(images, torch.stack(draws)), torch.stack(expected))


def test_batch_transform_does_not_depend_on_the_batch():
    _, transform = RECIPES["imagenet"].train_steps(on_cpu=False)
    images = noise(7)
    samples = [transform.draw() for _ in images]
    draws = [torch.stack(of_step) for of_step in zip(*samples, strict=True)]
    together = transform(images, draws)
    order = torch.tensor([4, 0, 6, 2])
    assert torch.equal(transform(images[order], [each[order] for each in draws]), together[order])
    for number, drawn in enumerate(samples):
        alone = transform(images[number : number + 1], [each[None] for each in drawn])
        assert torch.equal(alone[0], together[number])


@pytest.mark.parametrize("on_cpu", [True, False])
def test_images_are_those_of_the_published_pipeline(tmp_path, on_cpu):
    """For the same random numbers, to the last bit: whichever part does the colours."""
    files = write_jpegs(tmp_path, [(250, 190), (150, 300), (64, 48), (1300, 1000)])
    assert torch.equal(ours(files, 3, on_cpu=on_cpu), published(files, 3))


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize(
    ("sizes", "enlarged"),
    [
        pytest.param([(250, 190), (150, 300), (64, 48)], 1, id="decoded whole"),
        # The crop then starts at a whole pixel of the lower resolution, which is a shift by half
        # a pixel at most; in sharp images that would hide a greater one.
        pytest.param([(1300, 1000)], 50, id="decoded at a lower resolution"),
    ],
)
def test_fast_decoding_only_resizes_differently(tmp_path, sizes, enlarged, on_cpu):
    files = write_jpegs(tmp_path, sizes, enlarged)
    levels = 255 * torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    fast = ours(files, 4, on_cpu=on_cpu, decode="fast")
    differences = (fast - published(files, 4)).abs() * levels
    assert 0 < differences.mean((1, 2, 3)).max() < (0.1 if enlarged == 1 else 3)


def moments(images):
    """Return what the augmentation makes random: colours, contrast, their spread, sharpness."""
    pixels = images.flatten(2)
    means = pixels.mean(2)
    return {
        "mean": means.mean(0),
        "colour covariance": means.T.cov(),
        "second moment": pixels.square().mean((0, 2)),
        "contrast": pixels.std(2).mean(0),
        "spread of the contrast": pixels.std(2).std(0),
        "third moment": pixels.pow(3).mean((0, 2)),
        "horizontal gradient": images.diff(dim=3).square().mean((0, 2, 3)),
        "vertical gradient": images.diff(dim=2).square().mean((0, 2, 3)),
        "left-right asymmetry": (images - images.flip(3)).square().mean((0, 2, 3)),
    }


@pytest.mark.slow
def test_moments_of_fast_decoding_are_the_published_ones(tmp_path):
    """Over files of all kinds, large ones that are decoded at a lower resolution included."""
    files = write_jpegs(tmp_path, [(250, 190), (150, 300), (500, 375), (1100, 900)])
    expected = moments(published(files, 20))
    for name, measured in moments(ours(files, 20, decode="fast")).items():
        scale = expected[name].abs().max()
        tolerance = 0.03 if "gradient" in name else 0.005
        assert (measured - expected[name]).abs().max() < tolerance * scale, name


@pytest.mark.parametrize(("width", "height"), [(1792, 1792), (900, 700), (448, 500), (300, 200)])
def test_decoded_crop_keeps_the_pixels_that_its_size_needs(tmp_path, width, height):
    path = tmp_path / "image.jpeg"
    Image.new("RGB", (width, height), (10, 200, 30)).save(path)
    crop = DecodedCrop(224)
    decoded_sizes = set()
    for seed in range(20):
        torch.manual_seed(seed)
        chosen = crop.chooser.make_params([Image.open(path)])
        torch.manual_seed(seed)
        image = Image.open(path)
        part = crop(image)
        decoded_sizes.add(image.size)
        scale = width / image.width
        assert part.width >= min(224, chosen["width"])
        assert part.height >= min(224, chosen["height"])
        assert abs(part.width * scale - chosen["width"]) <= scale
        assert abs(part.height * scale - chosen["height"]) <= scale
    assert (len(decoded_sizes) > 1) == (min(width, height) >= 700)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("image.tiff" if mode in ("CMYK", "I;16") else "image.png")
    Image.new(mode, (30, 20)).save(path)
    for decode in (decode_rgb, DecodedCrop(8)):
        assert decode(Image.open(path)).mode == "RGB"
