"""Greys of more than eight bits: the right value of every sample, whatever file it lies in."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from training.images.datasets import ImageFiles
from training.images.decoding import DecodedCrop, decode_rgb
from training.loading.bad_images import BadImage
from training.loading.samples import SampleKey, validation_images
from training.recipes import RECIPES

LEVELS = np.arange(256).reshape(16, 16)
"""Every value that eight bits have, which each kind of ramp below must come to."""


def pgm(values, most):
    """Return a PGM file by its definition: two bytes a sample, the first one the higher."""
    height, width = values.shape
    return f"P5\n{width} {height}\n{most}\n".encode() + values.astype(">u2").tobytes()


def tiff(values, code, bits, photometric=1, width=None):
    """Return a TIFF file by its definition: one strip of grey samples, in the order of ``code``."""
    height, width = len(values), width or values.shape[1]
    content = values.astype(code).tobytes()
    order, mark = (">", b"MM") if code[0] == ">" else ("<", b"II")
    entries = [
        *((256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8)),
        *((277, 1), (278, height), (279, len(content))),
    ]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries:
        directory += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    start = 8 + len(content)
    header = mark + struct.pack(f"{order}HI", 42, start)
    return header + content + directory + struct.pack(f"{order}I", 0)


def saved(values, format):
    file = io.BytesIO()
    Image.fromarray(values).save(file, format)
    return file.getvalue()


def twelve_bits(values):
    """Return 12-bit samples packed into bytes, two in three, as whole bytes for ``tiff``."""
    first, second = values.reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    return packed.reshape(len(values), -1)


def twelve_bit_tiff():
    values = np.rint(LEVELS * (4095 / 255)).astype(np.uint16)
    return tiff(twelve_bits(values), "<u1", 12, width=16)


SIXTEEN = (LEVELS * 257).astype(np.uint16)
FILES = {
    "PNG": saved(SIXTEEN, "PNG"),
    "TIFF": saved(SIXTEEN, "TIFF"),
    "TIFF, big endian": tiff(SIXTEEN, ">u2", 16),
    "TIFF from white": tiff(65535 - SIXTEEN, "<u2", 16, photometric=0),
    "TIFF, 12 bits": twelve_bit_tiff(),
    "TIFF of floats": saved((LEVELS / 255).astype(np.float32), "TIFF"),
    "PGM": pgm(SIXTEEN, 65535),
    "PGM up to 4095": pgm(np.rint(LEVELS * (4095 / 255)), 4095),
    "PGM up to 510": pgm(LEVELS * 2, 510),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("decode", [decode_rgb, DecodedCrop(8)])
def test_ramp_keeps_its_values(monkeypatch, kind, decode):
    image = Image.open(io.BytesIO(FILES[kind]))
    assert image.mode in ("I;16", "I;16B", "I", "F")
    if isinstance(decode, DecodedCrop):
        whole = {"top": 0, "left": 0, "height": 16, "width": 16}
        monkeypatch.setattr(decode.chooser, "make_params", lambda images: whole)
    pixels = np.asarray(decode(image))
    assert np.array_equal(pixels, np.repeat(LEVELS[..., None], 3, axis=2))


def test_sixteen_bits_are_rounded_and_not_cut():
    values = np.array([[0, 128, 129, 32767, 32768, 65406, 65407, 65535]], np.uint16)
    pixels = np.asarray(decode_rgb(Image.open(io.BytesIO(saved(values, "PNG")))))[0, :, 0]
    assert pixels.tolist() == [0, 0, 1, 127, 128, 254, 255, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 4), 200, np.int32), "signed or 32-bit integers"),
        (np.full((4, 4), 200, np.float32), "floats from 200 to 200"),
        (np.full((4, 4), -0.1, np.float32), "floats from -0.1"),
        (np.full((4, 4), np.nan, np.float32), "floats from nan"),
    ],
)
def test_values_of_an_unknown_range_are_a_bad_image(tmp_path, values, reason):
    path = tmp_path / "image.tiff"
    path.write_bytes(saved(values, "TIFF"))
    images = validation_images(ImageFiles([(str(path), 0)]), RECIPES["digits"], 0)
    bad = images[SampleKey(0, 0)]
    assert isinstance(bad, BadImage)
    assert bad.name == str(path)
    assert reason in bad.reason


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("LA", (2, 2), (70, 20)), (70, 70, 70)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), (10, 20, 30)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("L", (2, 2), 9), (9, 9, 9)),
        (Image.new("RGB", (2, 2), (1, 2, 3)).quantize(), (1, 2, 3)),
    ],
)
def test_eight_bits_stay_as_they_are(tmp_path, image, expected):
    image.save(tmp_path / "image.png")
    assert decode_rgb(Image.open(tmp_path / "image.png")).getpixel((0, 0)) == expected
