"""What a run starts from: nothing, the checkpoint of ``--resume``, or the newest whole one."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from training.checkpoints.files import checkpoints_in
from training.checkpoints.format import Checkpoint, load_checkpoint
from training.checkpoints.partial_epoch import order_of
from training.errors import UserError
from training.processes.launcher import Process, all_reduce_sum, object_from_main
from training.settings import Settings

AUTO = "auto"


def goes_on_by_itself(settings: Settings, process: Process) -> bool:
    """Return whether to resume from the newest checkpoint; every process must call it.

    So says ``--resume auto``, and so it is where torchrun has started the processes anew.
    """
    return settings.resume == AUTO or (not settings.evaluate and _was_restarted(settings, process))


def with_newest_checkpoint(settings: Settings, process: Process) -> Settings:
    """Return ``settings`` with the newest checkpoint's file as ``resume``.

    Where there is no checkpoint yet, ``--resume FILE`` stays and ``auto`` becomes None. Every
    process must call it.

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

    None where there is no checkpoint at all.

    Raises:
        UserError: there are checkpoints, and none of them can be used.
    """
    candidates = checkpoints_in(Path(settings.out_dir)).values()
    for path in candidates:
        try:
            checkpoint = load_checkpoint(str(path))
            check_order(replace(settings, resume=str(path)), checkpoint, process)
            print(f"resuming from {path}", flush=True)
            return path
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr, flush=True)
    if candidates:
        raise UserError(
            f"--resume {AUTO}: none of the {len(candidates)} checkpoints in {settings.out_dir} can "
            "be used; move them away to start anew"
        )
    return None


def check_order(settings: Settings, checkpoint: Checkpoint, process: Process) -> None:
    """Check that a run of ``settings`` can go on within the checkpoint's epoch.

    Raises:
        UserError: its next batches would hold other samples than those of the interrupted run.
    """
    if checkpoint.partial_epoch is None:
        return
    before = checkpoint.partial_epoch.order
    seed = checkpoint.seed if settings.seed is None else settings.seed
    now = order_of(settings, seed, process.world_size)
    changed = [
        f"{name} was {before.get(name)}, is {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if changed:
        raise UserError(
            f"--resume {settings.resume}: was left within an epoch, which cannot go on otherwise "
            f"than it began ({'; '.join(changed)}): restore that, or resume from a checkpoint "
            "between epochs"
        )


def load_start(settings: Settings, process: Process) -> Checkpoint | None:
    """Return the checkpoint of ``--resume FILE``, None without one; the same in every process.

    Raises:
        UserError: it cannot be read or does not fit, or not every process sees the same one.
    """
    checkpoint = load_checkpoint(settings.resume) if settings.resume is not None else None
    if checkpoint is not None and not settings.evaluate:
        check_order(settings, checkpoint, process)
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
