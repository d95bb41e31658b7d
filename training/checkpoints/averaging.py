"""The exponential moving average of the weights (``--ema``)."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.checkpoints.format import Checkpoint, one_line
from training.errors import UserError


def make_average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return the average of ``model``'s tensors over the steps, or None without a ``decay``.

    After each step it becomes decay * average + (1 - decay) * tensor, of running statistics too,
    so that they fit the averaged weights; the first step is copied.
    """
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def load_average(averaged: AveragedModel | None, checkpoint: Checkpoint) -> None:
    """Give ``averaged`` the state of ``checkpoint``, where it has one.

    Raises:
        UserError: the state is of another network, or would be lost without ``--ema``.
    """
    if checkpoint.ema is None:
        return
    if averaged is None:
        raise UserError(
            f"--resume {checkpoint.path}: its run averaged the weights; pass its --ema again"
        )
    try:
        averaged.load_state_dict(checkpoint.ema)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"--resume {checkpoint.path}: its averaged weights are not those of --arch "
            f"{checkpoint.arch} --pool {checkpoint.pool} ({one_line(error)})"
        ) from error


def averaged_model(model: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """Return ``model`` with the averaged weights of ``checkpoint``; as it is where it has none.

    Raises:
        UserError: the averaged weights are of another network.
    """
    if checkpoint.ema is None:
        return model
    averaged = AveragedModel(model, use_buffers=True)
    load_average(averaged, checkpoint)
    return averaged.module
