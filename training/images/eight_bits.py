"""From greys of more than eight bits to 0..255, by a rule for each kind of file.

PIL clips them: mode I;16 would be white from 255 of 65,535 on.
"""

import numpy as np
from PIL import Image

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF
WHITE_IS_ZERO = 0


def eight_bits(image: Image.Image) -> Image.Image:
    """Return a loaded image with at most eight bits a sample.

    Grey values of 16 bits (PNG, TIFF, PGM of any maximum) are divided by 257 and rounded, so that
    65,535 becomes 255; TIFF's of 12 bits by 4,095 / 255. Floats are 0 for black to 1 for white.

    Raises:
        ValueError: the range of the values is not known: signed or 32-bit integers, or floats
            outside 0 to 1.
    """
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _scaled(np.asarray(image), most=_most(image), inverted=_is_inverted(image))
    if image.mode == "I":
        raise ValueError(
            "signed or 32-bit integers, whose black and white are not known: save it with 16 bits, "
            "unsigned"
        )
    if image.mode == "F":
        pixels = np.asarray(image)
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # of nan, neither holds
            raise ValueError(
                f"floats from {pixels.min():g} to {pixels.max():g}, which must be from 0 (black) "
                "to 1 (white)"
            )
        return _scaled(pixels, most=1.0, inverted=_is_inverted(image))
    return image


def _scaled(pixels: np.ndarray, most: float, inverted: bool) -> Image.Image:
    scaled = np.rint(pixels * np.float32(255 / most)).astype(np.uint8)
    return Image.fromarray(255 - scaled if inverted else scaled)


def _most(image: Image.Image) -> int:
    is_twelve = _tag(image, BITS_PER_SAMPLE) == (12,)
    return 4095 if is_twelve else 65535


def _is_inverted(image: Image.Image) -> bool:
    """Return whether a TIFF counts from white, which PIL heeds up to eight bits only."""
    return _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO


def _tag(image: Image.Image, number: int) -> object:
    return image.tag_v2.get(number) if image.format == "TIFF" else None
