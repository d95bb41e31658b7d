"""One run of an experiment: ``train_imagenet.py`` trains, then evaluates the last epoch."""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.rows import Row
from models import create_model
from training.errors import UserError
from training.images.fashion_mnist import CLASSES
from training.records.config import CONFIG_NAME, read_config
from training.records.environment import REPOSITORY
from training.records.evaluation import EVALUATION_NAME, read_evaluation


@dataclass(frozen=True)
class Recipe:
    """What the runs of an experiment have in common.

    Attributes:
        arch, data, epochs, batch_size, lr: as the options of ``train_imagenet.py``.
        batches: of an epoch.
        device: ``"cpu"`` or ``"cuda"``.
    """

    arch: str
    data: str
    epochs: int
    batches: int
    batch_size: int
    lr: float
    device: str = "cpu"

    @property
    def train_images(self) -> int:
        """Images seen in training, over all epochs."""
        return self.epochs * self.batches * self.batch_size

    @property
    def columns(self) -> tuple[object, ...]:
        """What must be the same in the rows of runs that are compared."""
        return self.arch, self.epochs, self.batch_size, self.lr, self.train_images

    def train_options(self, pool: str, seed: int, out_dir: Path) -> list[str]:
        """Return the options that train under ``pool`` from ``seed``.

        What is validated after each epoch decides nothing, so a few batches do.
        """
        options = [*self._options(pool), "--lr", self.lr, "--seed", seed, "--epochs", self.epochs]
        options += ["--limit-train-batches", self.batches, "--limit-val-batches", 4]
        options += ["--save-last-checkpoint", "--out-dir", out_dir]
        return [str(option) for option in options]

    def evaluate_options(self, pool: str, checkpoint: Path) -> list[str]:
        """Return the options that evaluate ``checkpoint`` on all test images, into its folder."""
        options = [*self._options(pool), "--evaluate", "--resume", checkpoint]
        return [str(option) for option in (*options, "--out-dir", checkpoint.parent)]

    def last_checkpoint(self, out_dir: Path) -> Path:
        """Return the checkpoint that training leaves in ``out_dir``."""
        return out_dir / f"checkpoint-epoch{self.epochs}.pth.tar"

    def _options(self, pool: str) -> list[object]:
        options = ["--dataset", "fashion-mnist", "--data", self.data, "--arch", self.arch]
        options += ["--pool", pool, "--batch-size", self.batch_size, "--channels-last"]
        return [*options, "--cpu"] if self.device == "cpu" else options


def run(recipe: Recipe, pool: str, seed: int, runs: Path) -> Row:
    """Train and evaluate a network in ``runs/POOL-seedN``, from the start; return its row.

    Raises:
        UserError: a command fails, or there are fewer training images than ``recipe`` asks for.
    """
    out_dir = folder_of(runs, pool, seed)
    if out_dir.exists():
        shutil.rmtree(out_dir)  # of a run that was interrupted
    start = time.perf_counter()
    run_trainer(recipe.train_options(pool, seed, out_dir))
    seconds = time.perf_counter() - start
    config = read_config(out_dir / CONFIG_NAME)
    available = config["train_images"]
    if available < recipe.batches * recipe.batch_size:
        raise UserError(
            f"--batches {recipe.batches}: of {recipe.batch_size} images each are more than the "
            f"{available} training images; lower it"
        )
    run_trainer(recipe.evaluate_options(pool, recipe.last_checkpoint(out_dir)))
    evaluation = read_evaluation(out_dir / EVALUATION_NAME)
    model = create_model(recipe.arch, pool, len(CLASSES))
    return Row(
        pool=pool,
        seed=seed,
        arch=recipe.arch,
        top1_error=round(evaluation.top1_error, 2),
        top5_error=round(evaluation.top5_error, 2),
        loss=round(evaluation.loss, 4),
        eval_images=evaluation.images,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        train_images=recipe.train_images,
        seconds=round(seconds, 1),
        commit=str(config["git"]["commit"]),
        dirty=str(config["git"]["dirty"]),
        **{name: str(config["versions"][name]) for name in ("torch", "torchvision", "numba")},
        python=config["versions"]["python"],
        backend=config["backend"],
        device=config["device"],
        threads=config["threads"],
        started=config["started"],
    )


def folder_of(runs: Path, pool: str, seed: int) -> Path:
    """Return the folder of a run among ``runs``."""
    return runs / f"{pool}-seed{seed}"


def run_trainer(options: Sequence[str]) -> None:
    """Run ``train_imagenet.py`` in a process of its own.

    Raises:
        UserError: it fails.
    """
    command = [sys.executable, str(REPOSITORY / "train_imagenet.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"train_imagenet.py {' '.join(options)}: exit code {done.returncode}\n{done.stderr}"
        )
