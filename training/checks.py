"""The check of a run's settings against each other and against this machine."""

from collections.abc import Sequence
from os.path import normpath
from pathlib import Path

import torch

from gfgp_cupy.choices import check_choice
from models import list_models
from models.pooling import POOL_TYPES
from training.errors import UserError
from training.image_checks import check_images
from training.images.datasets import DATASETS
from training.images.huggingface import PREFIX
from training.optimizer import check_optimizer
from training.options import flag_of
from training.options.config_file import text_of
from training.processes.rendezvous import address_of
from training.recipes import RECIPES
from training.records.confusion import CONFUSION_PDF_NAME
from training.records.lambdas import LAMBDAS_NAME
from training.settings import Settings


def check_settings(settings: Settings) -> None:
    """Check that a run of ``settings`` can begin.

    Raises:
        UserError: a name is unknown, or options contradict each other or the machine.
    """
    _check_names(settings)
    check_images(settings, settings.recipe)
    _check_data(settings)
    _check_devices(settings)
    _check_processes(settings)
    _check_checkpoints(settings)
    _check_recipe(settings)


def _check_names(settings: Settings) -> None:
    try:
        check_choice("--dataset", settings.dataset, list(DATASETS))
        if settings.arch is not None:
            check_choice("--arch", settings.arch, list_models())
        if settings.pool is not None:
            check_choice("--pool", settings.pool, POOL_TYPES)
        check_choice("--config-name", settings.config_name, list(RECIPES))
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_data(settings: Settings) -> None:
    if settings.dataset == "digits" and settings.data and not settings.data.startswith(PREFIX):
        raise UserError(
            f"--data {settings.data}: does not go with --dataset digits, whose images come with "
            "scikit-learn; leave it out, or name another --dataset"
        )
    if settings.val_data is not None and settings.dataset != "imagenet":
        raise UserError(
            f"--val-data {settings.val_data}: only goes with shards of images, which are --dataset "
            f"imagenet, not {settings.dataset}"
        )
    if settings.data.startswith(PREFIX):
        for name in ("val_data", "exclude"):
            if getattr(settings, name) is not None:
                raise UserError(
                    f"{flag_of(name)} {getattr(settings, name)}: does not go with --data "
                    f"{settings.data}, which has its own split to validate on; leave it out"
                )
    if settings.exclude is not None and not settings.evaluate:
        raise UserError(f"--exclude {settings.exclude}: only goes with --evaluate")
    if settings.val_data is not None and settings.exclude is not None:
        raise UserError(f"--exclude {settings.exclude}: images in shards have no files' names")


def _check_devices(settings: Settings) -> None:
    if settings.sync_bn and not settings.uses_gpu:
        raise UserError("--sync-bn: PyTorch has it for GPUs only; leave it out")
    if settings.gpu is None:
        return
    if settings.cpu:
        raise UserError(f"--gpu {settings.gpu} and --cpu: leave one of them out")
    if settings.multiprocessing_distributed:
        raise UserError(
            f"--gpu {settings.gpu} and --multiprocessing-distributed, which takes every GPU: "
            "leave one of them out"
        )
    if settings.torchrun is not None:
        raise UserError(
            f"--gpu {settings.gpu}: torchrun gives each of its processes a GPU; leave the option "
            "out, and choose the GPUs with CUDA_VISIBLE_DEVICES"
        )
    if settings.gpu >= torch.cuda.device_count():
        raise UserError(
            f"--gpu {settings.gpu}: PyTorch sees {torch.cuda.device_count()} GPUs here, counted "
            "from 0; leave the option out or pass --cpu"
        )


def _check_processes(settings: Settings) -> None:
    if settings.torchrun is not None and (
        settings.multiprocessing_distributed or (settings.world_size, settings.rank) != (1, 0)
    ):
        raise UserError(
            "--multiprocessing-distributed, --world-size and --rank do not go with torchrun, "
            "which starts the processes itself: leave them out"
        )
    if settings.nproc is not None and settings.torchrun is not None:
        raise UserError(
            f"--nproc {settings.nproc}: does not go with torchrun, which starts the processes "
            f"itself: leave it out, and pass torchrun --nproc-per-node {settings.nproc}"
        )
    if settings.nproc is not None and not settings.multiprocessing_distributed:
        raise UserError(f"--nproc {settings.nproc}: only goes with --multiprocessing-distributed")
    if settings.uses_gpu and settings.processes_here > torch.cuda.device_count():
        option = "--nproc" if settings.torchrun is None else "torchrun --nproc-per-node"
        raise UserError(
            f"{option} {settings.processes_here}: PyTorch sees {torch.cuda.device_count()} GPUs "
            "here, and each process takes one; lower it or pass --cpu"
        )
    if not 0 <= settings.rank < settings.world_size:
        last = settings.world_size - 1
        raise UserError(f"--rank {settings.rank}: must be from 0 to --world-size - 1 = {last}")
    if settings.is_distributed and settings.torchrun is None:
        address_of(settings.dist_url)  # raises where it is none


def _check_checkpoints(settings: Settings) -> None:
    if settings.evaluate and not settings.names_weights:
        raise UserError(
            "--evaluate: say which checkpoint to evaluate with --resume FILE, or --weights FILE or "
            "--pretrained"
        )
    if settings.pretrained and settings.weights is not None:
        raise UserError(f"--pretrained and --weights {settings.weights}: leave one of them out")
    if settings.save_last_checkpoint and settings.keep_checkpoints is not None:
        raise UserError(
            f"--save-last-checkpoint and --keep-checkpoints {settings.keep_checkpoints}: leave one "
            "of them out"
        )
    if Path(settings.pdf_filename).suffix != ".pdf":
        raise UserError(f"--pdf-filename {settings.pdf_filename}: must end in .pdf")
    others = (str(Path(LAMBDAS_NAME).with_suffix(".pdf")), CONFUSION_PDF_NAME)
    if normpath(settings.pdf_filename) in others:
        raise UserError(
            f"--pdf-filename {settings.pdf_filename}: is the name of another picture of the run; "
            "take one of its own"
        )


def _check_recipe(settings: Settings) -> None:
    recipe = settings.recipe
    if not settings.evaluate and settings.images_per_step_here < settings.smallest_batch_here:
        raise UserError(
            f"--batch-size {settings.images_per_step_here}: batch normalisation needs at least 2 "
            f"images in each of the {settings.processes_here} processes and each of the "
            f"{settings.accum_steps} parts of --accum-steps, {settings.smallest_batch_here} in all"
        )
    for name in ("warmup_epochs", "start_epoch"):
        value = getattr(settings, name)
        if value is not None and value >= recipe.epochs:
            raise UserError(
                f"{flag_of(name)} {value}: must be below the number of epochs, {recipe.epochs}"
            )
    if recipe.lr_schedule != "milestones":
        _refuse(settings, ("lr_milestones", "lr_gamma"), "only goes with --lr-schedule milestones")
    elif not recipe.lr_milestones:
        raise UserError("--lr-schedule milestones: say after which epochs with --lr-milestones N,N")
    if recipe.loss != "bce":
        _refuse(settings, ("bce_threshold",), "only goes with --loss bce")
    of_optimizer = ("momentum", "opt_betas", "opt_eps")
    given = [flag_of(name) for name in of_optimizer if getattr(settings, name) is not None]
    check_optimizer(recipe.optimizer, given, recipe.opt_betas)


def _refuse(settings: Settings, names: Sequence[str], reason: str) -> None:
    """Raise UserError where the user has given one of the options ``names``."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            raise UserError(f"{flag_of(name)} {text_of(value)}: {reason}")
