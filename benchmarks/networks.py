"""Times a network under several poolings: ``python benchmarks/networks.py --help``."""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.allocator import keep_freed_memory
from benchmarks.environment import environment_of
from benchmarks.options import add_common_options
from benchmarks.results import NetworkResults, NetworkSettings, NetworkTime, Spread, write_results
from benchmarks.timing import timer_of
from gfgp_cupy import compile_kernels
from models import create_model, list_models
from models.pooling import POOL_TYPES
from training.argument_types import positive_int

CLASSES = 1000

MIN_REPEATS = 3
"""So many are made even where the time is up."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark of the command line ``argv`` and writes its results; 1 where a pooling
    failed."""
    options = make_parser().parse_args(argv)
    on_gpu = options.device == "cuda"
    if options.batch_size is None:
        options.batch_size = 64 if on_gpu else 8
    if options.image_size is None:
        options.image_size = 224 if on_gpu else 64
    # Convolutions of fixed sizes: the fastest of cuDNN's algorithms, found in the warm-up.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        results = run(options)
    for one in results.times if results else ():
        print(f"{one.arch} {one.pool}, {one.task}: {one.images_per_second:.4g} images/s")
    measured = {one.pool for one in results.times} if results else set()
    failed = [pool for pool in options.pools if pool not in measured]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".", allow_abbrev=False)
    add_common_options(parser, out="networks.json", repeats=30, seconds=90)
    parser.add_argument(
        "--arch",
        choices=list_models(),
        default="resnet50",
        metavar="NAME",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--pools",
        nargs="+",
        choices=POOL_TYPES,
        default=["skip", "max_ent"],
        metavar="NAME",
        help=f"{', '.join(POOL_TYPES)} (default: skip max_ent)",
    )
    parser.add_argument(
        "--amp",
        choices=("bfloat16", "float16"),
        help="type of torch.autocast (default: none, float32 throughout)",
    )
    parser.add_argument(
        "--image-size",
        type=positive_int,
        metavar="N",
        help="height and width (default: 224 on a GPU, 64 on the CPU)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="images (default: 64 on a GPU, 8 on the CPU)",
    )
    return parser


@dataclass(frozen=True)
class Network:
    """One network, and the batch it works on.

    Attributes:
        memory_format: of the images and the model.
        autocast: makes a new context of the type that it computes in.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    memory_format: torch.memory_format
    autocast: Callable[[], torch.autocast]

    def compile(self) -> None:
        """Compiles what both tasks need, several programs at a time; prints how many they are."""
        shape, format = tuple(self.images.shape), self.memory_format
        with self.autocast():
            for training in (True, False):
                compiled = compile_kernels(
                    self.model, shape, memory_format=format, training=training
                )
                print(f"{'training' if training else 'inference'}: {compiled}", flush=True)

    def training(self) -> None:
        """One step: forward, backward and update."""
        self.model.train()
        with self.autocast():
            loss = F.cross_entropy(self.model(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def inference(self) -> None:
        self.model.eval()
        with torch.inference_mode(), self.autocast():
            self.model(self.images)


def run(options: argparse.Namespace) -> NetworkResults | None:
    """Measures training and inference under every pooling, in turn; after each round, writes what
    there is to ``options.out``. None where no pooling can be measured."""
    started = time.monotonic()
    device = torch.device(options.device)
    tasks = {}
    for pool in options.pools:
        print(f"{options.arch} {pool}")
        try:
            tasks |= ready_tasks(options, pool)
        except Exception:
            traceback.print_exc()  # one pooling's failure takes no other's times away
    if not tasks:
        return None
    environment = environment_of(device, "networks.py", options)
    asked = {field.name: getattr(options, field.name) for field in fields(NetworkSettings)}
    settings = NetworkSettings(**asked)
    rounds = []
    deadline = started + options.seconds
    for one in time_rounds(tasks, device, repeats=options.repeats, deadline=deadline):
        rounds.append(one)
        spreads = {key: Spread.of([one[key] for one in rounds]) for key in tasks}
        times = [
            NetworkTime(
                arch=options.arch,
                pool=pool,
                task=task,
                seconds=spread,
                images_per_second=options.batch_size / spread.median,
            )
            for (pool, task), spread in spreads.items()
        ]
        results = NetworkResults(environment=environment, settings=settings, times=times)
        write_results(results, options.out)
    return results


def ready_tasks(
    options: argparse.Namespace, pool: str
) -> dict[tuple[str, str], Callable[[], None]]:
    """What is timed under ``pool``; each has been done once."""
    network = make_network(options, pool)
    network.compile()
    tasks = {(pool, "training"): network.training, (pool, "inference"): network.inference}
    for task in tasks.values():
        task()
    return tasks


def make_network(options: argparse.Namespace, pool: str) -> Network:
    layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    memory_format = layout[options.layout]
    model = create_model(options.arch, pool=pool, num_classes=CLASSES)
    model.to(options.device, memory_format=memory_format)
    size = options.image_size
    images = torch.randn(options.batch_size, 3, size, size, device=options.device)
    return Network(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4),
        images=images.contiguous(memory_format=memory_format),
        labels=torch.randint(CLASSES, (options.batch_size,), device=options.device),
        memory_format=memory_format,
        autocast=functools.partial(
            torch.autocast,
            options.device,
            dtype=getattr(torch, options.amp or "bfloat16"),
            enabled=options.amp is not None,
        ),
    )


def time_rounds(
    tasks: dict[tuple[str, str], Callable[[], None]],
    device: torch.device,
    repeats: int,
    deadline: float,
) -> Iterator[dict[tuple[str, str], float]]:
    """Seconds of every task, once a round and each round in another order."""
    timer, shuffle, rounds = timer_of(device), random.Random(0), 0
    while rounds < min(MIN_REPEATS, repeats) or (rounds < repeats and time.monotonic() < deadline):
        order = shuffle.sample(list(tasks), len(tasks))
        pending = {key: timer(tasks[key])[1] for key in order}
        yield {key: seconds() for key, seconds in pending.items()}
        rounds += 1


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
