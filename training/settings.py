"""The settings of a run: what the command line asked for, and the check that it can be done."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import torch

from gfgp_cupy.choices import check_choice
from models import list_models
from models.pooling import POOL_TYPES
from training.data import DATASETS
from training.errors import UserError
from training.recipes import RECIPES, Recipe


@dataclass(frozen=True)
class Settings:
    """The options of ``train_imagenet.py`` under their own names; None where one was not given."""

    dataset: str
    data: str
    val_data: str | None
    num_classes: int | None
    exclude: str | None
    workers: int
    arch: str
    pool: str
    pretrained: bool
    weights: str | None
    config_name: str
    epochs: int | None
    batch_size: int | None
    lr: float | None
    seed: int | None
    start_epoch: int
    limit_train_batches: int | None
    limit_val_batches: int | None
    evaluate: bool
    resume: str | None
    out_dir: str
    pdf_filename: str
    save_last_checkpoint: bool
    print_freq: int
    cpu: bool
    gpu: int | None
    multiprocessing_distributed: bool
    nproc: int | None
    world_size: int
    rank: int
    dist_url: str
    dist_backend: str

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.config_name]

    @property
    def learning_rates(self) -> list[float]:
        """The learning rate of each epoch."""
        return self.recipe.learning_rates(self.epochs, self.lr)

    @property
    def images_per_step_here(self) -> int:
        """Images a step over this machine's processes."""
        return self.recipe.batch_size if self.batch_size is None else self.batch_size

    @property
    def uses_gpu(self) -> bool:
        return torch.cuda.is_available() and not self.cpu

    @property
    def is_distributed(self) -> bool:
        return self.multiprocessing_distributed or self.world_size > 1

    @property
    def processes_here(self) -> int:
        """Number of processes on this machine, the same on every other."""
        if not self.multiprocessing_distributed:
            return 1
        if self.nproc is not None:
            return self.nproc
        return torch.cuda.device_count() if self.uses_gpu else 1

    @property
    def backend(self) -> str:
        """The communication backend: the one asked for, or gloo where there is no GPU."""
        return self.dist_backend if self.uses_gpu else "gloo"

    def check(self) -> None:
        """Check the options against each other and against this machine.

        Raises:
            UserError: a name is unknown, or options contradict each other or the machine.
        """
        self._check_names()
        self._check_devices()
        self._check_processes()
        if self.evaluate and self.resume is None:
            raise UserError("--evaluate: say which checkpoint to evaluate with --resume FILE")
        if self.exclude is not None and not self.evaluate:
            raise UserError(f"--exclude {self.exclude}: only goes with --evaluate")
        if self.val_data is not None and self.dataset != "imagenet":
            raise UserError(
                f"--val-data {self.val_data}: only goes with shards of images, which are --dataset "
                f"imagenet, not {self.dataset}"
            )
        if self.val_data is not None and self.exclude is not None:
            raise UserError(f"--exclude {self.exclude}: images in shards have no files' names")
        if self.pretrained and self.weights is not None:
            raise UserError(f"--pretrained and --weights {self.weights}: leave one of them out")
        if not self.pdf_filename.endswith(".pdf"):
            raise UserError(f"--pdf-filename {self.pdf_filename}: must end in .pdf")
        if not self.evaluate and self.images_per_step_here < 2 * self.processes_here:
            raise UserError(
                f"--batch-size {self.images_per_step_here}: batch normalisation needs at least 2 "
                f"images in each of the {self.processes_here} processes"
            )
        if self.start_epoch >= len(self.learning_rates):
            raise UserError(
                f"--start-epoch {self.start_epoch}: must be below the number of epochs, "
                f"{len(self.learning_rates)}"
            )

    def _check_names(self) -> None:
        try:
            check_choice("--dataset", self.dataset, list(DATASETS))
            check_choice("--arch", self.arch, list_models())
            check_choice("--pool", self.pool, POOL_TYPES)
            check_choice("--config-name", self.config_name, list(RECIPES))
        except ValueError as error:
            raise UserError(str(error)) from error

    def _check_devices(self) -> None:
        if self.gpu is None:
            return
        if self.cpu:
            raise UserError(f"--gpu {self.gpu} and --cpu: leave one of them out")
        if self.multiprocessing_distributed:
            raise UserError(
                f"--gpu {self.gpu} and --multiprocessing-distributed, which takes every GPU: "
                "leave one of them out"
            )
        if self.gpu >= torch.cuda.device_count():
            raise UserError(
                f"--gpu {self.gpu}: PyTorch sees {torch.cuda.device_count()} GPUs here, counted "
                "from 0; leave the option out or pass --cpu"
            )

    def _check_processes(self) -> None:
        if self.nproc is not None and not self.multiprocessing_distributed:
            raise UserError(f"--nproc {self.nproc}: only goes with --multiprocessing-distributed")
        if self.uses_gpu and self.processes_here > torch.cuda.device_count():
            raise UserError(
                f"--nproc {self.nproc}: PyTorch sees {torch.cuda.device_count()} GPUs here, and "
                "each process takes one; lower it or pass --cpu"
            )
        if not 0 <= self.rank < self.world_size:
            raise UserError(
                f"--rank {self.rank}: must be from 0 to --world-size - 1 = {self.world_size - 1}"
            )
        if self.is_distributed:
            address_of(self.dist_url)


def address_of(dist_url: str) -> tuple[str, int]:
    """Return the host and port of ``tcp://HOST:PORT``.

    Raises:
        UserError: ``dist_url`` is not of that form.

    Example:
        >>> address_of("tcp://127.0.0.1:8080")
        ('127.0.0.1', 8080)
    """
    try:
        parts = urlsplit(dist_url)
        if parts.scheme == "tcp" and parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:  # a port that is no number or out of range: the same advice
        pass
    raise UserError(f"--dist-url {dist_url}: must be tcp://HOST:PORT, like tcp://127.0.0.1:8080")
