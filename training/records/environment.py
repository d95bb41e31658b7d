"""The machine and the software that a run or a measurement is made with."""

import functools
import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class GitState:
    """``commit`` of the repository, and ``dirty`` whether files of it have been changed since.

    Files that git does not know, such as results, do not count. Both are None where there is no
    repository or no git.
    """

    commit: str | None
    dirty: bool | None


def git_state() -> GitState:
    """Return the state of the repository that this file is in."""
    commit = _output_of("git", "-C", REPOSITORY, "rev-parse", "HEAD")
    changes = _output_of("git", "-C", REPOSITORY, "status", "--porcelain", "-uno")
    return GitState(commit, None if changes is None else changes != "")


def versions_of(*modules: str) -> dict[str, str | None]:
    """Return the versions of modules by their names, None for those that are not installed.

    CuPy's distributions have other names than the module.
    """
    distributions = _distributions()
    return {
        module: importlib.metadata.version(distributions[module][0])
        if module in distributions
        else None
        for module in modules
    }


@functools.cache  # it reads the files of every installed distribution
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpu_driver(device: torch.device) -> str | None:
    """Return the version of the GPU's driver; None where ``device`` is none."""
    if device.type != "cuda":
        return None
    each_gpu = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return each_gpu.splitlines()[0] if each_gpu else None


def _output_of(program: str, *arguments: str | Path) -> str | None:
    """Return what the program prints, None where it is missing or fails."""
    if shutil.which(program) is None:
        return None
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
