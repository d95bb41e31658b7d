"""Poolings compared on Fashion-MNIST: ``python experiments/fashion_mnist.py --help``.

One network, one recipe, under each pooling and from each of several seeds.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

if __name__ == "__main__":
    # From a clone, without installing: import from the repository, not from this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.lambdas import lambdas_of_run, sample_images
from experiments.rows import Row, read_rows, write_rows
from experiments.runs import Recipe, folder_of, run
from training.argument_types import positive_float, positive_int
from training.errors import UserError, exit_code
from training.images.datasets import DATASETS

POOLS = ("skip", "max", "avg", "soft", "max_ent_unguided", "max_ent")
POOLS_WITH_LAMBDA = ("soft", "max_ent_unguided", "max_ent")
LAMBDA_IMAGES = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs of the command line ``argv`` that are not in the results yet."""
    options = make_parser().parse_args(argv)
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})

    def work() -> None:
        run_all(
            recipe=recipe,
            pools=options.pools,
            seeds=options.seeds,
            runs=options.runs,
            results=options.results,
        )
        measure_lambdas(recipe, options.runs, options.results, lambdas=options.lambdas)

    return exit_code("fashion_mnist.py", work)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Trains a network on Fashion-MNIST under each pooling and from each seed with "
        "train_imagenet.py, evaluates it after its last epoch on all test images, and adds a row "
        "to --results. Runs that have a row are left out, so that it can be stopped and started "
        "again. In the end it measures the λ of the Max-Ent networks.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--pools", nargs="+", default=POOLS, metavar="NAME", help=f"(default: {' '.join(POOLS)})"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=range(5), metavar="N", help="(default: 0 to 4)"
    )
    parser.add_argument("--arch", default="resnet18", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--data", default=DATASETS["fashion-mnist"].root, metavar="DIR",
        help="folder with the four IDX files (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--epochs", type=positive_int, default=5, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--batches", type=positive_int, default=36, metavar="N",
        help="of an epoch (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--lr", type=positive_float, default=0.02, metavar="LR", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("results/fashion-mnist"), metavar="DIR",
        help="where each run gets a folder; one that was interrupted is removed and made again "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, default=Path("results/fashion_mnist.csv"), metavar="FILE",
        help="(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--lambdas", type=Path, default=Path("results/fashion_mnist_lambdas.csv"), metavar="FILE",
        help="(default: %(default)s)",
    )  # fmt: skip
    return parser


def run_all(
    recipe: Recipe, pools: Sequence[str], seeds: Sequence[int], runs: Path, results: Path
) -> None:
    """Make the runs that ``results`` has no row of, all poolings of a seed before the next seed.

    Raises:
        UserError: a run fails, or the rows that are there are of another recipe.
    """
    rows = read_rows(Row, results) if results.exists() else []
    for row in rows:
        if row.recipe != recipe.columns:
            raise UserError(
                f"--results {results}: has rows of another recipe, {row.recipe} and not "
                f"{recipe.columns}; choose another file"
            )
    for seed in seeds:
        for pool in pools:
            if any((row.pool, row.seed) == (pool, seed) for row in rows):
                continue
            row = run(recipe, pool, seed, runs=runs)
            rows.append(row)
            write_rows(rows, results)
            print(
                f"{pool}, seed {seed}: top-1 error {row.top1_error:.2f}%, {row.seconds:.0f} s",
                flush=True,
            )


def measure_lambdas(recipe: Recipe, runs: Path, results: Path, lambdas: Path) -> None:
    """Write to ``lambdas`` how the Max-Ent networks of all runs of ``results`` pool.

    Raises:
        UserError: a run's last checkpoint is gone.
    """
    images = sample_images(recipe.data, LAMBDA_IMAGES)
    layers = []
    for row in read_rows(Row, results):
        if row.pool in POOLS_WITH_LAMBDA:
            checkpoint = recipe.last_checkpoint(folder_of(runs, row.pool, row.seed))
            layers += lambdas_of_run(row.pool, row.seed, checkpoint, images=images)
    if layers:
        write_rows(layers, lambdas)


if __name__ == "__main__":
    sys.exit(main())
