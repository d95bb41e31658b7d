"""The options of ``train_imagenet.py``, each in one place: what it takes, does and stands for.

The parser and ``--help``, ``config.json``, the command that repeats a run and the columns of
``training.compare`` follow from the fields of ``Options``. Nothing here imports PyTorch, so that
``--help`` answers at once; the names that it lists are held against their registries by a test.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from training.argument_types import fraction, natural_int, positive_float, positive_int, seed_int
from training.schedules import SCHEDULES

GROUPS = {
    "data": "data",
    "network": "network",
    "recipe": "recipe",
    "computing": "computing",
    "checkpoints": "checkpoints and evaluation",
    "output": "output",
    "processes": "devices and processes",
}
"""The groups of ``--help`` in their order, and their titles."""

WHERE_AND_HOW = ("output", "processes")
"""Groups whose options say where and how a run is made, and not what is trained."""


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its name, type and default.

    Attributes:
        group: a key of ``GROUPS``.
        help: a sentence of ``--help``, ``%`` written twice.
        metavar: stands for the value in ``--help``, where there is one and no ``choices``.
        short: the option's letter, if it has one.
        parse: makes a value of its text.
        choices: the values that there are, if not any.
        bare: the value of the option without one, where it may stand so.
        from_recipe: the recipe decides where it is not given.
        tells: it says what is trained, and not where or how the run is made.
        of_several: it has a meaning for several processes only.
    """

    group: str
    help: str
    metavar: str = "N"
    short: str | None = None
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    bare: Any = None
    from_recipe: bool = False
    tells: bool = True
    of_several: bool = False


def option(group: str, help: str, default: Any = None, **others: Any) -> Any:
    """Return a field of ``Options``: its default and, from the other arguments, its ``Option``."""
    others = {"tells": group not in WHERE_AND_HOW} | others
    return field(default=default, metadata={"option": Option(group, help, **others)})


@dataclass(frozen=True)
class Options:
    """What a command line asks for, by the options' names; None where one was not given.

    ``dataset``, ``data``, ``workers`` and ``config_name`` depend on each other and on the data
    set: ``training.settings.Settings`` fills in those that were not given.
    """

    dataset: str = option(
        "data",
        "digits, fashion-mnist, imagenet; imagenet is any folder of images in --data, digits come "
        "with scikit-learn (default: imagenet if --data is given, otherwise digits)",
        metavar="NAME",
    )
    data: str = option(
        "data",
        "folder that holds train/CLASS/ and val/CLASS/ or val_dir/CLASS/ with images; or "
        "Fashion-MNIST's four IDX files, gzipped or not; or the WebDataset shards of the training "
        "images: paths, http addresses or pipe: commands such as shards/train-{0000..0146}.tar "
        "(default: ./datasets/imagenet12/images/ or /usr/share/datasets/fashion-mnist/; not used "
        "by digits)",
        metavar="DIR",
    )
    val_data: str | None = option(
        "data", "the shards of the validation images, where --data names shards", metavar="SHARDS"
    )
    num_classes: int | None = option(
        "data",
        "outputs of the network (default: the number of classes in the data)",
        parse=positive_int,
    )
    workers: int = option(
        "data",
        "processes that decode images, over all processes of this machine (default: its cores, 12 "
        "at most; 0 for digits and fashion-mnist)",
        short="j",
        parse=natural_int,
        tells=False,
    )
    worker_timeout: int = option(
        "data",
        "end with an error if they deliver no batch for so long (default: %(default)s)",
        default=600,
        parse=positive_int,
        metavar="SECONDS",
    )
    on_bad_image: str = option(
        "data",
        "skip: go on without images that cannot be read, as long as they are no more than 1%% of "
        "all, and list them in bad_images.txt in --out-dir; in training another image takes the "
        "place of each, an evaluation does not count them (default: %(default)s)",
        default="error",
        choices=("error", "skip"),
    )

    arch: str = option(
        "network",
        "densenet121, densenet161, densenet169, densenet201, resnet101, resnet152, resnet18, "
        "resnet34, resnet50, resnetp101, resnetp152, resnetp18, resnetp34, resnetp50, "
        "resnext101_32x8d, resnext50_32x4d, resnextp101_32x8d, resnextp50_32x4d, vgg11bow, "
        "vgg11bow_bn, vgg11orig, vgg11orig_bn, vgg13bow, vgg13bow_bn, vgg13orig, vgg13orig_bn, "
        "vgg16bow, vgg16bow_bn, vgg16orig, vgg16orig_bn, vgg19bow, vgg19bow_bn, vgg19orig, "
        "vgg19orig_bn (default: %(default)s)",
        default="resnet50",
        short="a",
        metavar="NAME",
    )
    pool: str = option(
        "network",
        "max, avg, skip, max_ent, soft, max_ent_unguided, mixed, gfgp_mixed, gated, gfgp_gated, "
        "gem, gfgp_gem, lse, gfgp_lse (default: %(default)s)",
        default="max_ent",
        metavar="NAME",
    )
    pretrained: bool = option(
        "network",
        "start from torchvision's ImageNet weights, wherever they fit; with --resume the "
        "checkpoint decides",
        default=False,
    )
    weights: str | None = option(
        "network",
        "the same with a file: a state dict or a checkpoint of this program, of the published "
        "implementation or of torchvision",
        metavar="FILE",
    )

    config_name: str = option(
        "recipe",
        "imagenet, digits, fashion-mnist (default: the one of --dataset's name)",
        metavar="NAME",
    )
    epochs: int | None = option(
        "recipe", "(default: the recipe's)", parse=positive_int, from_recipe=True
    )
    batch_size: int | None = option(
        "recipe",
        "images a step, over all processes of this machine (default: the recipe's)",
        short="b",
        parse=positive_int,
        from_recipe=True,
    )
    lr: float | None = option(
        "recipe",
        "learning rate that the recipe's schedule starts from (default: the recipe's)",
        parse=positive_float,
        metavar="LR",
        from_recipe=True,
    )
    lr_schedule: str | None = option(
        "recipe",
        "step: a tenth after each 30 epochs; cosine: half a cosine down to 0 (default: the "
        "recipe's)",
        choices=tuple(SCHEDULES),
        from_recipe=True,
    )
    warmup_epochs: int | None = option(
        "recipe",
        "epochs in which the learning rate rises to --lr first (default: the recipe's)",
        parse=natural_int,
        from_recipe=True,
    )
    label_smoothing: float = option(
        "recipe",
        "share of each target that is spread over all classes, in training (default: %(default)s)",
        default=0.0,
        parse=fraction,
        metavar="E",
    )
    ema: float | None = option(
        "recipe",
        "validate and keep a moving average of the weights too (DECAY: 0.9999)",
        parse=fraction,
        bare=0.9999,
        metavar="DECAY",
    )
    seed: int | None = option(
        "recipe",
        "of everything random (default: the checkpoint's of --resume, otherwise drawn)",
        parse=seed_int,
    )
    start_epoch: int = option(
        "recipe",
        "epochs to leave out, counted from 0; with --resume the checkpoint decides",
        default=0,
        parse=natural_int,
    )
    limit_train_batches: int | None = option(
        "recipe", "end each epoch after N batches", parse=positive_int, metavar="N"
    )
    limit_val_batches: int | None = option(
        "recipe", "validate on N batches", parse=positive_int, metavar="N"
    )

    amp: str = option(
        "computing",
        "compute in bfloat16 or float16 where that is safe (default: %(default)s)",
        default="off",
        choices=("off", "bf16", "fp16"),
    )
    channels_last: bool = option("computing", "keep channels innermost in memory", default=False)
    compile: bool = option("computing", "compile the network (torch.compile)", default=False)
    accum_steps: int = option(
        "computing",
        "pass each process's share of a batch through the network in N parts, which takes less "
        "memory; --batch-size stays the images a step (default: %(default)s)",
        default=1,
        parse=positive_int,
    )
    sync_bn: bool = option(
        "computing",
        "normalise by the statistics of all processes' images (GPUs only)",
        default=False,
    )
    on_nan: str = option(
        "computing",
        "where the loss or the gradient is nan or infinite: stop (seen at the next line of "
        "scores, before any checkpoint), or skip the step, which leaves weights and running "
        "statistics as they were, and stop after 10 in a row or an epoch with no other; skip "
        "waits for the device at each step (default: %(default)s)",
        default="stop",
        choices=("stop", "skip"),
    )

    resume: str | None = option(
        "checkpoints",
        "checkpoint to continue from, or to evaluate; of this program or of the published "
        "implementation; 'auto': the newest whole one in --out-dir, none where none is there yet",
        metavar="FILE",
        tells=False,
    )
    evaluate: bool = option(
        "checkpoints",
        "print the top-1 and top-5 validation error of --resume FILE, write them to "
        "evaluation.json in --out-dir, and stop",
        default=False,
        short="e",
    )
    exclude: str | None = option(
        "checkpoints",
        "with --evaluate: leave out the images that this file lists, one file name or ILSVRC "
        "validation number a line",
        metavar="FILE",
    )

    out_dir: str = option(
        "output",
        "where the checkpoints go, and config.json, log.csv, lambdas.csv and the curves, or "
        "evaluation.json (default: %(default)s)",
        default="./",
        metavar="DIR",
    )
    pdf_filename: str = option(
        "output",
        "the curves, in --out-dir; a PNG file goes beside it (default: %(default)s)",
        default="train_epochs.pdf",
        metavar="NAME",
    )
    save_last_checkpoint: bool = option(
        "output", "keep only the newest checkpoint and model_best.pth.tar", default=False
    )
    keep_checkpoints: int | None = option(
        "output",
        "keep only the newest N checkpoints and model_best.pth.tar (default: all)",
        parse=positive_int,
    )
    tensorboard: bool = option(
        "output",
        "write the curves and the histograms of λ for TensorBoard as well, to tensorboard/ in "
        "--out-dir",
        default=False,
    )
    print_freq: int = option(
        "output",
        "batches between two lines where there is no terminal for a progress bar "
        "(default: %(default)s)",
        default=100,
        short="p",
        parse=positive_int,
    )

    cpu: bool = option("processes", "leave the GPUs alone", default=False)
    gpu: int | None = option("processes", "the one GPU to use (default: 0)", parse=natural_int)
    multiprocessing_distributed: bool = option(
        "processes",
        "train with one process per GPU of this machine, or --nproc on the CPU",
        default=False,
    )
    nproc: int | None = option(
        "processes",
        "processes on this machine (default: its GPUs; 1 without GPUs)",
        parse=positive_int,
    )
    world_size: int = option(
        "processes",
        "number of machines (default: %(default)s)",
        default=1,
        parse=positive_int,
        of_several=True,
    )
    rank: int = option(
        "processes",
        "number of this machine, from 0 (default: %(default)s)",
        default=0,
        parse=natural_int,
        of_several=True,
    )
    dist_url: str = option(
        "processes",
        "where the processes meet, on machine 0 (default: %(default)s)",
        default="tcp://127.0.0.1:8080",
        metavar="URL",
        of_several=True,
    )
    dist_backend: str = option(
        "processes",
        "gloo is taken where there is no GPU (default: %(default)s)",
        default="nccl",
        choices=("nccl", "gloo"),
        of_several=True,
    )
    dist_timeout: int = option(
        "processes",
        "how long a process waits for another one before the run ends with an error (default: "
        "%(default)s)",
        default=600,
        parse=positive_int,
        metavar="SECONDS",
        of_several=True,
    )


OPTIONS: dict[str, Option] = {each.name: each.metadata["option"] for each in fields(Options)}
"""The options by the names of their fields."""


def flag_of(name: str) -> str:
    """Return an option as it is written.

    Example:
        >>> flag_of("batch_size")
        '--batch-size'
    """
    return f"--{name.replace('_', '-')}"
