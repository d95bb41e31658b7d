"""One run of the study: a network is trained, scored and looked into."""

import platform
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.pooling_study.lambdas import example_rows, lambda_rows
from experiments.pooling_study.networks import create_network
from experiments.pooling_study.plan import PlannedRun
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import (
    EpochRow,
    LambdaRow,
    OfRun,
    Outcome,
    RunRow,
    ShiftRow,
)
from experiments.pooling_study.tasks import TASKS, TEST_MARGIN, Images, Task
from experiments.pooling_study.training import Recipe, evaluate, make_optimizer, train_epoch
from gfgp_cupy.backends import select_backend
from training.atomic_write import atomic_write
from training.errors import UserError
from training.records.environment import device_name, git_state, versions_of

IMAGES_OF_AN_EPOCH, IMAGES_OF_A_SHIFT = 2_000, 4_000
SEED_OF_EXAMPLES = 0


@dataclass(frozen=True)
class Setting:
    """Where runs are made.

    Attributes:
        data: folder of Fashion-MNIST's files.
        device: ``"cpu"`` or ``"cuda"``.
        unfinished: folder for the networks of runs that are not finished.
        deadline: as ``time.time`` has it; no epoch is begun after it.
        commit: of the repository, and ``dirty`` whether its files differ from it.
    """

    data: str
    device: str
    unfinished: Path
    deadline: float
    commit: str
    dirty: str

    @classmethod
    def here(cls, data: str, device: str, unfinished: Path, deadline: float) -> "Setting":
        git = git_state()
        return cls(data, device, unfinished, deadline, str(git.commit), str(git.dirty))

    def file_of(self, run: PlannedRun) -> Path:
        """Return where a run that is not finished is kept."""
        return self.unfinished / f"{'-'.join(map(str, run.key))}.pt"

    @property
    def is_over(self) -> bool:
        return time.time() > self.deadline


@dataclass
class Progress:
    """What an interrupted run goes on from.

    ``recipe``, ``commit``, ``dirty`` and ``started`` are those of its beginning.
    """

    recipe: dict[str, Any]
    commit: str
    dirty: str
    started: str
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    epochs: list[dict[str, Any]]
    lambdas: list[dict[str, Any]]
    seconds: float = 0.0
    done: int = 0


def make_run(planned: PlannedRun, setting: Setting) -> Outcome | None:
    """Train a network and score it; None if the deadline came first, and the next call goes on.

    Raises:
        UserError: it has been begun by another recipe.
    """
    if setting.is_over:
        return None
    device = torch.device(setting.device)
    task = _task_on(planned.task, setting.data, device)
    recipe, pooling = planned.recipe, POOLINGS[planned.pooling]
    network = create_network(planned.network, recipe.width, planned.pooling, planned.seed)
    network.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(network, pooling.decays)
    run = OfRun(*planned.key)
    kept = setting.file_of(planned)
    if kept.exists():
        progress = Progress(**torch.load(kept, weights_only=True))
        if progress.recipe != asdict(recipe):
            raise UserError(
                f"{kept}: was begun by {Recipe(**progress.recipe)}, and the plan is {recipe}; "
                "remove it"
            )
        network.load_state_dict(progress.network)
        optimizer.load_state_dict(progress.optimizer)
    else:
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lambdas = lambda_rows(run, network, task.test, done=0)
        progress = Progress(
            recipe=asdict(recipe),
            commit=setting.commit,
            dirty=setting.dirty,
            started=started,
            network={},
            optimizer={},
            epochs=[],
            lambdas=[asdict(row) for row in lambdas],
        )
    while progress.done < recipe.epochs:
        if setting.is_over:
            return None
        start = time.perf_counter()
        train = train_epoch(network, optimizer, task.train, recipe, planned.seed, progress.done)
        progress.seconds += time.perf_counter() - start
        progress.done += 1
        row = EpochRow(
            *planned.key,
            done=progress.done,
            train_loss=round(train.loss, 4),
            train_error=round(train.error, 3),
            test_error=round(evaluate(network, task.test.every(IMAGES_OF_AN_EPOCH)).error, 2),
        )
        progress.epochs.append(asdict(row))
        lambdas = lambda_rows(run, network, task.test, progress.done)
        progress.lambdas += [asdict(row) for row in lambdas]
        progress.network, progress.optimizer = network.state_dict(), optimizer.state_dict()
        with atomic_write(kept) as temporary:
            torch.save(asdict(progress), temporary)
    score = evaluate(network, task.test)
    versions = versions_of("torch", "numba")
    finished = RunRow(
        *planned.key,
        top1_error=round(score.error, 2),
        loss=round(score.loss, 4),
        parameters=sum(each.numel() for each in network.parameters()),
        **asdict(recipe),
        seconds=round(progress.seconds, 1),
        commit=progress.commit,
        dirty=progress.dirty,
        torch=str(versions["torch"]),
        numba=str(versions["numba"]),
        python=platform.python_version(),
        backend=select_backend(device),
        device=device_name(device),
        started=progress.started,
    )
    return Outcome(
        run=finished,
        epochs=[EpochRow(**row) for row in progress.epochs],
        lambdas=[LambdaRow(**row) for row in progress.lambdas],
        shifts=shift_rows(run, network, task.test),
        examples=example_rows(run, network, task.test) if run.seed == SEED_OF_EXAMPLES else [],
    )


@cache
def _task_on(name: str, data: str, device: torch.device) -> Task:
    task = TASKS[name](data)
    return Task(task.train.to(device), task.test.to(device))


def shift_rows(run: OfRun, network: nn.Module, images: Images) -> list[ShiftRow]:
    """Score ``network`` at each distance that the margin of ``images`` allows."""
    some = images.every(IMAGES_OF_A_SHIFT)
    return [
        ShiftRow(*run.key, distance, round(evaluate(network, some, distance).error, 3))
        for distance in range(TEST_MARGIN + 1)
    ]
