"""``trackers.json``: under which ids the services of ``--log`` know a run, and up to where."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from training.atomic_write import atomic_write
from training.errors import UserError

REMEMBERED_NAME = "trackers.json"


@dataclass(frozen=True)
class Remembered:
    """A run as a service knows it: its ``id``, and the last ``epoch`` that it was told."""

    id: str
    epoch: int


def remember(out_dir: Path, service: str, run: Remembered) -> None:
    """Write what ``recall`` returns.

    Raises:
        UserError: the file cannot be written, or is not ours.
    """
    path = out_dir / REMEMBERED_NAME
    of_all = {**_read(path), service: run}
    with atomic_write(path) as temporary:
        content = {name: asdict(each) for name, each in of_all.items()}
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def recall(out_dir: Path, service: str, epochs: int) -> Remembered | None:
    """Return the run in ``out_dir`` that a start after ``epochs`` epochs goes on with.

    None where the service knows none, or one that has gone further: a run that goes back to an
    earlier epoch is told to it as a new one.

    Raises:
        UserError: the file is not ours.
    """
    run = _read(out_dir / REMEMBERED_NAME).get(service)
    return run if run is not None and run.epoch <= epochs else None


def _read(path: Path) -> Mapping[str, Remembered]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        return {
            name: Remembered(str(run["id"]), int(run["epoch"])) for name, run in content.items()
        }
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not what this program wrote; move it away") from error
