"""Norms of the GFGP head compared at small batches: ``python experiments/head_norms.py --help``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import nn

from experiments.digits import Digits, evaluate, load_digits, train
from experiments.rows import write_rows
from gfgp_cupy import GFGPMaxEntPool2d, record_lambdas
from training.records.environment import device_name, git_state

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "none": nn.Identity,
    "layer": partial(nn.GroupNorm, 1),
    "groups of 8": lambda num_features: nn.GroupNorm(num_features // 8, num_features),
}
WIDTHS = (16, 32, 64)
EPOCHS = {2: 3, 32: 12}  # by batch size
LR_OF_A_SAMPLE = 0.2 / 32


@dataclass(frozen=True)
class NormRow:
    """A network trained with one norm in its heads, from one seed.

    Attributes:
        norm: one of ``NORMS``.
        batch_size, epochs, lr: of the training.
        top1_error, loss: on the test images, in percent and as mean cross-entropy.
        between_images: standard deviation of a channel's λ over the training images in evaluation
            mode, root mean square over the channels of all layers.
        between_modes: root mean square of the difference of λ in training mode, in batches of
            ``batch_size``, from that of the same image in evaluation mode.
        commit, torch, python, device, threads: what it was made with.
    """

    norm: str
    batch_size: int
    seed: int
    epochs: int
    lr: float
    top1_error: float
    loss: float
    between_images: float
    between_modes: float
    commit: str
    torch: str
    python: str
    device: str
    threads: int


def main(argv: Sequence[str] | None = None) -> int:
    """Train the networks of the command line ``argv``."""
    parser = argparse.ArgumentParser(
        description="Trains a small network on scikit-learn's digits with each norm in its GFGP "
        "heads, in batches of 2 and of 32, and writes a row each to --results. It takes minutes.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=range(5), metavar="N", help="(default: 0 to 4)"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results/head_norms.csv"), metavar="FILE",
        help="(default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = load_digits()
    rows = []
    for seed in options.seeds:
        for batch_size in EPOCHS:
            for norm in NORMS:
                rows.append(run(norm, batch_size, seed, *data))
                print(rows[-1], flush=True)
    write_rows(rows, options.results)
    return 0


def run(norm: str, batch_size: int, seed: int, train_digits: Digits, test: Digits) -> NormRow:
    """Train a network with ``norm`` in its heads and return its row."""
    torch.manual_seed(seed)
    model = network(NORMS[norm])
    lr = LR_OF_A_SAMPLE * batch_size
    generator = torch.Generator().manual_seed(seed)
    train(
        model,
        train_digits,
        epochs=EPOCHS[batch_size],
        batch_size=batch_size,
        lr=lr,
        generator=generator,
    )
    error, loss = evaluate(model, test)
    between_images, between_modes = lambdas(model, train_digits, batch_size)
    return NormRow(
        norm=norm,
        batch_size=batch_size,
        seed=seed,
        epochs=EPOCHS[batch_size],
        lr=lr,
        top1_error=round(error, 3),
        loss=round(loss, 5),
        between_images=round(between_images, 4),
        between_modes=round(between_modes, 4),
        commit=str(git_state().commit),
        torch=torch.__version__,
        python=sys.version.split()[0],
        device=device_name(torch.device("cpu")),
        threads=torch.get_num_threads(),
    )


def network(norm_layer: Callable[[int], nn.Module]) -> nn.Sequential:
    """A network whose own norms are of single samples, so that its heads' alone are compared."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((1, *WIDTHS), WIDTHS, strict=False):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(outputs // 8, outputs),
            nn.ReLU(),
            GFGPMaxEntPool2d(outputs, 2, norm_layer=norm_layer),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 10))


@torch.no_grad()
def lambdas(model: nn.Module, digits: Digits, batch_size: int) -> tuple[float, float]:
    """Return ``between_images`` and ``between_modes`` of a row."""
    model.eval()
    with record_lambdas(model) as evaluated:
        model(digits.images)
    model.train()
    whole = len(digits.images) // batch_size * batch_size
    with record_lambdas(model) as trained:
        for batch in digits.images[:whole].split(batch_size):
            model(batch)
    evaluated_all = torch.cat(list(evaluated.values()), dim=1)[:whole]
    trained_all = torch.cat(list(trained.values()), dim=1)
    between_images = evaluated_all.var(0, correction=0).mean().sqrt()
    return between_images.item(), (trained_all - evaluated_all).square().mean().sqrt().item()


if __name__ == "__main__":
    sys.exit(main())
