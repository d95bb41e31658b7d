"""One step: a global batch's gradient, and what it does to the weights."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

from training.checkpoints.averaging import load_average, make_average
from training.checkpoints.format import Checkpoint, load_optimizer, one_line
from training.checkpoints.partial_epoch import PartialEpoch
from training.errors import UserError
from training.forward import Forward
from training.loading.batches import Batch
from training.not_finite import all_finite
from training.processes.launcher import Process, all_reduce_max, wrap_model
from training.records.history import EpochRecord
from training.records.metrics import ScoreSums
from training.settings import Settings


@dataclass(frozen=True)
class TrainingStep:
    """What a step takes and changes.

    Attributes:
        model: the network.
        network: ``model`` so that its gradients are averaged over the processes.
        optimizer: of ``model``'s parameters.
        scaler: of the loss, against gradients too small for float16; disabled for other types.
        averaged: the moving average of ``model``, or None.
        forward: calls the network.
        accum_steps: parts of a batch that go through the network one after the other.
        label_smoothing: as in ``torch.nn.functional.cross_entropy``.
        skip_not_finite: a step whose loss or gradient is nan or infinite is not taken.
        process: this process.
    """

    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.SGD
    scaler: GradScaler
    averaged: AveragedModel | None
    forward: Forward
    accum_steps: int
    label_smoothing: float
    skip_not_finite: bool
    process: Process

    @property
    def result(self) -> nn.Module:
        """The network that validation judges: the averaged one where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    @property
    def buffers(self) -> list[Tensor]:
        """The running statistics of ``model`` and of ``result``."""
        models = [self.model] if self.averaged is None else [self.model, self.averaged.module]
        return [buffer for model in models for buffer in model.buffers()]

    def __call__(self, batch: Batch, sums: ScoreSums) -> bool:
        """Move the weights once, and add the batch's scores to ``sums``.

        Returns:
            True; False where the step was not taken, see ``skip_not_finite``. Then weights,
            momentum, averages and running statistics are as they were, in every process, and
            ``sums`` has one more skipped step.
        """
        before = [buffer.clone() for buffer in self.model.buffers()] if self.skip_not_finite else []
        scores = ScoreSums(self.process.device)
        self._find_gradient(batch, scores)
        if self.skip_not_finite and not self._is_finite_everywhere(scores):
            for buffer, value in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(value)
            sums.add_skipped_step()
            return False
        sums.add_sums(scores)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return True

    def _find_gradient(self, batch: Batch, scores: ScoreSums) -> None:
        """Give the parameters the gradient of the global batch; add this process's to ``scores``.

        Each process weights its loss by its share of the batch, so that the average over the
        processes is the gradient of the mean loss over the global batch even where the shares
        differ; likewise each part of a share.
        """
        self.optimizer.zero_grad()
        images, targets = (
            tensor.tensor_split(self.accum_steps) for tensor in (batch.images, batch.targets)
        )
        for number, (part, part_targets) in enumerate(zip(images, targets, strict=True), start=1):
            with self._communication(last=number == self.accum_steps):
                logits = self.forward(self.network, part)
                loss = cross_entropy(logits, part_targets, label_smoothing=self.label_smoothing)
                share = len(part_targets) * self.process.world_size / batch.global_size
                self.scaler.scale(loss * share).backward()
            scores.add(loss, logits, part_targets)

    def _is_finite_everywhere(self, scores: ScoreSums) -> bool:
        """Return whether loss and gradient are finite in all processes; waits for the device."""
        finite = scores.loss_is_finite
        # A scaled gradient overflows now and then: the scaler leaves out that step and scales less.
        if not self.scaler.is_enabled():
            gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
            finite = finite & all_finite(gradients)
        return not all_reduce_max((~finite).float(), self.process).item()

    def checkpoint(
        self,
        epoch: int,
        history: Sequence[EpochRecord],
        settings: Settings,
        seed: int,
        partial_epoch: PartialEpoch | None = None,
    ) -> Checkpoint:
        """Return the run of ``settings`` and ``seed`` as it stands after ``epoch`` epochs.

        Its tensors are those of the network: save it before the next step.
        """
        return Checkpoint(
            epoch=epoch,
            arch=settings.arch,
            pool=settings.pool,
            seed=seed,
            state_dict=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            history=history,
            scaler=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            ema=None if self.averaged is None else self.averaged.state_dict(),
            partial_epoch=partial_epoch,
        )

    def _communication(self, last: bool) -> "nullcontext[None]":
        """Let the processes exchange gradients only once a step."""
        return nullcontext() if last or self.process.world_size == 1 else self.network.no_sync()


def make_training_step(
    model: nn.Module, checkpoint: Checkpoint | None, settings: Settings, process: Process
) -> TrainingStep:
    """Return the step of ``settings`` for ``model``, in the state of ``checkpoint``.

    Raises:
        UserError: the checkpoint's state does not fit.
    """
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rates[0],
        momentum=settings.recipe.momentum,
        weight_decay=settings.recipe.weight_decay,
    )
    scaler = GradScaler(process.device.type, enabled=settings.amp == "fp16")
    averaged = make_average(model, settings.ema)
    if checkpoint is not None:
        load_optimizer(optimizer, model, checkpoint, settings)
        load_scaler(scaler, checkpoint, settings)
        load_average(averaged, checkpoint, settings)
    if settings.compile:
        model.compile()
        if averaged is not None:
            averaged.module.compile()
    return TrainingStep(
        model=model,
        network=wrap_model(model, process),
        optimizer=optimizer,
        scaler=scaler,
        averaged=averaged,
        forward=settings.forward,
        accum_steps=settings.accum_steps,
        label_smoothing=settings.label_smoothing,
        skip_not_finite=settings.on_nan == "skip",
        process=process,
    )


def load_scaler(scaler: GradScaler, checkpoint: Checkpoint, settings: Settings) -> None:
    """Give ``scaler``, where it is in use, the state of ``checkpoint``, where it has one.

    Raises:
        UserError: it is no state of a ``GradScaler``.
    """
    if checkpoint.scaler is None or not scaler.is_enabled():
        return
    try:
        scaler.load_state_dict(checkpoint.scaler)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"--resume {settings.resume}: its scaler's state cannot be used ({one_line(error)})"
        ) from error
