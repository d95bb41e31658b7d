"""The machine and the software that a measurement was made with."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import shutil
import subprocess
from argparse import Namespace
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from gfgp_cupy.backends import select_backend

__all__ = ["Environment", "environment_of"]

REPOSITORY = Path(__file__).resolve().parents[1]


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
    on_gpu = device.type == "cuda"
    commit = _output_of("git", "-C", REPOSITORY, "rev-parse", "HEAD")
    changes = _output_of("git", "-C", REPOSITORY, "status", "--porcelain")
    return Environment(
        device=torch.cuda.get_device_name(device) if on_gpu else _processor(),
        driver=_gpu_driver() if on_gpu else None,
        cuda=torch.version.cuda,
        torch=torch.__version__,
        cupy=_version_of("cupy"),
        numba=_version_of("numba"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        backend=select_backend(device),
        threads=torch.get_num_threads(),
        commit=commit,
        dirty=None if changes is None else changes != "",
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


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _gpu_driver() -> str | None:
    each_gpu = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return each_gpu.splitlines()[0] if each_gpu else None


def _version_of(module: str) -> str | None:
    """Version of an installed module; CuPy's distributions have other names than the module."""
    distributions = importlib.metadata.packages_distributions().get(module)
    return importlib.metadata.version(distributions[0]) if distributions else None


def _output_of(program: str, *arguments: str | Path) -> str | None:
    """What the program prints, ``None`` where it is missing or fails."""
    if shutil.which(program) is None:
        return None
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
