"""Tells where a network's time goes on the CPU: ``python benchmarks/network_parts.py --help``."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import nn

from benchmarks.allocator import keep_freed_memory
from benchmarks.environment import environment_of
from benchmarks.networks import Network, make_network
from benchmarks.options import add_run_options
from benchmarks.results import (
    LayerTime,
    NetworkPart,
    NetworkParts,
    NetworkPartsSettings,
    Spread,
    write_results,
)
from benchmarks.shapes import Shape
from benchmarks.stopwatch import Stopwatch
from gfgp_cupy.poolings import GuidedPool2d
from models import list_models
from models.pooling import POOL_TYPES, PUBLISHED_POOL_TYPES
from training.argument_types import positive_int

CONVOLUTIONS, POOLINGS, HEADS, REST, ALL = "convolutions", "poolings", "heads", "rest", "all"
HEAD_SUFFIX = ".head"
TASKS = ("training", "inference")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark of the command line ``argv`` and writes its results."""
    options = make_parser().parse_args(argv)
    asked = {field.name: getattr(options, field.name) for field in fields(NetworkPartsSettings)}
    environment = environment_of(torch.device("cpu"), "network_parts.py", options)
    results = NetworkParts(environment, NetworkPartsSettings(**asked), parts=[], layers=[])
    started = time.monotonic()
    for i, arch in enumerate(options.archs, start=1):
        measure(arch, options, started + options.seconds * i / len(options.archs), results)
        write_results(results, options.out)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".", allow_abbrev=False)
    add_run_options(parser, out="network-parts.json", repeats=20, seconds=240)
    parser.add_argument(
        "--archs",
        nargs="+",
        choices=list_models(),
        default=["resnet50", "resnext50_32x4d", "densenet169", "vgg16bow_bn"],
        metavar="NAME",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--pools",
        nargs="+",
        choices=POOL_TYPES,
        default=list(PUBLISHED_POOL_TYPES),
        metavar="NAME",
        help=f"{', '.join(POOL_TYPES)} (default: {' '.join(PUBLISHED_POOL_TYPES)})",
    )
    parser.add_argument("--image-size", type=positive_int, default=64, metavar="N",
                        help="height and width (default: %(default)s)")  # fmt: skip
    parser.add_argument("--batch-size", type=positive_int, default=8, metavar="N",
                        help="images (default: %(default)s)")  # fmt: skip
    return parser


@dataclass
class Contender:
    """A network with its stopwatch, and what was measured.

    Attributes:
        rounds: of each task, the seconds of each repeat by part, and by the paths of poolings and
            heads.
    """

    network: Network
    stopwatch: Stopwatch
    parts: dict[str, str]
    rounds: dict[str, list[dict[str, float]]] = field(
        default_factory=lambda: {task: [] for task in TASKS}
    )

    def run(self, task: str) -> dict[str, float]:
        """Seconds of one step, by part and path."""
        start = time.perf_counter()
        getattr(self.network, task)()
        whole = time.perf_counter() - start
        forward, backward = self.stopwatch.take()
        seconds = {ALL: whole, CONVOLUTIONS: 0.0, POOLINGS: 0.0, HEADS: 0.0}
        for path, part in self.parts.items():
            seconds[part] += forward[path] + backward[path]
            if part == HEADS:
                # A layer's call has its head's in it, but their nodes are apart.
                layer = path.removesuffix(HEAD_SUFFIX)
                seconds[POOLINGS] -= forward[path]
                seconds[path] = forward[path] + backward[path]
                seconds[layer] = forward[layer] + backward[layer] + backward[path]
        seconds[REST] = whole - sum(seconds[part] for part in (CONVOLUTIONS, POOLINGS, HEADS))
        return seconds


def measure(arch: str, options: argparse.Namespace, deadline: float, results: NetworkParts) -> None:
    """Adds to ``results`` what one network does under every pooling, in turn."""
    contenders = {
        pool: make_contender(arch, pool, options)
        for pool in options.pools
        # VGG strides in its poolings only: without them it is another network, and 40 times slower.
        if not (pool == "skip" and arch.startswith("vgg"))
    }
    keys = [(pool, task) for pool in contenders for task in TASKS]
    for pool, task in keys:
        contenders[pool].run(task)  # compiles what is compiled at run time
    shuffle = random.Random(0)
    for repeat in range(options.repeats):
        if repeat > 2 and time.monotonic() > deadline:
            break
        for pool, task in shuffle.sample(keys, len(keys)):
            contenders[pool].rounds[task].append(contenders[pool].run(task))
    for pool, task in keys:
        add_results(results, arch, pool, task, contenders[pool])


def make_contender(arch: str, pool: str, options: argparse.Namespace) -> Contender:
    network = make_network(
        argparse.Namespace(
            arch=arch, device="cpu", layout="contiguous", amp=None,
            batch_size=options.batch_size, image_size=options.image_size,
        ),
        pool,
    )  # fmt: skip
    parts, modules = {}, {}
    for path, module in network.model.named_modules():
        part = part_of(module, path)
        if part is not None:
            parts[path], modules[path] = part, module
    return Contender(network, Stopwatch(modules), parts)


def part_of(module: nn.Module, path: str) -> str | None:
    """The part of a network that ``module`` is, or ``None`` if it is none by itself."""
    if path.endswith(HEAD_SUFFIX):
        return HEADS
    if f"{HEAD_SUFFIX}." in path:
        return None
    if isinstance(module, nn.Conv2d):
        return CONVOLUTIONS
    return POOLINGS if isinstance(module, (GuidedPool2d, nn.MaxPool2d, nn.AvgPool2d)) else None


def add_results(
    results: NetworkParts, arch: str, pool: str, task: str, contender: Contender
) -> None:
    rounds = contender.rounds[task]

    def spread(name: str) -> Spread:
        return Spread.of([one[name] for one in rounds])

    for part in (ALL, CONVOLUTIONS, POOLINGS, HEADS, REST):
        results.parts.append(NetworkPart(arch, pool, task, part, spread(part)))
    told = ", ".join(f"{one.part} {1000 * one.seconds.median:.3g}" for one in results.parts[-5:])
    print(f"{arch} {pool}, {task}, ms: {told}", flush=True)
    for path, module in contender.network.model.named_modules():
        if isinstance(module, GuidedPool2d):
            _, *size = contender.stopwatch.shapes[path]
            window = (module.kernel_size[0], module.stride[0], module.padding[0])
            layer, head = spread(path), spread(path + HEAD_SUFFIX)
            shape = str(Shape(*size, *window))
            results.layers.append(LayerTime(arch, pool, task, path, shape, layer, head))


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
