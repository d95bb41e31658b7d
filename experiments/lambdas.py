"""How trained networks pool: the λ of their Max-Ent layers, and what it comes to."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d
from gfgp_cupy.poolings import SoftPool2d
from models import create_model
from training.checkpoints.format import load_checkpoint
from training.images.datasets import DATASETS
from training.images.fashion_mnist import CLASSES
from training.loading.samples import SampleKey, validation_images
from training.recipes import RECIPES
from training.records.lambdas import lambdas_of

LAYERS = (GFGPMaxEntPool2d, MaxEntPool2d, SoftPool2d)


@dataclass(frozen=True)
class LayerLambdas:
    """How a pooling layer of one run pools.

    Attributes:
        pool, seed: of the run.
        layer: its path in the network.
        images: number of test images that this is measured on.
        mean, least, most: of λ over images and channels; 1 for SoftPool.
        between_channels: standard deviation over the channels of λ's mean over the images.
        between_images: standard deviation over the images of a channel's λ, root mean square over
            the channels.
        position: of the outputs between average (0) and max pooling (1) of the same inputs:
            Σ (output - average) / Σ (max - average).
    """

    pool: str
    seed: int
    layer: str
    images: int
    mean: float
    least: float
    most: float
    between_channels: float
    between_images: float
    position: float


def sample_images(data: str, count: int) -> Tensor:
    """Return ``count`` of Fashion-MNIST's test images, or all, spread evenly: [N, 3, 32, 32]."""
    val = DATASETS["fashion-mnist"].load(data, None, False).val
    images = validation_images(val, RECIPES["fashion-mnist"], seed=0)
    count = min(count, len(images))
    step = len(images) // count
    pixels = torch.stack([images[SampleKey(0, index * step)].image for index in range(count)])
    return images.batch_transform(pixels, [])


def lambdas_of_run(pool: str, seed: int, path: Path, images: Tensor) -> list[LayerLambdas]:
    """Return what the layers of the checkpoint ``path`` do with ``images`` [N, 3, H, W].

    No entries where the pooling is none of the Max-Ent family.

    Raises:
        UserError: there is no such checkpoint.
    """
    checkpoint = load_checkpoint(str(path))
    model = create_model(checkpoint.arch, pool, len(CLASSES))
    model.load_state_dict(checkpoint.state_dict)
    positions = positions_of(model, images)
    lambdas = lambdas_of(model, images)
    return [
        layer_lambdas(pool, seed, layer, lambdas.get(layer, torch.ones(len(images), 1)), position)
        for layer, position in positions.items()
    ]


def layer_lambdas(pool: str, seed: int, layer: str, lam: Tensor, position: float) -> LayerLambdas:
    """Return the statistics of λ [N, C]."""
    return LayerLambdas(
        pool=pool,
        seed=seed,
        layer=layer,
        images=len(lam),
        mean=lam.mean().item(),
        least=lam.min().item(),
        most=lam.max().item(),
        between_channels=lam.mean(dim=0).std(correction=0).item(),
        between_images=lam.var(dim=0, correction=0).mean().sqrt().item(),
        position=position,
    )


@torch.no_grad()
def positions_of(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the position of each Max-Ent layer of ``model``, in evaluation mode, by its path."""
    positions: dict[str, float] = {}
    model.eval()
    with ExitStack() as stack:
        for path, layer in pooling_layers(model):
            stack.enter_context(layer.register_forward_hook(_recorder(positions, path)))
        model(images)
    return positions


def pooling_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Return the Max-Ent layers of ``model`` with their paths."""
    return (each for each in model.named_modules() if isinstance(each[1], LAYERS))


def position_between(x: Tensor, y: Tensor, layer: nn.Module) -> float:
    """Return where ``y``, ``layer``'s output for ``x``, is between average (0) and max (1)."""
    average = avg_pool2d(x, *layer.window, count_include_pad=False)
    largest = max_pool2d(x, *layer.window[:3], ceil_mode=layer.ceil_mode)
    return ((y - average).double().sum() / (largest - average).double().sum()).item()


def _recorder(positions: dict[str, float], path: str):
    def record(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        positions[path] = position_between(args[0], output, layer)

    return record
