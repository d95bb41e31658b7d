"""Checkpoint files: the published layout, in plain types that hold no code."""

import argparse
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.pooling import published_pool
from training.atomic_write import atomic_write, write_link
from training.checkpoints.files import BEST_NAME, Position, checkpoint_name, remove_outdated
from training.checkpoints.partial_epoch import PartialEpoch
from training.checkpoints.safe_file import one_line, read_file
from training.checkpoints.structure import check_structure
from training.errors import UserError
from training.records.history import (
    EpochRecord,
    best_record,
    history_from_stats,
    stats_from_history,
)
from training.settings import Settings

CANNOT_BE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What comes of content that is no checkpoint's, or of ``args`` that are no settings."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``epoch`` epochs, or within the next one.

    Attributes:
        epoch: number of finished epochs.
        arch, pool: the network; ``pool`` is None where the file does not say.
        seed: seed of the run, or None where the file does not say.
        state_dict: the network's tensors by name.
        optimizer: from ``training.checkpoints.optimizer_state``.
        history: a record per epoch.
        scaler: state of the ``torch.amp.GradScaler`` of ``--amp fp16``, or None.
        ema: state of the ``torch.optim.swa_utils.AveragedModel`` of ``--ema``, or None.
        steps: number of batches of the finished epochs, or None where the file does not say.
        partial_epoch: how far the next epoch has come, or None between epochs.
        classes: the names of the network's outputs, as far as they have any; None where the file
            does not say.
        lineage: where ``--resume FILE`` told the run to go on from, each time that it did.
        args: the options of its run by their names; None in published files.
        path: the file that it was read from, for errors; None of one that is made here.
    """

    epoch: int
    arch: str
    pool: str | None
    seed: int | None
    state_dict: dict[str, Tensor]
    optimizer: dict[str, Any]
    history: Sequence[EpochRecord]
    scaler: dict[str, Any] | None = None
    ema: dict[str, Tensor] | None = None
    steps: int | None = None
    partial_epoch: PartialEpoch | None = None
    classes: tuple[str, ...] | None = None
    lineage: tuple[Position, ...] = ()
    args: Mapping[str, Any] | None = None
    path: str | None = None

    @property
    def position(self) -> Position:
        batches = 0 if self.partial_epoch is None else self.partial_epoch.batches
        return Position(self.epoch, batches)

    @property
    def averaged_is_better(self) -> bool:
        """Whether to judge and use the averaged weights: those that validated better.

        So it is, too, where the averaged weights alone were validated, or none have been yet.
        """
        if self.ema is None:
            return False
        last = self.history[-1] if self.history else None
        return last is None or math.isnan(last.ema_val_err1) or last.averaged_is_better


def save_checkpoint(checkpoint: Checkpoint, settings: Settings) -> Path:
    """Write ``checkpoint`` into ``settings.out_dir``; return its path.

    The file is a dict: ``state_dict``, ``epoch``, ``arch``, ``stats``, ``optimizer`` as published,
    and ``args``, the settings, as a dict of plain values; ``scaler``, ``ema`` (with
    ``averaged_is_better``), ``steps``, ``partial_epoch``, ``classes`` and ``lineage`` where there
    are any. When the epoch is the best so far, ``model_best.pth.tar`` becomes the same, by a hard
    link where the file system has those. Older checkpoints that the settings do not keep are
    deleted.

    Raises:
        WriteError: the file cannot be written; older files are then as they were.
    """
    content = {
        "epoch": checkpoint.epoch,
        "arch": checkpoint.arch,
        "state_dict": checkpoint.state_dict,
        "stats": stats_from_history(checkpoint.history),
        "optimizer": checkpoint.optimizer,
        "args": {**asdict(settings), "seed": checkpoint.seed},
    }
    for name in ("scaler", "ema", "steps"):
        if getattr(checkpoint, name) is not None:
            content[name] = getattr(checkpoint, name)
    if checkpoint.ema is not None:
        content["averaged_is_better"] = checkpoint.averaged_is_better
    if checkpoint.partial_epoch is not None:
        content["partial_epoch"] = vars(checkpoint.partial_epoch)
    if checkpoint.classes is not None:
        content["classes"] = list(checkpoint.classes)
    if checkpoint.lineage:
        content["lineage"] = [tuple(position) for position in checkpoint.lineage]
    # In memory first: torch.save hides what the file system says behind errors of its own.
    encoded = io.BytesIO()
    torch.save(content, encoded)
    folder = Path(settings.out_dir)
    path, best = folder / checkpoint_name(checkpoint.position), folder / BEST_NAME
    is_best = _is_best(checkpoint)
    with atomic_write(best if is_best else path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    if is_best:
        # After it: a run killed in between resumes before both or, after its first epoch, from it.
        write_link(best, path)
    remove_outdated(folder, checkpoint.position, settings.kept_checkpoints)
    return path


def _is_best(checkpoint: Checkpoint) -> bool:
    return (
        checkpoint.partial_epoch is None
        and best_record(checkpoint.history).epoch == checkpoint.epoch
    )


def load_checkpoint(path: str, option: str = "--resume") -> Checkpoint:
    """Read a checkpoint of this project or of the published implementation.

    No code of the file is run: ``torch.load`` with ``weights_only=True``. ``option`` is what the
    errors name: where the user has given the file.

    Raises:
        UserError: there is no such file, or it is not a checkpoint.
    """
    content = read_file(option, path)
    try:
        if not isinstance(content, Mapping):
            raise TypeError(f"it must be a dict, not {type(content).__name__}")
        args = content["args"]
        is_published = isinstance(args, argparse.Namespace)
        settings = vars(args) if is_published else args
        check_structure(content, settings)
        partial, classes = content.get("partial_epoch"), content.get("classes")
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
            steps=content.get("steps"),
            partial_epoch=None if partial is None else PartialEpoch(**partial),
            classes=None if classes is None else tuple(classes),
            lineage=tuple(Position(*each) for each in content.get("lineage", ())),
            args=None if is_published else args,
            path=path,
        )
    except CANNOT_BE as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(
            f"{option} {path}: is no checkpoint of a training run ({reason}); it must hold "
            "state_dict, epoch, arch, stats, optimizer and args"
        ) from error


def load_model(
    model: nn.Module, checkpoint: Checkpoint, arch: str, pool: str, data_classes: int
) -> None:
    """Give ``model``, the network ``arch`` with ``pool``, the tensors of ``checkpoint``.

    ``data_classes`` is the number of classes in the data, which may be fewer than its outputs.

    Raises:
        UserError: the checkpoint is of another network, pooling or number of classes.
    """
    refuse_other_network(
        f"--resume {checkpoint.path}", checkpoint.arch, checkpoint.pool, arch=arch, pool=pool
    )
    classes, model_classes = class_count(checkpoint.state_dict), class_count(model.state_dict())
    if classes != model_classes:
        raise UserError(
            f"--resume {checkpoint.path}: has {classes} classes, not {model_classes}; use its data "
            f"set{or_num_classes(classes, data_classes)}"
        )
    try:
        model.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise UserError(
            f"--resume {checkpoint.path}: its tensors are not those of --arch {arch} "
            f"--pool {pool} ({one_line(error)})"
        ) from error


def refuse_other_network(
    origin: str, their_arch: str | None, their_pool: str | None, arch: str, pool: str
) -> None:
    """Raise UserError if what ``origin`` says of its network, None of nothing, is another one."""
    if (their_arch or arch) != arch or published_pool(their_pool or pool) != published_pool(pool):
        named = {"--arch": their_arch, "--pool": their_pool}
        theirs = " ".join(f"{flag} {name}" for flag, name in named.items() if name is not None)
        raise UserError(
            f"{origin}: is of {theirs}, not of --arch {arch} --pool {pool}; leave --arch and "
            "--pool out, or pass its own"
        )


def or_num_classes(theirs: int, of_data: int) -> str:
    """Return what else to advise where weights have other classes than the data.

    The data's can be the first of ``theirs`` alone.
    """
    if theirs < of_data:
        return ""
    return f", or --num-classes {theirs} if the data's classes are the first of them"


def class_count(state_dict: Mapping[str, Tensor]) -> int:
    """Return the length of the logits of a network with these tensors."""
    bias = next(reversed(state_dict.values()))  # the classifier's
    return bias.numel()
