"""One run of an experiment: ``train_imagenet.py`` trains, then evaluates the last epoch."""

import re
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
        options = [
            *self._options(pool),
            *("--epochs", self.epochs, "--limit-train-batches", self.batches),
            *("--lr", self.lr, "--seed", seed, "--limit-val-batches", 4),
            *("--save-last-checkpoint", "--out-dir", out_dir),
        ]
        return [str(option) for option in options]

    def evaluate_options(self, pool: str, checkpoint: Path) -> list[str]:
        """Return the options that evaluate ``checkpoint`` on all test images."""
        options = [*self._options(pool), "--evaluate", "--resume", checkpoint]
        return [str(option) for option in options]

    def last_checkpoint(self, out_dir: Path) -> Path:
        """Return the checkpoint that training leaves in ``out_dir``."""
        return out_dir / f"checkpoint-epoch{self.epochs}.pth.tar"

    def _options(self, pool: str) -> list[object]:
        return [
            *("--dataset", "fashion-mnist", "--data", self.data, "--arch", self.arch),
            *("--pool", pool, "--batch-size", self.batch_size, "--channels-last"),
            *(["--cpu"] if self.device == "cpu" else []),
        ]


def run(recipe: Recipe, pool: str, seed: int, runs: Path) -> Row:
    """Train and evaluate a network in ``runs/POOL-seedN``, from the start; return its row.

    Raises:
        UserError: a command fails, or there are fewer training images than ``recipe`` asks for.
    """
    out_dir = folder_of(runs, pool, seed)
    if out_dir.exists():
        shutil.rmtree(out_dir)  # of a run that was interrupted
    start = time.perf_counter()
    printed = output_of(recipe.train_options(pool, seed, out_dir))
    seconds = time.perf_counter() - start
    available = int(_found(r"(\d+) training and", printed)[0])
    if available < recipe.batches * recipe.batch_size:
        raise UserError(
            f"--batches {recipe.batches}: of {recipe.batch_size} images each are more than the "
            f"{available} training images; lower it"
        )
    printed = output_of(recipe.evaluate_options(pool, recipe.last_checkpoint(out_dir)))
    number = r"([\d.]+)"
    err1, err5, loss, images = _found(
        rf"top-1 error {number}%, top-5 error {number}%, loss {number} on (\d+) images", printed
    )
    config = read_config(out_dir / CONFIG_NAME)
    model = create_model(recipe.arch, pool, len(CLASSES))
    return Row(
        pool=pool,
        seed=seed,
        arch=recipe.arch,
        top1_error=float(err1),
        top5_error=float(err5),
        loss=float(loss),
        eval_images=int(images),
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


def output_of(options: Sequence[str]) -> str:
    """Run ``train_imagenet.py`` in a process of its own; return what it prints.

    Raises:
        UserError: it fails.
    """
    command = [sys.executable, str(REPOSITORY / "train_imagenet.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"train_imagenet.py {' '.join(options)}: exit code {done.returncode}\n{done.stderr}"
        )
    return done.stdout


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise UserError(f"train_imagenet.py printed no {pattern!r}, but: {text}")
    return match.groups()
