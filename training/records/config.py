"""``config.json``: what it takes to repeat a run."""

import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import gfgp_cupy
from gfgp_cupy.backends import select_backend
from training.atomic_write import atomic_write
from training.errors import UserError
from training.options import OPTIONS, Options, flag_of
from training.options.config_file import text_of
from training.processes.torchrun import Torchrun
from training.records.environment import GitState, device_name, git_state, gpu_driver, versions_of
from training.run import Run
from training.settings import Settings

CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class RunConfig:
    """A start of a run; None for what is not there.

    Attributes:
        command: repeats the run, with its seed and every option that was set.
        settings: by the options' names, None where one was not given and the recipe decides.
        recipe: what ``--config-name`` names; functions by their names.
        versions: of Python and the packages that compute.
        device: name of the GPU or the processor, of the main process.
        driver: version of the GPU's driver.
        cuda: version of CUDA that PyTorch was built for.
        backend: of ``gfgp_cupy``, for that device.
        threads: of PyTorch on the CPU, in each process; results on the CPU depend on it.
        processes: over all machines.
        train_images: that the data set has.
        git: state of the repository.
        started: UTC, ISO 8601.
    """

    command: str
    settings: dict[str, Any]
    recipe: dict[str, Any]
    versions: dict[str, str | None]
    device: str
    driver: str | None
    cuda: str | None
    backend: str
    threads: int
    processes: int
    train_images: int
    git: GitState
    started: str


def config_of(run: Run, train_images: int) -> RunConfig:
    """Return the configuration of ``run``, on ``train_images`` images, which starts now."""
    settings, process = replace(run.settings, seed=run.seed), run.process
    return RunConfig(
        command=command_of(settings),
        settings=asdict(settings),
        recipe=asdict(settings.recipe),
        versions={
            "python": platform.python_version(),
            "gfgp_cupy": gfgp_cupy.__version__,
            "torch": torch.__version__,
            **versions_of("torchvision", "cupy", "numba", "numpy"),
        },
        device=device_name(process.device),
        driver=gpu_driver(process.device),
        cuda=torch.version.cuda,
        backend=select_backend(process.device),
        threads=torch.get_num_threads(),
        processes=process.world_size,
        train_images=train_images,
        git=git_state(),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def command_of(settings: Settings) -> str:
    """Return a command line that ``settings`` are of, with no more options than that takes.

    Under torchrun it is that of one of its machines, with their number where there are several,
    and with the place where they meet.
    """
    words = ["python"] if settings.torchrun is None else torchrun_words(settings.torchrun)
    words.append("train_imagenet.py")
    for name, value in told_options(settings).items():
        words += words_of(name, value)
    return shlex.join(words)


def told_options(settings: Settings) -> dict[str, Any]:
    """Return those options of ``settings`` that the others and the defaults do not say already.

    The number of workers decides the order of samples in shards, and what it is by default follows
    from the machine: with shards it is always told.
    """
    always = () if settings.val_data is None else ("workers",)
    alone = replace(settings, torchrun=None)
    default = Options()
    told = {
        name: getattr(settings, name)
        for name in OPTIONS
        if name in always or getattr(settings, name) != getattr(default, name)
    }
    for name in reversed(tuple(told)):  # the folder before the data set that it is of
        without = {other: value for other, value in told.items() if other != name}
        if name not in always and Settings.of(Options(**without), environ={}) == alone:
            told = without
    return told


def words_of(name: str, value: Any) -> list[str]:
    """Return an option as the command line has it.

    Example:
        >>> words_of("lr_milestones", (30, 60)), words_of("cpu", True), words_of("data", "-x")
        (['--lr-milestones', '30,60'], ['--cpu'], ['--data=-x'])
    """
    if OPTIONS[name].switch:
        return [flag_of(name) if value else flag_of(f"no_{name}")]
    flag, text = flag_of(name), text_of(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def torchrun_words(place: Torchrun) -> list[str]:
    """Return how torchrun starts as many processes."""
    words = ["torchrun"]
    machines = place.world_size // place.local_world_size
    if machines > 1:
        endpoint = f"{place.master_addr}:29500"  # torchrun's own port
        words += ["--nnodes", str(machines), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    return [*words, "--nproc-per-node", str(place.local_world_size)]


def write_config(config: RunConfig, path: Path, resumed: bool) -> None:
    """Write ``config`` to ``path``; that of a ``resumed`` run to the list ``resumed`` in it.

    Raises:
        WriteError: the file cannot be written.
        UserError: what is there is no such file.
    """
    content = asdict(config)
    if resumed and path.exists():
        first = read_config(path)
        content = {**first, "resumed": [*first.get("resumed", []), content]}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=_name_of) + "\n")


def read_config(path: Path) -> Mapping[str, Any]:
    """Return the content of a ``config.json``.

    Raises:
        UserError: there is no such file, or it is not one.
    """
    try:
        content = json.loads(path.read_text())
        if isinstance(content["settings"], dict) and isinstance(content["recipe"], dict):
            return content
        reason = "settings and recipe must be objects"
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        reason = repr(error)
    raise UserError(f"{path}: is no {CONFIG_NAME} of a training run ({reason}); move it away")


def _name_of(value: object) -> str:
    return getattr(value, "__name__", str(value))
