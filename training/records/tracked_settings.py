"""What ``--log`` services are told of a run beside its numbers."""

from dataclasses import asdict
from typing import Any

from training.records.config import RunConfig

OF_THE_START = ("command", "versions", "device", "cuda", "processes", "train_images", "started")


def tracked_settings(config: RunConfig) -> dict[str, Any]:
    """Return the run's settings as plain values, the recipe's where an option was not given.

    With them what ``config.json`` says of the start, and the commit as ``git_commit``.
    """
    given = {name: value for name, value in config.settings.items() if value is not None}
    start = {name: value for name, value in asdict(config).items() if name in OF_THE_START}
    commit = {"git_commit": config.git.commit, "git_dirty": config.git.dirty}
    return {
        name: _plain(value) for name, value in {**config.recipe, **given, **start, **commit}.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__name__", str(value))
