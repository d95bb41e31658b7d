"""Train or evaluate the published networks: ``python train_imagenet.py --help``."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from models import list_models
from models.pooling import POOL_TYPES
from training.data import DATASETS
from training.distributed import launch
from training.errors import UserError
from training.recipes import RECIPES
from training.run import run
from training.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code, 2 if the user has to change it."""
    try:
        settings = parse_settings(argv)
        settings.check()
        if settings.is_distributed and settings.backend != settings.dist_backend:
            print(
                f"--dist-backend {settings.dist_backend} needs GPUs: using gloo on the CPU with "
                f"--nproc {settings.processes_here}",
                flush=True,
            )
        launch(run, settings)
    except UserError as error:
        print(f"train_imagenet.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def parse_settings(argv: Sequence[str] | None) -> Settings:
    """Return the settings of the command line ``argv``, its open defaults filled in.

    Raises:
        UserError: ``argv`` is not a command line that ``--help`` describes.
    """
    options = vars(make_parser().parse_args(argv))
    if options["dataset"] is None:
        without_data = options["data"] is None and options["val_data"] is None
        options["dataset"] = "digits" if without_data else "imagenet"
    if options["data"] is None:
        options["data"] = "./datasets/imagenet12/images/"
    entry = DATASETS.get(options["dataset"])  # an unknown name is left for Settings.check
    if entry and options["config_name"] is None:
        options["config_name"] = entry.config_name
    if entry and options["workers"] is None:
        options["workers"] = 0 if entry.in_memory else min(12, os.cpu_count() or 1)
    return Settings(**options)


class OneLineParser(argparse.ArgumentParser):
    """Reports its errors as every other error of the command line, in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Train or evaluate a network with maximum-entropy pooling. Without options: "
        "ResNet-50 on the handwritten digits that come with scikit-learn.",
        allow_abbrev=False,
    )
    add_data_options(parser.add_argument_group("data"))
    add_network_options(parser.add_argument_group("network"))
    add_recipe_options(parser.add_argument_group("recipe"))
    add_checkpoint_options(parser.add_argument_group("checkpoints and evaluation"))
    add_output_options(parser.add_argument_group("output"))
    add_process_options(parser.add_argument_group("devices and processes"))
    return parser


def add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"{' or '.join(DATASETS)}; imagenet is any folder of images in --data, digits come "
        "with scikit-learn (default: imagenet if --data is given, otherwise digits)",
    )
    group.add_argument(
        "--data",
        metavar="DIR",
        help="folder that holds train/CLASS/ and val/CLASS/ or val_dir/CLASS/ with images "
        "(default: ./datasets/imagenet12/images/; not used by digits), or the WebDataset shards of "
        "the training images: paths, http addresses or pipe: commands such as "
        "shards/train-{0000..0146}.tar",
    )
    group.add_argument(
        "--val-data",
        metavar="SHARDS",
        help="the shards of the validation images, where --data names shards",
    )
    group.add_argument(
        "--num-classes",
        type=positive_int,
        metavar="N",
        help="outputs of the network (default: the number of classes in the data)",
    )
    group.add_argument(
        "-j",
        "--workers",
        type=natural_int,
        metavar="N",
        help="processes that decode images, over all processes of this machine (default: its "
        "cores, 12 at most; 0 for digits)",
    )


def add_network_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-a",
        "--arch",
        default="resnet50",
        metavar="NAME",
        help=f"{', '.join(list_models())} (default: %(default)s)",
    )
    group.add_argument(
        "--pool",
        default="max_ent",
        metavar="NAME",
        help=f"{', '.join(POOL_TYPES)} (default: %(default)s)",
    )
    group.add_argument(
        "--pretrained",
        action="store_true",
        help="start from torchvision's ImageNet weights, wherever they fit; with --resume the "
        "checkpoint decides",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="the same with a file: a state dict or a checkpoint of this program, of the published "
        "implementation or of torchvision",
    )


def add_recipe_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--config-name",
        metavar="NAME",
        help=f"{' or '.join(RECIPES)} (default: the one of --dataset's name)",
    )
    group.add_argument("--epochs", type=positive_int, metavar="N", help="(default: the recipe's)")
    group.add_argument(
        "-b",
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="images a step, over all processes of this machine (default: the recipe's)",
    )
    group.add_argument(
        "--lr",
        type=positive_float,
        metavar="LR",
        help="learning rate that the recipe's schedule starts from (default: the recipe's)",
    )
    group.add_argument(
        "--seed",
        type=natural_int,
        metavar="N",
        help="of everything random (default: the checkpoint's of --resume, otherwise drawn)",
    )
    group.add_argument(
        "--start-epoch",
        type=natural_int,
        default=0,
        metavar="N",
        help="epochs to leave out, counted from 0; with --resume the checkpoint decides",
    )
    group.add_argument(
        "--limit-train-batches",
        type=positive_int,
        metavar="N",
        help="end each epoch after N batches",
    )
    group.add_argument(
        "--limit-val-batches", type=positive_int, metavar="N", help="validate on N batches"
    )


def add_checkpoint_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--resume",
        metavar="FILE",
        help="checkpoint to continue from, or to evaluate; of this program or of the published "
        "implementation",
    )
    group.add_argument(
        "-e",
        "--evaluate",
        action="store_true",
        help="print the top-1 and top-5 validation error of --resume FILE, and stop",
    )
    group.add_argument(
        "--exclude",
        metavar="FILE",
        help="with --evaluate: leave out the images that this file lists, one file name or "
        "ILSVRC validation number a line",
    )


def add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out-dir",
        default="./",
        metavar="DIR",
        help="where log.csv, the curves and the checkpoints go (default: %(default)s)",
    )
    group.add_argument(
        "--pdf-filename",
        default="train_epochs.pdf",
        metavar="NAME",
        help="the curves, in --out-dir; a PNG file goes beside it (default: %(default)s)",
    )
    group.add_argument(
        "--save-last-checkpoint",
        action="store_true",
        help="keep only the newest checkpoint and model_best.pth.tar",
    )
    group.add_argument(
        "-p",
        "--print-freq",
        type=positive_int,
        default=100,
        metavar="N",
        help="batches between two lines where there is no terminal for a progress bar "
        "(default: %(default)s)",
    )


def add_process_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--cpu", action="store_true", help="leave the GPUs alone")
    group.add_argument(
        "--gpu", type=natural_int, metavar="N", help="the one GPU to use (default: 0)"
    )
    group.add_argument(
        "--multiprocessing-distributed",
        action="store_true",
        help="train with one process per GPU of this machine, or --nproc on the CPU",
    )
    group.add_argument(
        "--nproc",
        type=positive_int,
        metavar="N",
        help="processes on this machine (default: its GPUs; 1 without GPUs)",
    )
    group.add_argument(
        "--world-size",
        type=positive_int,
        default=1,
        metavar="N",
        help="number of machines (default: %(default)s)",
    )
    group.add_argument(
        "--rank",
        type=natural_int,
        default=0,
        metavar="N",
        help="number of this machine, from 0 (default: %(default)s)",
    )
    group.add_argument(
        "--dist-url",
        default="tcp://127.0.0.1:8080",
        metavar="URL",
        help="where the processes meet, on machine 0 (default: %(default)s)",
    )
    group.add_argument(
        "--dist-backend",
        choices=("nccl", "gloo"),
        default="nccl",
        help="gloo is taken where there is no GPU (default: %(default)s)",
    )


def natural_int(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
