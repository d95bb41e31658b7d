"""Train or evaluate the published networks: ``python train_imagenet.py --help``."""

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from models import list_models
from models.pooling import POOL_TYPES
from training.errors import UserError
from training.forward import AMP_TYPES
from training.images.datasets import DATASETS
from training.loading.bad_images import LIST_NAME, ON_BAD_IMAGE
from training.not_finite import MOST_SKIPPED_IN_A_ROW
from training.processes.launcher import launch
from training.processes.torchrun import read_torchrun
from training.recipes import RECIPES
from training.run import run
from training.schedules import SCHEDULES
from training.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code.

    It is 2 if the user has to change something, and 130 after an interrupt from the keyboard
    before or after training.

    Raises:
        SystemExit: 143 or 130 after a signal during training; 1 if one of the processes that
            train has failed with a traceback.
    """
    try:
        settings = parse_settings(argv)
        settings.check()
        if settings.torchrun is None or settings.torchrun.rank == 0:
            for note in settings.notes:
                print(note, flush=True)
        launch(run, settings)
    except UserError as error:
        print(f"train_imagenet.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
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
    entry = DATASETS.get(options["dataset"])  # an unknown name is left for Settings.check
    if options["data"] is None:
        options["data"] = entry.root if entry else ""
    if entry and options["config_name"] is None:
        options["config_name"] = entry.config_name
    if entry and options["workers"] is None:
        options["workers"] = 0 if entry.in_memory else min(12, os.cpu_count() or 1)
    return Settings(**options, torchrun=read_torchrun(os.environ))


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
    add_computing_options(parser.add_argument_group("computing"))
    add_checkpoint_options(parser.add_argument_group("checkpoints and evaluation"))
    add_output_options(parser.add_argument_group("output"))
    add_process_options(parser.add_argument_group("devices and processes"))
    return parser


def add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"{', '.join(DATASETS)}; imagenet is any folder of images in --data, digits come "
        "with scikit-learn (default: imagenet if --data is given, otherwise digits)",
    )
    group.add_argument(
        "--data",
        metavar="DIR",
        help="folder that holds train/CLASS/ and val/CLASS/ or val_dir/CLASS/ with images; or "
        "Fashion-MNIST's four IDX files, gzipped or not; or the WebDataset shards of the training "
        "images: paths, http addresses or pipe: commands such as shards/train-{0000..0146}.tar "
        f"(default: {DATASETS['imagenet'].root} or {DATASETS['fashion-mnist'].root}; not used by "
        "digits)",
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
        "cores, 12 at most; 0 for digits and fashion-mnist)",
    )
    group.add_argument(
        "--worker-timeout",
        type=positive_int,
        default=600,
        metavar="SECONDS",
        help="end with an error if they deliver no batch for so long (default: %(default)s)",
    )
    group.add_argument(
        "--on-bad-image",
        choices=ON_BAD_IMAGE,
        default="error",
        help="skip: go on without images that cannot be read, as long as they are no more than 1%% "
        f"of all, and list them in {LIST_NAME} in --out-dir; in training another image takes the "
        "place of each, an evaluation does not count them (default: %(default)s)",
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
        help=f"{', '.join(RECIPES)} (default: the one of --dataset's name)",
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
        "--lr-schedule",
        choices=tuple(SCHEDULES),
        help="step: a tenth after each 30 epochs; cosine: half a cosine down to 0 (default: the "
        "recipe's)",
    )
    group.add_argument(
        "--warmup-epochs",
        type=natural_int,
        metavar="N",
        help="epochs in which the learning rate rises to --lr first (default: the recipe's)",
    )
    group.add_argument(
        "--label-smoothing",
        type=fraction,
        default=0.0,
        metavar="E",
        help="share of each target that is spread over all classes, in training (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--ema",
        nargs="?",
        type=fraction,
        const=0.9999,
        metavar="DECAY",
        help="validate and keep a moving average of the weights too (DECAY: 0.9999)",
    )
    group.add_argument(
        "--seed",
        type=seed_int,
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


def add_computing_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--amp",
        choices=tuple(AMP_TYPES),
        default="off",
        help="compute in bfloat16 or float16 where that is safe (default: %(default)s)",
    )
    group.add_argument(
        "--channels-last", action="store_true", help="keep channels innermost in memory"
    )
    group.add_argument("--compile", action="store_true", help="compile the network (torch.compile)")
    group.add_argument(
        "--accum-steps",
        type=positive_int,
        default=1,
        metavar="N",
        help="pass each process's share of a batch through the network in N parts, which takes "
        "less memory; --batch-size stays the images a step (default: %(default)s)",
    )
    group.add_argument(
        "--sync-bn",
        action="store_true",
        help="normalise by the statistics of all processes' images (GPUs only)",
    )
    group.add_argument(
        "--on-nan",
        choices=("stop", "skip"),
        default="stop",
        help="where the loss or the gradient is nan or infinite: stop (seen at the next line of "
        "scores, before any checkpoint), or skip the step, which leaves weights and running "
        f"statistics as they were, and stop after {MOST_SKIPPED_IN_A_ROW} in a row or an epoch "
        "with no other; skip waits for the device at each step (default: %(default)s)",
    )


def add_checkpoint_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--resume",
        metavar="FILE",
        help="checkpoint to continue from, or to evaluate; of this program or of the published "
        "implementation; 'auto': the newest whole one in --out-dir, none where none is there yet",
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
        help="where the checkpoints go, and config.json, log.csv, lambdas.csv and the curves "
        "(default: %(default)s)",
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
        "--keep-checkpoints",
        type=positive_int,
        metavar="N",
        help="keep only the newest N checkpoints and model_best.pth.tar (default: all)",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the curves and the histograms of λ for TensorBoard as well, to "
        "tensorboard/ in --out-dir",
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
    group.add_argument(
        "--dist-timeout",
        type=positive_int,
        default=600,
        metavar="SECONDS",
        help="how long a process waits for another one before the run ends with an error "
        "(default: %(default)s)",
    )


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
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, got {text!r}")
    return value


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
