"""Trained networks after ``replace_pooling``, with and without ``start="as_was"``:
``python experiments/safe_start.py --help``.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import torchvision
from torch import nn

from experiments.digits import Digits, evaluate, load_digits, train
from experiments.rows import write_rows
from gfgp_cupy import record_lambdas, replace_pooling
from training.records.environment import device_name, git_state

STARTS = ("untouched", "plain", "as_was")
SIZE = 32
EPOCHS, BATCH_SIZE, LR = 12, 32, 0.05
FINE_TUNING_LR = 0.005


@dataclass(frozen=True)
class StartRow:
    """A trained network whose poolings are replaced and which is fine-tuned for an epoch.

    Attributes:
        network: one of ``NETWORKS``.
        start: ``plain`` or ``as_was``; ``untouched`` is fine-tuned without any replacement.
        before, after, tuned: top-1 error on the test images in percent, before the poolings are
            replaced, right after, and after an epoch of fine-tuning.
        loss_before, loss_after, loss_tuned: the mean cross-entropy likewise.
        lambda_after, lambda_tuned: λ of each replaced pooling, mean over images and channels,
            separated by spaces.
        commit, torch, torchvision, python, device, threads: what it was made with.
    """

    network: str
    start: str
    seed: int
    before: float
    after: float
    tuned: float
    loss_before: float
    loss_after: float
    loss_tuned: float
    lambda_after: str
    lambda_tuned: str
    epochs: int
    batch_size: int
    lr: float
    fine_tuning_lr: float
    commit: str
    torch: str
    torchvision: str
    python: str
    device: str
    threads: int


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs of the command line ``argv``."""
    parser = argparse.ArgumentParser(
        description="Trains small networks of torchvision's on scikit-learn's digits, replaces "
        "their poolings by GFGP's, fine-tunes them for an epoch, and writes rows to --results: how "
        "well they do before, right after, and then. It takes minutes.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=range(5), metavar="N", help="(default: 0 to 4)"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results/safe_start.csv"), metavar="FILE",
        help="(default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = load_digits(SIZE, channels=3)
    rows = []
    for seed in options.seeds:
        for network in NETWORKS:
            for row in run(network, seed, *data):
                rows.append(row)
                print(row, flush=True)
    write_rows(rows, options.results)
    return 0


def vgg() -> nn.Module:
    """VGG with BatchNorm, narrow: three max poolings."""
    features = torchvision.models.vgg.make_layers([16, "M", 32, "M", 64, "M"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def densenet() -> nn.Module:
    """DenseNet, narrow: a max pooling and two average poolings."""
    return torchvision.models.DenseNet(8, (2, 2, 2), num_init_features=16, num_classes=10)


NETWORKS = {"vgg": vgg, "densenet": densenet}


def run(
    network: str, seed: int, train_digits: Digits, test: Digits, epochs: int = EPOCHS
) -> list[StartRow]:
    """Train ``network`` from ``seed``, and return the row of each start from there."""
    torch.manual_seed(seed)
    trained = NETWORKS[network]()
    generator = torch.Generator().manual_seed(seed)
    train(trained, train_digits, epochs=epochs, batch_size=BATCH_SIZE, lr=LR, generator=generator)
    return [
        _replaced(network, trained, start, seed, train_digits, test, epochs) for start in STARTS
    ]


def _replaced(network, trained, start, seed, train_digits, test, epochs) -> StartRow:
    model = copy.deepcopy(trained)
    before, loss_before = evaluate(model, test)
    torch.manual_seed(seed)
    if start != "untouched":
        replace_pooling(
            model,
            start="as_was" if start == "as_was" else None,
            sample_shape=(2, 3, SIZE, SIZE),
        )
    after, loss_after = evaluate(model, test)
    lambda_after = _lambdas(model, test, start)
    generator = torch.Generator().manual_seed(seed + 1)
    train(
        model, train_digits, epochs=1, batch_size=BATCH_SIZE, lr=FINE_TUNING_LR, generator=generator
    )
    tuned, loss_tuned = evaluate(model, test)
    return StartRow(
        network=network,
        start=start,
        seed=seed,
        before=round(before, 3),
        after=round(after, 3),
        tuned=round(tuned, 3),
        loss_before=round(loss_before, 5),
        loss_after=round(loss_after, 5),
        loss_tuned=round(loss_tuned, 5),
        lambda_after=lambda_after,
        lambda_tuned=_lambdas(model, test, start),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        lr=LR,
        fine_tuning_lr=FINE_TUNING_LR,
        commit=str(git_state().commit),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        python=sys.version.split()[0],
        device=device_name(torch.device("cpu")),
        threads=torch.get_num_threads(),
    )


@torch.no_grad()
def _lambdas(model: nn.Module, digits: Digits, start: str) -> str:
    if start == "untouched":
        return ""
    model.eval()
    with record_lambdas(model) as lambdas:
        model(digits.images)
    return " ".join(f"{lam.mean():.5g}" for lam in lambdas.values())


if __name__ == "__main__":
    sys.exit(main())
