"""What a checkpoint takes images for: ``python -m training.predict CHECKPOINT IMAGES…``."""

import argparse
import sys
from collections.abc import Sequence

from training.argument_types import natural_int, positive_int
from training.command_line import OneLineParser
from training.errors import exit_code
from training.predict.formats import CSV_COLUMNS, FORMATS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code, 2 if the user has to change it."""

    def work() -> None:
        options = make_parser().parse_args(argv)
        # Not at the top: `--help` waits for no PyTorch.
        from training.predict.command import predict

        predict(options)

    return exit_code("training.predict", work)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m training.predict",
        description="Print the most probable classes of images, prepared as the checkpoint's run "
        "prepared its validation images. Of weights that were averaged (--ema) those are taken "
        "that validated better.",
        epilog=f"The columns of CSV are {', '.join(CSV_COLUMNS)}: a row for each class of an "
        "image, rank 1 the most probable. JSON is a list with an object for each image: its path "
        "as image, and predictions, a list of class and probability. An image that cannot be read "
        "is named on the standard error and left out, and the exit code is 2.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="of this program or of the published implementation",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, and folders, with all images in them that no name with a point first hides",
    )
    parser.add_argument(
        "--pool",
        metavar="NAME",
        help="of the network, where the checkpoint does not say it",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="csv",
        help="of what is printed (default: %(default)s)",
    )
    parser.add_argument(
        "--top",
        type=positive_int,
        default=5,
        metavar="N",
        help="classes of each image (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="FILE", help="write to this file instead of printing")
    parser.add_argument(
        "-b",
        "--batch-size",
        type=positive_int,
        default=64,
        metavar="N",
        help="images that go through the network together (default: %(default)s)",
    )
    parser.add_argument(
        "-j",
        "--workers",
        type=natural_int,
        metavar="N",
        help="processes that decode (default: the machine's cores, 12 at most; 0 for few images)",
    )
    parser.add_argument("--cpu", action="store_true", help="leave the GPUs alone")
    parser.add_argument("--gpu", type=natural_int, metavar="N", help="the GPU to use (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
