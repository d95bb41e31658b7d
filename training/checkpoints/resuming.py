"""What a run starts from: nothing, the checkpoint of ``--resume``, or the newest whole one."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from training.checkpoints.differences import differences
from training.checkpoints.files import BEST_NAME, Position, checkpoints_in, is_in
from training.checkpoints.format import Checkpoint, load_checkpoint
from training.checkpoints.partial_epoch import order_of
from training.errors import UserError
from training.loading.global_batches import GlobalBatches
from training.processes.ranks import Process, all_reduce_sum, errors_shared, object_from_main
from training.records.history import LOG_NAME
from training.run import Run
from training.settings import Settings

AUTO = "auto"


def refuse_other_run(settings: Settings) -> None:
    """Raise UserError if ``--out-dir`` holds a run that ``--resume`` does not continue."""
    folder = Path(settings.out_dir)
    if not folder.is_dir():
        return
    found = [name for name in (LOG_NAME, BEST_NAME) if Path(folder, name).exists()]
    found += [path.name for path in checkpoints_in(folder).values()]
    if found and not (settings.resume and is_in(Path(settings.resume), folder)):
        raise UserError(
            f"--out-dir {folder}: holds a run already ({found[0]}); continue it with "
            "--resume auto, or --resume and a checkpoint that lies there itself, or choose another "
            "--out-dir"
        )


def goes_on_by_itself(settings: Settings, process: Process) -> bool:
    """Return whether to resume from the newest checkpoint; every process must call it.

    So says ``--resume auto``, and so it is where torchrun has started the processes anew.
    """
    return settings.resume == AUTO or (not settings.evaluate and _was_restarted(settings, process))


def with_newest_checkpoint(settings: Settings, process: Process) -> Settings:
    """Return ``settings`` with the newest checkpoint's file as ``resume``.

    Where there is no checkpoint yet, ``auto`` becomes None. ``--resume FILE`` stays until there is
    one that an earlier start has made from it. Every process must call it.

    Raises:
        UserError: there are checkpoints, and none of them can be used.
    """
    found = newest_usable(settings, process) if process.is_main else None
    path = object_from_main(None if found is None else str(found), process)
    if path is None and settings.resume != AUTO:
        return settings
    if path is None and settings.evaluate:
        raise UserError(f"--resume {AUTO}: there is no checkpoint in --out-dir {settings.out_dir}")
    return replace(settings, resume=path)


def newest_usable(settings: Settings, process: Process) -> Path | None:
    """Return the newest checkpoint in ``--out-dir`` that is whole and fits; name those passed by.

    None where there is no checkpoint at all, or none that was made from ``--resume FILE``.

    Raises:
        UserError: there are checkpoints, and none of them can be used.
    """
    candidates = [*checkpoints_in(Path(settings.out_dir)).values()]
    origin = None
    if settings.resume not in (None, AUTO) and is_in(Path(settings.resume), settings.out_dir):
        origin = load_checkpoint(settings.resume)
    best = Path(settings.out_dir, BEST_NAME)
    if origin is None and best.exists() and not any(map(best.samefile, candidates)):
        # Where the others are damaged or were removed, or a run was killed before it gave its first
        # one its own name.
        candidates.append(best)
    for path in candidates:
        try:
            checkpoint = load_checkpoint(str(path))
            if not settings.evaluate:  # which takes no batches of the epoch
                check_order(checkpoint, settings, process)
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr, flush=True)
            continue
        if origin is None or _is_made_from(origin, checkpoint, settings):
            print(f"resuming from {path}", flush=True)
            return path
    if candidates and origin is None:
        raise UserError(
            f"--resume {AUTO}: none of the {len(candidates)} checkpoints in {settings.out_dir} can "
            "be used; move them away to start anew"
        )
    return None


def _is_made_from(origin: Checkpoint, checkpoint: Checkpoint, settings: Settings) -> bool:
    """Return whether ``--resume``, with ``origin``'s file and ``settings``, led to a checkpoint.

    ``model_best.pth.tar`` may have become another one since then, of the same line.
    """
    lineages = {lineage_of(origin, was_told=True)}
    if Path(settings.resume).name == BEST_NAME and origin.lineage:
        lineages.add(origin.lineage)
    settings = settings.with_network(checkpoint.arch, checkpoint.pool)
    return checkpoint.lineage in lineages and not differences(checkpoint, settings)


def lineage_of(checkpoint: Checkpoint | None, was_told: bool) -> tuple[Position, ...]:
    """Return the lineage of a run that goes on from ``checkpoint``, as ``--resume FILE`` told it.

    One that goes on by itself adds nothing.
    """
    if checkpoint is None:
        return ()
    return (*checkpoint.lineage, checkpoint.position) if was_told else checkpoint.lineage


def check_order(checkpoint: Checkpoint, settings: Settings, process: Process) -> None:
    """Check that a run of ``settings`` can go on within the checkpoint's epoch.

    Raises:
        UserError: its next batches would hold other samples than those of the interrupted run.
    """
    if checkpoint.partial_epoch is None:
        return
    before = checkpoint.partial_epoch.order
    seed = checkpoint.seed if settings.seed is None else settings.seed
    now = order_of(Run(settings, process, seed))
    changed = [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if changed:
        raise UserError(
            f"--resume {checkpoint.path}: was left within an epoch, which cannot go on otherwise "
            f"than it began ({'; '.join(changed)}): restore that, or resume from a checkpoint "
            "between epochs"
        )


def check_image_count(checkpoint: Checkpoint, images: int) -> None:
    """Check that a run on ``images`` training images can go on within the checkpoint's epoch.

    Raises:
        UserError: the epoch was begun on another number, in an order that these images have not.
    """
    if checkpoint.partial_epoch is None:
        return
    before = checkpoint.partial_epoch.order.get("images")  # not in older checkpoints
    if before not in (None, images):
        raise UserError(
            f"--resume {checkpoint.path}: was left within an epoch on {before} training images, "
            f"and now there are {images}, so that some would be left out or taken twice: restore "
            "the images, or go on from before that epoch: move the file away for --resume auto, "
            "or --resume a checkpoint between epochs"
        )


def check_samples(checkpoint: Checkpoint, sampler: GlobalBatches) -> None:
    """Check that the batches of the checkpoint's epoch held what those of ``sampler`` would have.

    Only then do the rest of them hold what is left of the epoch: of shards, the number and the
    sizes of all batches decide the order. Every process must call it.

    Raises:
        UserError: they held other samples; in every process.
    """
    partial = checkpoint.partial_epoch
    if partial is None:
        return
    with errors_shared(sampler.process):
        before = partial.order.get("samples")  # not in older checkpoints
        if before not in (None, sampler.checksum(checkpoint.epoch, partial.batches)):
            raise UserError(
                f"--resume {checkpoint.path}: was left within an epoch after batch "
                f"{partial.batches}, and until then its batches held other images than they would "
                "now, so that some would be left out or taken twice: restore the shards, "
                "--accum-steps and --limit-train-batches, or go on from before that epoch: move "
                "the file away for --resume auto, or --resume a checkpoint between epochs"
            )


def load_start(settings: Settings, process: Process) -> Checkpoint | None:
    """Return the checkpoint of ``--resume FILE``, None without one; the same in every process.

    Raises:
        UserError: it cannot be read or does not fit, or not every process sees the same one.
    """
    checkpoint = load_checkpoint(settings.resume) if settings.resume is not None else None
    if checkpoint is not None and not settings.evaluate:
        check_order(checkpoint, settings, process)
    here = None if checkpoint is None else tuple(checkpoint.position)
    main = object_from_main(here, process)
    if here != main:
        raise UserError(
            f"process {process.rank} would go on from {_words(here)}, the main one from "
            f"{_words(main)}: every machine must read the same checkpoints; put --out-dir and "
            "--resume where all of them see it"
        )
    return checkpoint


def _words(position: tuple[int, int] | None) -> str:
    if position is None:
        return "the start"
    epochs, batches = position
    return f"after epoch {epochs}" + (f" and {batches} batches" if batches else "")


def _was_restarted(settings: Settings, process: Process) -> bool:
    """Return whether torchrun has started the processes anew.

    A machine counts only the restarts that it caused, so that the processes add theirs up.
    """
    if settings.torchrun is None:
        return False
    restarts = torch.tensor([settings.torchrun.restarts], device=process.device)
    return bool(all_reduce_sum(restarts, process).item())
