"""The trackers that a run asks for: ``--tensorboard`` and ``--log``."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from training.records.config import RunConfig
from training.records.lambdas import LAMBDAS_NAME, read_lambdas
from training.records.mlflow import MlflowRun, check_mlflow
from training.records.step_axis import StepAxis
from training.records.tensorboard import TensorBoard, check_tensorboard
from training.records.tracked_settings import tracked_settings
from training.records.tracker import Tracker
from training.records.tracking import Tracking
from training.records.wandb import WandbRun, check_wandb
from training.settings import Settings

SERVICES: dict[str, tuple[Callable[[], None], Callable[..., Tracker]]] = {
    "wandb": (check_wandb, WandbRun),
    "mlflow": (check_mlflow, MlflowRun),
}
"""What ``--log`` names: the check that its package is there, and its tracker."""


def check_trackers(settings: Settings) -> None:
    """Raise UserError if a package is missing that ``settings`` ask for."""
    if settings.tensorboard:
        check_tensorboard()
    for name in services_of(settings):
        check, _ = SERVICES[name]
        check()


def services_of(settings: Settings) -> list[str]:
    """Return the names in ``--log``."""
    return settings.log.split(",") if settings.log is not None else []


def trackings_of(
    settings: Settings,
    config: RunConfig,
    axis: StepAxis,
    batches: int,
    resumed: bool,
) -> list[Tracking]:
    """Return the trackers of a run that begins, or goes on from a checkpoint.

    Args:
        settings: what is asked for.
        config: of the run.
        axis: numbers its batches, and knows how many epochs it has had.
        batches: that it has had of the next epoch.
        resumed: it goes on from a checkpoint.
    """
    out_dir = Path(settings.out_dir)
    find_lambdas = partial(read_lambdas, out_dir / LAMBDAS_NAME)
    trackings = []
    if settings.tensorboard:
        steps = axis.at(axis.epochs, batches)
        opened = partial(TensorBoard, out_dir, axis.epochs, steps)
        trackings.append(Tracking("--tensorboard", opened, find_lambdas))
    for name in services_of(settings):
        _, tracker = SERVICES[name]
        opened = partial(
            tracker,
            out_dir=out_dir,
            settings=tracked_settings(config),
            axis=axis,
            resumed=resumed,
        )
        trackings.append(Tracking(f"--log {name}", opened, find_lambdas))
    return trackings
