"""How trained networks pool: the λ of their layers, what it comes to, and for which images."""

from collections.abc import Iterator
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from experiments.pooling_study.rows import ExampleRow, LambdaRow, OfRun
from experiments.pooling_study.tasks import Images
from experiments.pooling_study.training import EVALUATION_BATCH
from gfgp_cupy.pool2d import Pool2d
from gfgp_cupy.record import has_parameters
from training.records.lambdas import lambdas_of

IMAGES_OF_LAMBDAS = 500
EXAMPLES = 6


def lambda_rows(run: OfRun, network: nn.Module, images: Images, done: int) -> list[LambdaRow]:
    """Return how the layers of ``network``, left in evaluation mode, pool some of ``images``."""
    if not has_parameters(network):
        return []
    some = images.every(IMAGES_OF_LAMBDAS)
    seen = some.unmoved(some.indices)
    positions = positions_of(network, seen)
    return [
        lambda_row(run, done, layer, lam, position)
        for layer, (lam, position) in enumerate(
            zip(lambdas_of(network, seen).values(), positions, strict=True), start=1
        )
    ]


def lambda_row(run: OfRun, done: int, layer: int, lam: Tensor, position: float) -> LambdaRow:
    """Return the statistics of λ [N, C]."""
    statistics = {
        "mean": lam.mean(),
        "least": lam.min(),
        "most": lam.max(),
        "between_channels": lam.mean(dim=0).std(correction=0),
        "between_images": lam.var(dim=0, correction=0).mean().sqrt(),
    }
    rounded = {name: float(f"{value.item():.4g}") for name, value in statistics.items()}
    return LambdaRow(*run.key, done, layer, position=round(position, 4), **rounded)


@torch.no_grad()
def positions_of(network: nn.Module, images: Tensor) -> list[float]:
    """Return the position of each pooling of ``network``, in evaluation mode, in their order."""
    positions: list[float] = []

    def record(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        positions.append(position_between(args[0], output, layer))

    network.eval()
    with ExitStack() as stack:
        for layer in pooling_layers(network):
            stack.enter_context(layer.register_forward_hook(record))
        network(images)
    return positions


def pooling_layers(network: nn.Module) -> Iterator[Pool2d]:
    """Return the layers of ``network`` that are of this library."""
    return (module for module in network.modules() if isinstance(module, Pool2d))


def position_between(x: Tensor, y: Tensor, layer: nn.Module) -> float:
    """Return where ``y``, ``layer``'s output for ``x``, is between average (0) and max (1)."""
    average = avg_pool2d(x, *layer.window, count_include_pad=False)
    largest = max_pool2d(x, *layer.window[:3], ceil_mode=layer.ceil_mode)
    return ((y - average).double().sum() / (largest - average).double().sum()).item()


def example_rows(run: OfRun, network: nn.Module, images: Images) -> list[ExampleRow]:
    """Return which of ``images`` each layer has the highest and the lowest λ for.

    None of a layer that has the same λ for every image.
    """
    batches = [
        lambdas_of(network, images.unmoved(which))
        for which in images.indices.split(EVALUATION_BATCH)
    ]
    rows = []
    for layer, path in enumerate(batches[0], start=1):
        means = torch.cat([batch[path] for batch in batches]).mean(dim=1)
        if means.min() < means.max():
            order = means.argsort(descending=True, stable=True).tolist()
            rows += [
                ExampleRow(*run.key, layer, rank, order[rank], float(f"{means[order[rank]]:.4g}"))
                for rank in (*range(EXAMPLES), *range(-EXAMPLES, 0))
            ]
    return rows
