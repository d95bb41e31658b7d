"""Checkpoint files: the published layout, in plain types that hold no code."""

import argparse
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel

from training.atomic_write import atomic_write
from training.errors import UserError
from training.history import EpochRecord, best_record, history_from_stats, stats_from_history
from training.settings import Settings

BEST_NAME = "model_best.pth.tar"
EPOCH_NAME = re.compile(r"checkpoint-epoch(\d+)\.pth\.tar")


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``epoch`` epochs.

    Attributes:
        epoch: number of finished epochs.
        arch, pool: the network; ``pool`` is None where the file does not say.
        seed: seed of the run, or None where the file does not say.
        state_dict: the network's tensors by name.
        optimizer: state of the ``torch.optim.SGD``.
        history: a record per epoch.
        scaler: state of the ``torch.amp.GradScaler`` of ``--amp fp16``, or None.
        ema: state of the ``torch.optim.swa_utils.AveragedModel`` of ``--ema``, or None.
    """

    epoch: int
    arch: str
    pool: str | None
    seed: int | None
    state_dict: dict[str, Tensor]
    optimizer: dict[str, Any]
    history: list[EpochRecord]
    scaler: dict[str, Any] | None
    ema: dict[str, Tensor] | None


def save_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: Sequence[EpochRecord],
    settings: Settings,
    seed: int,
    scaler: GradScaler | None = None,
    averaged: AveragedModel | None = None,
) -> Path:
    """Write the checkpoint of the last epoch of ``history`` into ``settings.out_dir``.

    The file is a dict: ``state_dict``, ``epoch``, ``arch``, ``stats``, ``optimizer`` as published,
    and ``args``, the settings, as a dict of plain values; ``scaler`` and ``ema``, the states of
    ``scaler`` and ``averaged``, where these are in use. When the epoch is the best so far,
    ``model_best.pth.tar`` becomes a copy of it.

    Raises:
        UserError: the file cannot be written; older files are then as they were.
    """
    epoch = history[-1].epoch
    content = {
        "epoch": epoch,
        "arch": settings.arch,
        "state_dict": model.state_dict(),
        "stats": stats_from_history(history),
        "optimizer": optimizer.state_dict(),
        "args": {**asdict(settings), "seed": seed},
    }
    if scaler is not None and scaler.is_enabled():
        content["scaler"] = scaler.state_dict()
    if averaged is not None:
        content["ema"] = averaged.state_dict()
    folder = Path(settings.out_dir)
    path = folder / f"checkpoint-epoch{epoch}.pth.tar"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
    if best_record(history).epoch == epoch:
        with atomic_write(folder / BEST_NAME) as temporary:
            shutil.copyfile(path, temporary)
    if settings.save_last_checkpoint:
        for number, older in epoch_checkpoints(folder).items():
            if number < epoch:
                older.unlink()
    return path


def epoch_checkpoints(folder: Path) -> dict[int, Path]:
    """Return the ``checkpoint-epoch{N}.pth.tar`` files of ``folder`` by N."""
    matches = ((EPOCH_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


def load_checkpoint(path: str) -> Checkpoint:
    """Read a checkpoint of this project or of the published implementation.

    No code of the file is run: ``torch.load`` with ``weights_only=True``.

    Raises:
        UserError: there is no such file, or it is not a checkpoint.
    """
    content = read_file("--resume", path)
    try:
        args = content["args"]
        settings = vars(args) if isinstance(args, argparse.Namespace) else args
        _check_tensors(content["state_dict"])
        return Checkpoint(
            epoch=content["epoch"],
            arch=content["arch"],
            pool=settings.get("pool"),
            seed=settings.get("seed"),
            state_dict=content["state_dict"],
            optimizer=content["optimizer"],
            history=history_from_stats(content["stats"], content["epoch"]),
            scaler=content.get("scaler"),
            ema=content.get("ema"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"--resume {path}: is no checkpoint of a training run ({error!r}); it must hold "
            "state_dict, epoch, arch, stats, optimizer and args"
        ) from error


def read_file(option: str, path: str) -> Any:
    """Return what ``torch.save`` wrote to ``path``, the file of ``option``; run no code of it.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if not Path(path).is_file():
        raise UserError(f"{option} {path}: no such file")
    try:
        with torch.serialization.safe_globals(_safe_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that then cannot be read
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything while it is read
        raise UserError(
            f"{option} {path}: is no checkpoint that can be read ({one_line(error)})"
        ) from error


def load_model(model: nn.Module, checkpoint: Checkpoint, settings: Settings) -> None:
    """Give ``model``, the network of ``settings``, the tensors of ``checkpoint``.

    Raises:
        UserError: the checkpoint is of another network, pooling or number of classes.
    """
    if (checkpoint.arch, checkpoint.pool or settings.pool) != (settings.arch, settings.pool):
        pool = "" if checkpoint.pool is None else f" --pool {checkpoint.pool}"
        raise UserError(
            f"--resume {settings.resume}: is a checkpoint of --arch {checkpoint.arch}{pool}, not "
            f"of --arch {settings.arch} --pool {settings.pool}; pass its own --arch and --pool"
        )
    classes, model_classes = _class_count(checkpoint.state_dict), _class_count(model.state_dict())
    if classes != model_classes:
        raise UserError(
            f"--resume {settings.resume}: has {classes} classes, not {model_classes}; use its data "
            f"set, or --num-classes {classes} if the data's classes are the first of them"
        )
    try:
        model.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise UserError(
            f"--resume {settings.resume}: its tensors are not those of --arch {settings.arch} "
            f"--pool {settings.pool} ({one_line(error)})"
        ) from error


def one_line(error: Exception) -> str:
    """Return the first lines of the error's message in one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Checkpoint, settings: Settings
) -> None:
    """Give ``optimizer``, of ``model``'s parameters, the state of ``checkpoint``.

    ``load_model`` must have accepted the checkpoint.

    Raises:
        UserError: the state is of other parameters.
    """
    try:
        optimizer.load_state_dict(_optimizer_state(model, checkpoint))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"--resume {settings.resume}: its optimizer state cannot be used ({error!r})"
        ) from error
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if isinstance(value, Tensor) and value.shape != parameter.shape:
                raise UserError(
                    f"--resume {settings.resume}: its optimizer state is of other parameters: "
                    f"{list(value.shape)} in place of {list(parameter.shape)}"
                )


def _optimizer_state(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the optimizer's state dict with the parameters numbered in ``model``'s order."""
    (group,) = checkpoint.optimizer["param_groups"]
    keys = dict(zip(_parameter_order(model, checkpoint), group["params"], strict=True))
    states = checkpoint.optimizer["state"]
    return {
        "state": {number: states[key] for number, key in keys.items() if key in states},
        "param_groups": [{**group, "params": sorted(keys)}],
    }


def _parameter_order(model: nn.Module, checkpoint: Checkpoint) -> list[int]:
    """Return the numbers of ``model``'s parameters in the order of the checkpoint's.

    Optimizers number the parameters, and a published network has the same ones in another
    order. Which is which only ``load_state_dict`` knows: it is given each tensor's place.
    """
    places = {
        name: torch.tensor(float(place)).expand(tensor.shape)
        for place, (name, tensor) in enumerate(checkpoint.state_dict.items())
    }
    model_of_places = deepcopy(model)
    model_of_places.load_state_dict(places)
    found = [parameter.flatten()[0].item() for parameter in model_of_places.parameters()]
    return sorted(range(len(found)), key=found.__getitem__)


class _Inert:
    """Stands for an object of a published checkpoint's ``args`` that is of no use here."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# The published ``args`` hold the recipe's transforms, whose classes may be of any version of
# torchvision or not be installed at all (``utils.mytransforms``).
_PUBLISHED_TRANSFORMS = (
    *(
        f"torchvision.transforms.transforms.{name}"
        for name in (
            "CenterCrop",
            "ColorJitter",
            "Compose",
            "Normalize",
            "RandomHorizontalFlip",
            "RandomResizedCrop",
            "Resize",
            "ToTensor",
        )
    ),
    "torchvision.transforms.functional.InterpolationMode",
    "utils.mytransforms.Lighting",
)


def _safe_globals() -> list[Any]:
    numpy_scalar = np.float64(0).__reduce__()[0]  # makes a number of a type and its bytes
    return [
        argparse.Namespace,
        *((_Inert, name) for name in _PUBLISHED_TRANSFORMS),
        *((numpy_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        np.dtype,
        *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8")),
    ]


def _class_count(state_dict: Mapping[str, Tensor]) -> int:
    return len(next(reversed(state_dict.values())))  # the classifier's bias


def _check_tensors(state_dict: object) -> None:
    if not isinstance(state_dict, dict) or not state_dict:
        raise TypeError(f"state_dict must be a dict of tensors, not {type(state_dict).__name__}")
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"state_dict[{name!r}] must be a tensor, not {type(value).__name__}")
