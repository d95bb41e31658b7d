"""Small ImageFolder trees of real JPEG files, made for a test."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image_folder(
    root: Path,
    train: int = 4,
    val: int = 3,
    classes: int = 2,
    size: int = 40,
    val_name: str = "val",
) -> Path:
    """Write ``train`` and ``val`` images per class under ``root``; return ``root``.

    The images of a class share a colour and differ in their noise.
    """
    generator = np.random.default_rng(0)
    colours = generator.integers(60, 196, (classes, 3))
    for split, count in (("train", train), (val_name, val)):
        for label, colour in enumerate(colours):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                noise = generator.normal(0, 30, (size, size + 8, 3))
                pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{label}_{number}.JPEG")
    return root
