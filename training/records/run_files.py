"""What a run tells of itself beside its log and curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from training.processes.launcher import Process
from training.records.config import CONFIG_NAME, config_of, write_config
from training.records.history import EpochRecord
from training.records.lambdas import LAMBDAS_NAME, write_lambdas
from training.records.tensorboard import open_tensorboard, write_tensorboard
from training.settings import Settings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Report:
    """Keeps config.json, lambdas.csv and, with ``--tensorboard``, its files in ``--out-dir``.

    It is for the main process. Making it prints how to repeat the run, and writes nothing: a run
    that fails before its first epoch ends leaves every file as it was.

    Args:
        settings, process, seed: of the run.
        start_epoch: number of epochs that it has had.
        resumed: it goes on from a checkpoint.
    """

    def __init__(
        self, settings: Settings, process: Process, seed: int, start_epoch: int, resumed: bool
    ) -> None:
        self.settings = settings
        self.out_dir = Path(settings.out_dir)
        self.start_epoch = start_epoch
        self.resumed = resumed
        self.config = config_of(settings, process, seed)
        self.tensorboard: SummaryWriter | None = None
        self.begun = False
        print(f"to repeat this run in another --out-dir: {self.config.command}", flush=True)

    def begin(self) -> None:
        """Write config.json and open TensorBoard's files, the first time that it is called.

        ``add_epoch`` calls it; call it where a checkpoint is left before.

        Raises:
            WriteError: a file cannot be written.
        """
        if not self.begun:
            write_config(self.config, self.out_dir / CONFIG_NAME, self.resumed)
            self.begun = True
        if self.tensorboard is None:
            self.tensorboard = open_tensorboard(self.settings, self.start_epoch)

    def add_epoch(self, record: EpochRecord, lambdas: Mapping[str, Tensor]) -> None:
        """Write what an epoch came to, and the λ [N, C] by layer after it.

        Raises:
            WriteError: a file cannot be written.
        """
        self.begin()
        write_lambdas(lambdas, record.epoch, self.out_dir / LAMBDAS_NAME)
        if self.tensorboard is not None:
            write_tensorboard(self.tensorboard, record, lambdas)
