"""A training epoch under way, and what it takes to go on within it after an interruption."""

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from training.loading.global_batches import GlobalBatches
from training.processes.ranks import gather_objects
from training.records.metrics import ScoreSums
from training.run import Run
from training.seeding import derive_seed, random_state, seed_everything, set_random_state


@dataclass(frozen=True)
class PartialEpoch:
    """How far an epoch has come, beside what the network and the optimizer hold of it.

    Attributes:
        batches: number of its global batches that the network was trained on.
        score_sums: of ``ScoreSums``, over all processes, on the CPU.
        seconds: time spent on it.
        train_seconds: of these, until its last batch, where it was left in its validation, else all
            of them; None in older checkpoints, which do not tell.
        random_states: of each process, from ``training.seeding.random_state``.
        order: what decides which samples the batches hold: from ``order_of``, and the number of
            training images as ``images``; and as ``samples`` the checksum of those that they held.
            Older checkpoints lack some of it.
    """

    batches: int
    score_sums: Tensor
    seconds: float
    random_states: list[dict[str, Any]]
    order: dict[str, Any]
    train_seconds: float | None = None


def order_of(run: Run) -> dict[str, Any]:
    """Return what decides, beside the data, which samples each batch of a process holds.

    Only a run of the same can go on within an epoch without leaving out samples or taking them
    twice. Where the images are found as fast as any other, worker processes are of no influence.
    """
    in_shards = run.settings.val_data is not None
    repeats = run.settings.recipe.repeated_augmentation
    return {
        "seed": run.seed,
        "processes": run.process.world_size,
        "batch_size": run.settings.images_per_step,
        "workers": run.settings.workers if in_shards else None,
        "repeated_augmentation": repeats if repeats > 1 else None,  # not in older checkpoints
    }


@dataclass
class EpochUnderWay:
    """A training epoch of one process.

    Attributes:
        epoch: its number, from 0.
        sampler: of its batches.
        sums: the scores of the batches so far; of all processes together those before an
            interruption, in the main process alone.
        batches: number of global batches so far.
        start: ``time.perf_counter()`` when it began, or would have without the interruption.
        train_start: the same of its training, or would have without its validation, too.
        train_end: when the last of its batches was done, None before.
    """

    epoch: int
    sampler: GlobalBatches
    sums: ScoreSums
    batches: int
    start: float
    train_start: float
    train_end: float | None = None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    @property
    def train_seconds(self) -> float:
        end = time.perf_counter() if self.train_end is None else self.train_end
        return end - self.train_start

    def end_training(self) -> None:
        """Let the time from now on be that of the validation."""
        self.train_end = time.perf_counter()

    def partial(self, run: Run) -> PartialEpoch:
        """Return what a checkpoint needs of it; every process must call it."""
        process, sampler = run.process, self.sampler
        samples = sampler.checksum(self.epoch, self.batches)
        return PartialEpoch(
            batches=self.batches,
            score_sums=self.sums.sums_of_all(process).cpu(),
            seconds=self.seconds,
            random_states=gather_objects(random_state(process.device), process),
            order={**order_of(run), "images": sampler.num_samples, "samples": samples},
            train_seconds=self.train_seconds,
        )


def begin_epoch(
    epoch: int, partial: PartialEpoch | None, run: Run, sampler: GlobalBatches
) -> EpochUnderWay:
    """Begin ``epoch``, or go on within it, with the random state that belongs to it.

    ``sampler`` is that of its batches.
    """
    process = run.process
    seed_everything(derive_seed(run.seed, "epoch", epoch, process.rank))
    now = time.perf_counter()
    under_way = EpochUnderWay(
        epoch=epoch,
        sampler=sampler,
        sums=ScoreSums(process.device),
        batches=0,
        start=now,
        train_start=now,
    )
    if partial is not None:
        set_random_state(partial.random_states[process.rank], process.device)
        under_way.batches = partial.batches
        under_way.start -= partial.seconds
        in_training = partial.train_seconds
        under_way.train_start -= partial.seconds if in_training is None else in_training
        under_way.sums.go_on_from(partial.score_sums, process)
    return under_way
