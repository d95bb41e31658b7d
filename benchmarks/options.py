"""The command-line options that benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.argument_types import positive_float, positive_int

__all__ = ["add_common_options", "add_run_options"]


def add_common_options(
    parser: argparse.ArgumentParser, out: str, repeats: int, seconds: float
) -> None:
    """Adds ``--device``, ``--layout``, and those of :func:`add_run_options`."""
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--layout",
        choices=("contiguous", "channels_last"),
        default="contiguous",
        help="memory format (default: %(default)s)",
    )
    add_run_options(parser, out, repeats=repeats, seconds=seconds)


def add_run_options(
    parser: argparse.ArgumentParser, out: str, repeats: int, seconds: float
) -> None:
    """Adds ``--repeats``, ``--seconds`` and ``--out``, with these defaults."""
    parser.add_argument(
        "--repeats",
        type=positive_int,
        default=repeats,
        metavar="N",
        help="the most repeats of each measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_float,
        default=seconds,
        metavar="S",
        help="time for the whole run, unless a few repeats of each measurement take longer "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        metavar="FILE",
        help="JSON file to write (default: %(default)s)",
    )
