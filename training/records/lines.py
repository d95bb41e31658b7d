"""The lines that a run prints: what is about to run, what it came to, and why it has stopped."""

from collections.abc import Sequence

from training.images.datasets import Data
from training.records.history import EpochRecord, best_record
from training.run import Run


def description(data: Data, run: Run) -> str:
    """Return what is about to run."""
    settings, process = run.settings, run.process
    training = f"{len(data.train)} training and " if data.train is not None else ""
    processes = f"{process.world_size} processes on " if settings.is_distributed else ""
    return (
        f"{settings.arch} with {settings.pool} pooling; {settings.dataset}: {training}"
        f"{len(data.val)} validation images of {len(data.classes)} classes; recipe "
        f"{settings.config_name}; {processes}{process.device.type}; seed {run.seed}"
    )


def summary(history: Sequence[EpochRecord], out_dir: str, has_best: bool) -> str:
    """Return what a run came to whose files are in ``out_dir``, the best weights or not."""
    best = best_record(history)
    weights = " of the averaged weights" if best.averaged_is_better else ""
    missing = "" if has_best else f", which lacks the weights of epoch {best.epoch}"
    return (
        f"best top-1 error {best.best_val_err1:.2f}% (top-5 {best.best_val_err5:.2f}%){weights} "
        f"after epoch {best.epoch} of {history[-1].epoch}; log, curves and checkpoints in {out_dir}"
        f"{missing}"
    )


def farewell(signal: str, where: str, checkpoint: object) -> str:
    """Return what a run says that ``signal`` stopped, and that left ``checkpoint`` or none."""
    left = f"{checkpoint}; go on with --resume auto" if checkpoint else "no checkpoint of it"
    return f"stopped by {signal} after {where}: {left}"
