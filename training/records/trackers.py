"""The trackers that a run asks for: ``--tensorboard`` and ``--log``."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from training.records.config import RunConfig
from training.records.mlflow import MlflowRun, check_mlflow
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
    settings: Settings, config: RunConfig, epochs: int, steps: int, resumed: bool
) -> Sequence[Tracking]:
    """Return the trackers of a run that has had ``epochs`` epochs and ``steps`` batches.

    Services are opened at once, to be seen from the start on.
    """
    out_dir = Path(settings.out_dir)
    trackings = []
    if settings.tensorboard:
        trackings.append(Tracking("--tensorboard", partial(TensorBoard, out_dir, epochs, steps)))
    for name in services_of(settings):
        _, tracker = SERVICES[name]
        open_service = partial(
            tracker,
            out_dir=out_dir,
            settings=tracked_settings(config),
            epochs=epochs,
            resumed=resumed,
        )
        trackings.append(Tracking(f"--log {name}", open_service))
        trackings[-1].begin()
    return trackings
