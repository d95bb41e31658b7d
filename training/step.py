"""One step: a global batch's gradient, and what it does to the weights."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel

from training.checkpoints.averaging import load_average, make_average, update_average
from training.checkpoints.differences import had_optimizer
from training.checkpoints.format import Checkpoint
from training.checkpoints.optimizer_state import load_optimizer, optimizer_state
from training.checkpoints.partial_epoch import PartialEpoch
from training.checkpoints.safe_file import one_line
from training.errors import UserError
from training.forward import Forward
from training.loading.batches import Batch
from training.loss import training_loss
from training.not_finite import all_finite
from training.optimizer import make_optimizer
from training.processes.ranks import all_reduce_max, wrap_model
from training.records.history import EpochRecord
from training.records.metrics import ScoreSums
from training.run import Run


@dataclass(frozen=True)
class TrainingStep:
    """What a step takes and changes.

    Attributes:
        model: the network.
        network: ``model`` so that its gradients are averaged over the processes.
        optimizer: of ``model``'s parameters.
        scaler: of the loss, against gradients too small for float16; disabled for other types.
        averaged: the moving average of ``model``, or None.
        run: of the step: how the network is called, in how many parts a batch goes through it
            (``--accum-steps``), the recipe's loss and largest gradient, and whether a step whose
            loss or gradient is nan or infinite is not taken (``--on-nan skip``).
    """

    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    averaged: AveragedModel | None
    run: Run

    @property
    def forward(self) -> Forward:
        """How images go through the network."""
        return self.run.settings.forward

    @property
    def skips_not_finite(self) -> bool:
        """Whether a step is left out whose loss or gradient is nan or infinite."""
        return self.run.settings.on_nan == "skip"

    @property
    def judged(self) -> list[nn.Module]:
        """The networks that validation judges: ``model``, and the averaged one if there is one."""
        return [self.model] if self.averaged is None else [self.model, self.averaged.module]

    @property
    def buffers(self) -> list[Tensor]:
        """The running statistics of the networks that validation judges."""
        return [buffer for model in self.judged for buffer in model.buffers()]

    def __call__(self, batch: Batch, sums: ScoreSums) -> bool:
        """Move the weights once, and add the batch's scores to ``sums``.

        Returns:
            True; False where the step was not taken, see ``skips_not_finite``. Then weights,
            momentum, averages and running statistics are as they were, in every process, and
            ``sums`` has one more skipped step.
        """
        before = (
            [buffer.clone() for buffer in self.model.buffers()] if self.skips_not_finite else []
        )
        scores = ScoreSums(self.run.process.device)
        self._find_gradient(batch, scores)
        if self.skips_not_finite and not self._is_finite_everywhere(scores):
            for buffer, value in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(value)
            sums.add_skipped_step()
            return False
        sums.add_sums(scores)
        self._clip_gradient()
        # Only for an average: of a scaler in use, it waits for the device.
        scale = 0.0 if self.averaged is None else self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # A scaler that leaves out a step, whose gradient overflowed, scales less from then on.
        if self.averaged is not None and self.scaler.get_scale() >= scale:
            update_average(self.averaged, self.model, self.run.settings.ema)
        return True

    def _find_gradient(self, batch: Batch, scores: ScoreSums) -> None:
        """Give the parameters the gradient of the global batch; add this process's to ``scores``.

        Each process weights its loss by its share of the batch, so that the average over the
        processes is the gradient of the mean loss over the global batch even where the shares
        differ; likewise each part of a share.
        """
        self.optimizer.zero_grad()
        parts, recipe = self.run.settings.accum_steps, self.run.settings.recipe
        for number, part in enumerate(batch.split(parts), start=1):
            with self._communication(last=number == parts):
                logits = self.forward(self.network, part.images)
                loss = training_loss(logits, part, recipe)
                share = len(part.targets) * self.run.process.world_size / batch.global_size
                self.scaler.scale(loss * share).backward()
            scores.add(loss, logits, part.targets)

    def _clip_gradient(self) -> None:
        """Shorten the gradient to ``--clip-grad``; the processes, which share it, do the same."""
        largest = self.run.settings.recipe.clip_grad
        if largest is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), largest)

    def _is_finite_everywhere(self, scores: ScoreSums) -> bool:
        """Return whether loss and gradient are finite in all processes; waits for the device."""
        finite = scores.loss_is_finite
        # A scaled gradient overflows now and then: the scaler leaves out that step and scales less.
        if not self.scaler.is_enabled():
            gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
            finite = finite & all_finite(gradients)
        return not all_reduce_max((~finite).float(), self.run.process).item()

    def checkpoint(
        self,
        epoch: int,
        history: Sequence[EpochRecord],
        partial_epoch: PartialEpoch | None = None,
    ) -> Checkpoint:
        """Return the run as it stands after ``epoch`` epochs.

        Its tensors are those of the network: save it before the next step.
        """
        return Checkpoint(
            epoch=epoch,
            arch=self.run.settings.arch,
            pool=self.run.settings.pool,
            seed=self.run.seed,
            state_dict=self.model.state_dict(),
            optimizer=optimizer_state(self.optimizer, self.model),
            history=history,
            scaler=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            ema=None if self.averaged is None else self.averaged.state_dict(),
            partial_epoch=partial_epoch,
            classes=self.run.classes,
            lineage=self.run.lineage,
        )

    def _communication(self, last: bool) -> "nullcontext[None]":
        """Let the processes exchange gradients only once a step."""
        alone = self.run.process.world_size == 1
        return nullcontext() if last or alone else self.network.no_sync()


def make_training_step(model: nn.Module, checkpoint: Checkpoint | None, run: Run) -> TrainingStep:
    """Return the step of ``run`` for ``model``, in the state of ``checkpoint``.

    Raises:
        UserError: the checkpoint's state does not fit.
    """
    settings = run.settings
    optimizer = make_optimizer(model, settings.recipe)
    scaler = GradScaler(run.process.device.type, enabled=settings.amp == "fp16")
    averaged = None if settings.ema is None else make_average(model)
    if checkpoint is not None:
        if had_optimizer(checkpoint, settings.recipe.optimizer):
            load_optimizer(optimizer, model, checkpoint)
        load_scaler(scaler, checkpoint)
        load_average(averaged, checkpoint)
    if settings.compile:
        model.compile()
        if averaged is not None:
            averaged.module.compile()
    return TrainingStep(
        model=model,
        network=wrap_model(model, run.process),
        optimizer=optimizer,
        scaler=scaler,
        averaged=averaged,
        run=run,
    )


def load_scaler(scaler: GradScaler, checkpoint: Checkpoint) -> None:
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
            f"--resume {checkpoint.path}: its scaler's state cannot be used ({one_line(error)})"
        ) from error
