"""The exponential moving average of the weights (``--ema``)."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.checkpoints.format import Checkpoint
from training.checkpoints.safe_file import one_line
from training.errors import UserError


def make_average(model: nn.Module) -> AveragedModel:
    """Return what holds the average of ``model``'s tensors; ``update_average`` makes it one."""
    return AveragedModel(model, use_buffers=True)


def update_average(averaged: AveragedModel, model: nn.Module, decay: float) -> None:
    """Take the weights of ``model`` after a step into the average, of running statistics too.

    It becomes d * average + (1 - d) * tensor with d = ``decay_after(averaged.n_averaged, decay)``;
    the first step is copied. Running statistics are averaged so that they fit the weights.
    """
    steps = int(averaged.n_averaged)  # on the CPU, whatever the device
    averaged.multi_avg_fn = get_ema_multi_avg_fn(decay_after(steps, decay))
    averaged.update_parameters(model)


def decay_after(steps: int, decay: float) -> float:
    """Return the decay of the average of ``steps`` steps: min(decay, (1 + steps) / (10 + steps)).

    So it warms up as in TensorFlow's ``tf.train.ExponentialMovingAverage`` with ``num_updates``:
    the average reaches back over about a ninth of the steps until that is 1 / (1 - decay) of
    them, rather than holding weights that are hardly trained throughout a short run.

    Example:
        >>> [round(decay_after(steps, 0.9999), 4) for steps in (1, 100, 10_000, 1_000_000)]
        [0.1818, 0.9182, 0.9991, 0.9999]
    """
    return min(decay, (1 + steps) / (10 + steps))


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
