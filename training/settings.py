"""The settings of a run: what the command line asked for, and what follows from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from models import list_models
from models.pooling import POOL_TYPES
from training.forward import AMP_TYPES, Forward
from training.images.datasets import DATASETS
from training.loading.workers import default_workers
from training.options import OPTIONS, Options, flag_of
from training.processes.placement import Placement
from training.processes.rendezvous import meeting_of
from training.processes.torchrun import VARIABLES, Torchrun, read_torchrun
from training.recipes import RECIPES, Recipe

DEFAULT_ARCH, DEFAULT_POOL = "resnet50", "max_ent"


@dataclass(frozen=True)
class Settings(Options):
    """The options of a run, those that depend on others filled in, and what follows from them.

    Attributes:
        torchrun: no option but what the environment says, None where torchrun did not start us.
    """

    torchrun: Torchrun | None = None

    @classmethod
    def of(cls, options: Options, environ: Mapping[str, str]) -> "Settings":
        """Return the settings of ``options`` where the environment's variables are ``environ``.

        ``training.checks`` says whether they can be.

        Raises:
            UserError: ``environ`` lacks a variable that ``options`` ask for, or one is no number.
        """
        filled = vars(options).copy()
        without_data = options.data is None and options.val_data is None
        if options.dataset is None and without_data:
            filled["dataset"] = "digits"
        elif not without_data and options.dataset not in DATASETS:
            filled["dataset"] = "imagenet"  # as published, where the name only says so
        entry = DATASETS.get(filled["dataset"])  # an unknown name is left for check
        if options.data is None:
            filled["data"] = entry.root if entry else ""
        if entry and options.config_name is None:
            filled["config_name"] = entry.config_name
        torchrun = read_torchrun(environ)
        if entry and options.workers is None:
            workers = default_workers(beside_others=torchrun is not None)
            filled["workers"] = 0 if entry.in_memory else workers
        if torchrun is not None:  # whose numbers are those of processes, not of machines
            environ = {name: environ[name] for name in environ.keys() - VARIABLES}
        filled |= meeting_of(options, environ)
        settings = cls(**filled, torchrun=torchrun)
        # A file may say which network it is of.
        from_file = options.resume is not None or options.evaluate
        return settings if from_file else settings.with_network()

    def with_network(self, arch: str | None = None, pool: str | None = None) -> "Settings":
        """Return the settings with the network that the options did not name.

        It is that of a file, ``arch`` and ``pool``, and the default where that does not say it or
        says one that there is not, which is refused where its tensors are taken.
        """
        arch = arch if arch in list_models() else DEFAULT_ARCH
        pool = pool if pool in POOL_TYPES else DEFAULT_POOL
        return replace(self, arch=self.arch or arch, pool=self.pool or pool)

    @cached_property  # each step asks for it
    def recipe(self) -> Recipe:
        """The recipe of ``config_name``, with what the options say instead of it."""
        given = {
            name: getattr(self, name)
            for name, option in OPTIONS.items()
            if option.from_recipe and getattr(self, name) is not None
        }
        return replace(RECIPES[self.config_name], **given)

    @property
    def learning_rates(self) -> list[float]:
        """The learning rate of each epoch."""
        return self.recipe.learning_rates()

    @property
    def kept_checkpoints(self) -> int | None:
        """How many checkpoints of epochs are kept beside the best one; None keeps all."""
        return 1 if self.save_last_checkpoint else self.keep_checkpoints

    @property
    def workers_each(self) -> int:
        """Each process's share of ``workers``."""
        return math.ceil(self.workers / self.processes_here)

    @property
    def images_per_step(self) -> int:
        """Images a step over all processes of all machines."""
        return self.images_per_step_here * self.machines

    @property
    def images_per_step_here(self) -> int:
        """Images a step over this machine's processes."""
        return self.recipe.batch_size

    @property
    def forward(self) -> Forward:
        """How images go through the network."""
        return Forward(AMP_TYPES[self.amp], self.memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        """Of the network and the images."""
        return torch.channels_last if self.channels_last else torch.preserve_format

    @property
    def names_weights(self) -> bool:
        """Whether the options say which weights to evaluate."""
        return self.resume is not None or self.weights is not None or self.pretrained

    @property
    def smallest_batch_here(self) -> int:
        """Images that this machine needs a step: batch normalisation cannot take a single one."""
        return 2 * self.processes_here * self.accum_steps

    @property
    def uses_gpu(self) -> bool:
        return torch.cuda.is_available() and not self.cpu

    @property
    def is_distributed(self) -> bool:
        return self.torchrun is not None or self.multiprocessing_distributed or self.world_size > 1

    @property
    def machines(self) -> int:
        """Number of machines that train together."""
        if self.torchrun is not None:
            return self.torchrun.world_size // self.torchrun.local_world_size
        return self.world_size

    @property
    def processes_here(self) -> int:
        """Number of processes on this machine, the same on every other."""
        if self.torchrun is not None:
            return self.torchrun.local_world_size
        if not self.multiprocessing_distributed:
            return 1
        if self.nproc is not None:
            return self.nproc
        return torch.cuda.device_count() if self.uses_gpu else 1

    @property
    def backend(self) -> str:
        """The communication backend: the one asked for, or gloo where there is no GPU."""
        return self.dist_backend if self.uses_gpu else "gloo"

    @property
    def placement(self) -> Placement:
        """Which processes train together."""
        return Placement(
            is_distributed=self.is_distributed,
            machines=self.machines,
            machine=self.rank,
            processes_here=self.processes_here,
            uses_gpu=self.uses_gpu,
            first_gpu=self.gpu or 0,
            dist_url=self.dist_url,
            backend=self.backend,
            timeout=self.dist_timeout,
            torchrun=self.torchrun,
            way_on=self.way_on,
        )

    @property
    def way_on(self) -> str:
        """How to go on with a run after one of its processes has failed."""
        if self.evaluate:
            return "start it again"
        return f"--resume auto goes on from the newest whole checkpoint in --out-dir {self.out_dir}"

    @property
    def notes(self) -> list[str]:
        """What the user may not expect of these settings on this machine, a line each."""
        notes = []
        if self.is_distributed and self.backend != self.dist_backend:
            notes.append(
                f"--dist-backend {self.dist_backend} needs GPUs: using gloo on the CPU, "
                f"{self.processes_here} processes on this machine"
            )
        if self.uses_gpu and not self.is_distributed and self.gpu is None:
            gpus = torch.cuda.device_count()
            if gpus > 1:
                notes.append(
                    f"using one of {gpus} GPUs; for all of them start with torchrun "
                    f"--nproc-per-node {gpus} train_imagenet.py, or add "
                    "--multiprocessing-distributed (--gpu N chooses one)"
                )
        if not self.evaluate:
            return [*notes, *self._notes_on_learning_rates()]
        unused = [flag_of(name) for name in ("log", "tensorboard") if getattr(self, name)]
        if unused:
            notes.append(f"{' and '.join(unused)}: --evaluate writes its files alone")
        return notes

    def _notes_on_learning_rates(self) -> list[str]:
        """What of the recipe's schedule does not happen in so few epochs."""
        notes, recipe = [], self.recipe
        if recipe.warmup_epochs >= recipe.epochs:
            notes.append(
                f"--epochs {recipe.epochs}: the recipe's warm-up lasts {recipe.warmup_epochs}, so "
                f"the learning rate does not come to {recipe.lr:g}; shorten it with "
                "--warmup-epochs N"
            )
        late = [each for each in recipe.lr_milestones or () if each >= recipe.epochs]
        if recipe.lr_schedule == "milestones" and late:
            notes.append(
                f"--lr-milestones: the run has {recipe.epochs} epochs, and so none with the lower "
                f"learning rate that follows {' and '.join(map(str, late))}"
            )
        return notes
