"""The files of ``--out-dir`` beside the checkpoints, and what each of them is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from training.records.bad_images import BAD_IMAGES_NAME, list_bad_images
from training.records.config import CONFIG_NAME, RunConfig, write_config
from training.records.curves import write_curves
from training.records.history import LOG_NAME, EpochRecord, write_log
from training.records.lambdas import LAMBDAS_NAME, write_lambdas
from training.records.tensorboard import open_tensorboard, write_tensorboard

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass
class RunFiles:
    """Keeps the files of a training run; it is for the main process.

    Making it writes nothing: a run that fails before its first epoch ends leaves every file as it
    was.

    Attributes:
        out_dir: the folder, which is there.
        config: of the run.
        pdf_filename: of the curves.
        tensorboard: TensorBoard's files are written, too.
        start_epoch: number of epochs that the run has had.
        resumed: it goes on from a checkpoint.
    """

    out_dir: Path
    config: RunConfig
    pdf_filename: str
    tensorboard: bool
    start_epoch: int
    resumed: bool
    _begun: bool = field(default=False, init=False)
    _writer: SummaryWriter | None = field(default=None, init=False)

    def add_epoch(
        self,
        history: Sequence[EpochRecord],
        lambdas: Mapping[str, Tensor],
        bad_images: Mapping[str, str],
    ) -> None:
        """Write what the last epoch of ``history`` came to.

        Args:
            history: of all epochs.
            lambdas: λ [N, C] by layer after the last one.
            bad_images: the reasons by name of those that it went without.

        Raises:
            WriteError: a file cannot be written.
        """
        list_bad_images(bad_images, self.out_dir / BAD_IMAGES_NAME)
        write_log(history, self.out_dir / LOG_NAME)
        write_curves(history, self.out_dir / self.pdf_filename)
        self._begin()
        write_lambdas(lambdas, history[-1].epoch, self.out_dir / LAMBDAS_NAME)
        if self._writer is not None:
            write_tensorboard(self._writer, history[-1], lambdas)

    def add_partial_epoch(self, bad_images: Mapping[str, str]) -> None:
        """Write what there is where an epoch is left before its end.

        Raises:
            WriteError: a file cannot be written.
        """
        self._begin()
        list_bad_images(bad_images, self.out_dir / BAD_IMAGES_NAME)

    def _begin(self) -> None:
        """Write config.json and open TensorBoard's files, the first time that it is called."""
        if not self._begun:
            write_config(self.config, self.out_dir / CONFIG_NAME, self.resumed)
            self._begun = True
        if self.tensorboard and self._writer is None:
            self._writer = open_tensorboard(self.out_dir, self.start_epoch)
