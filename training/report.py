"""What a run tells of itself beside its log and curves."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from training.config import CONFIG_NAME, config_of, write_config
from training.distributed import Process
from training.history import EpochRecord
from training.lambdas import LAMBDAS_NAME, write_lambdas
from training.settings import Settings
from training.tensorboard import open_tensorboard, write_tensorboard


class Report:
    """Keeps config.json, lambdas.csv and, with ``--tensorboard``, its files in ``--out-dir``.

    It is for the main process, which prints how to repeat the run as it makes the report.

    Args:
        settings, process, seed: of the run.
        start_epoch: number of epochs that it has had.
        resumed: it goes on from a checkpoint.

    Raises:
        UserError: here and in ``add_epoch``, when a file cannot be written.
    """

    def __init__(
        self, settings: Settings, process: Process, seed: int, start_epoch: int, resumed: bool
    ) -> None:
        self.out_dir = Path(settings.out_dir)
        self.tensorboard = open_tensorboard(settings, start_epoch)
        config, path = config_of(settings, process, seed), self.out_dir / CONFIG_NAME
        write_config(config, path, resumed)
        print(
            f"{path}: settings, versions and commit; to repeat the run in another --out-dir: "
            f"{config.command}",
            flush=True,
        )

    def add_epoch(self, record: EpochRecord, lambdas: Mapping[str, Tensor]) -> None:
        """Write what an epoch came to, and the λ [N, C] by layer after it."""
        write_lambdas(lambdas, record.epoch, self.out_dir / LAMBDAS_NAME)
        if self.tensorboard is not None:
            write_tensorboard(self.tensorboard, record, lambdas)
