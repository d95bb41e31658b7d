"""What a step of training costs under each pooling: one interleaved run on one thread."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import torch
import torch.nn.functional as F

from experiments.pooling_study.networks import create_network
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.tasks import TASKS
from experiments.pooling_study.training import Recipe, batches_of, make_optimizer
from training.records.environment import device_name, git_state, versions_of

ROUNDS = 31


@dataclass(frozen=True)
class CostRow:
    """A step of training: forward and backward pass, and the optimizer's step.

    Attributes:
        task, network, pooling: as in the study.
        batch_size: images a step.
        milliseconds: median over the rounds, in each of which every pooling has one step.
        rounds: that were timed, after two that were not.
        device: name of the processor, one thread of which computes.
        torch, numba: versions.
        commit: of the repository, and ``dirty`` whether its files differed.
        started: UTC, ISO 8601, of the pair.
    """

    task: str
    network: str
    pooling: str
    batch_size: int
    milliseconds: float
    rounds: int
    device: str
    torch: str
    numba: str
    commit: str
    dirty: str
    started: str


def measure_costs(recipes: Mapping[tuple[str, str], Recipe], data: str) -> list[CostRow]:
    """Time each pair of task and network that has a recipe on this process's one thread.

    ``data`` is the folder of Fashion-MNIST's files.
    """
    versions, git = versions_of("torch", "numba"), git_state()
    rows = []
    for (task, network), recipe in recipes.items():
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        images, targets = next(batches_of(TASKS[task](data).train, recipe, seed=0, done=0))
        images = images.contiguous(memory_format=torch.channels_last)
        models = {
            pooling: create_network(network, recipe.width, pooling, seed=0).to(
                memory_format=torch.channels_last
            )
            for pooling in POOLINGS
        }
        optimizers = {
            pooling: make_optimizer(model, POOLINGS[pooling].decays)
            for pooling, model in models.items()
        }
        times: dict[str, list[float]] = {pooling: [] for pooling in POOLINGS}
        for _ in range(2 + ROUNDS):
            for pooling, model in models.items():
                start = time.perf_counter()
                F.cross_entropy(model(images), targets).backward()
                optimizers[pooling].step()
                optimizers[pooling].zero_grad()
                times[pooling].append(time.perf_counter() - start)
        rows += [
            CostRow(
                task=task,
                network=network,
                pooling=pooling,
                batch_size=recipe.batch_size,
                milliseconds=round(1e3 * statistics.median(seconds[2:]), 3),
                rounds=ROUNDS,
                device=device_name(torch.device("cpu")),
                torch=str(versions["torch"]),
                numba=str(versions["numba"]),
                commit=str(git.commit),
                dirty=str(git.dirty),
                started=started,
            )
            for pooling, seconds in times.items()
        ]
    return rows
