"""Values on the command line: each from its text, or an error that says what it must be."""

import argparse
import math
import re

SERVICES = ("wandb", "mlflow")
"""What ``--log`` may name."""


def natural_int(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def seed_int(text: str) -> int:
    seed = natural_int(text)
    if seed >= 2**63:  # the processes agree on it as a tensor of 64 bits
        raise argparse.ArgumentTypeError(f"must be below 2**63, got {text!r}")
    return seed


def fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, got {text!r}")
    return value


def positive_float(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def natural_float(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, got {text!r}")
    return value


def probability(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def rand_augment_setting(text: str) -> int | str:
    """Return a magnitude of torchvision's RandAugment, or what configures timm's."""
    if text.isdecimal() and int(text) <= 30:
        return int(text)
    if not re.fullmatch(r"rand(-(m|n|p|inc|mmax|mstd)\d+(\.\d+)?|-t[a-z0-9]+)+", text):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to 30, or as timm spells it, such as "
            f"rand-m7-mstd0.5-inc1, got {text!r}"
        )
    return text


def bin_count(text: str) -> int:
    if not text.isdecimal() or int(text) == 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 2 on, or 0, got {text!r}")
    return int(text)


def fractions(text: str) -> tuple[float, ...]:
    return tuple(fraction(part) for part in text.split(","))


def rising_ints(text: str) -> tuple[int, ...]:
    values = tuple(positive_int(part) for part in text.split(","))
    if list(values) != sorted(set(values)):
        raise argparse.ArgumentTypeError(f"must rise, like 30,60,80, got {text!r}")
    return values


def count_or_environment(text: str) -> int:
    return -1 if text == "-1" else positive_int(text)


def number_or_environment(text: str) -> int:
    return -1 if text == "-1" else natural_int(text)


def path_or_none(text: str) -> str | None:
    """Return the path, None for the empty one, which the published command takes as none."""
    return text or None


def services(text: str) -> str:
    """Return the names of ``--log``, each once."""
    names = text.split(",")
    if not {*names} <= {*SERVICES}:
        raise argparse.ArgumentTypeError(f"must be {' or '.join(SERVICES)} or both, got {text!r}")
    return ",".join(dict.fromkeys(names))


def _number(text: str) -> float:
    """Return the number, nan where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
