"""The machine and the software that a measurement was made with."""

from __future__ import annotations

import platform
import shlex
from argparse import Namespace
from dataclasses import dataclass
from datetime import datetime, timezone

import torch

from gfgp_cupy.backends import select_backend
from training.records.environment import device_name, git_state, gpu_driver, versions_of

__all__ = ["Environment", "environment_of"]


@dataclass(frozen=True)
class Environment:
    """What a figure depends on beside the code; ``None`` for what is not there.

    Attributes:
        device: name of the GPU or the processor.
        driver: version of the GPU's driver.
        cuda: version of CUDA that PyTorch was built for.
        backend: of ``gfgp_cupy``, for that device.
        threads: of PyTorch on the CPU.
        commit: of the repository, and ``dirty`` whether its files differed from it.
        command: with every option but the output file.
        date: UTC, ISO 8601.
    """

    device: str
    driver: str | None
    cuda: str | None
    torch: str
    cupy: str | None
    numba: str | None
    python: str
    platform: str
    backend: str
    threads: int
    commit: str | None
    dirty: bool | None
    command: str
    date: str


def environment_of(device: torch.device, script: str, options: Namespace) -> Environment:
    """The environment of a run of ``benchmarks/<script>`` with ``options`` on ``device``."""
    git = git_state()
    return Environment(
        device=device_name(device),
        driver=gpu_driver(device),
        cuda=torch.version.cuda,
        torch=torch.__version__,
        **versions_of("cupy", "numba"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        backend=select_backend(device),
        threads=torch.get_num_threads(),
        commit=git.commit,
        dirty=git.dirty,
        command=_command_line(script, options),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _command_line(script: str, options: Namespace) -> str:
    words = ["python", f"benchmarks/{script}"]
    for name, value in vars(options).items():
        if name != "out" and value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)
