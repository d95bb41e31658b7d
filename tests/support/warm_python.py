"""Commands in processes that start warm: as forks of one that has imported the trainer.

A new interpreter computes for seconds until all of that is imported. A fork is a process like any
other, with default signals, standard streams of its own and an exit code. It is for tests of what
a command does; those of how Python starts it, or of how it ends, start Python.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

__all__ = ["HANG", "WARM", "exit_code", "run_warm", "start_warm"]

HANG = 300
"""Seconds that only a process which hangs takes."""

WARM = multiprocessing.get_context("forkserver")
"""Whose processes start warm, for instance those of a pool."""

WARM.set_forkserver_preload(
    [
        *("train_imagenet", "training.command", "matplotlib.pyplot"),
        *("sklearn.datasets", "sklearn.model_selection", "numba"),
    ]
)


def start_warm(
    function: Callable[..., int | None],
    *arguments: object,
    stdout: Path,
    stderr: Path,
    environment: dict[str, str] | None = None,
) -> BaseProcess:
    """Start ``sys.exit(function(*arguments))`` and return its process, for the caller to join.

    What would be spawned by it is forked, too: nothing else is left out of what it does.

    Args:
        function: an importable function.
        arguments: what it takes; pickled.
        stdout: a file, which is added to.
        stderr: the same, or a terminal.
        environment: variables that are added to those of this process.
    """
    variables = {**os.environ, **(environment or {})}
    start_method = multiprocessing.get_start_method()
    process = WARM.Process(
        target=_run, args=(function, arguments, (stdout, stderr), variables, start_method)
    )
    process.start()
    return process


def run_warm(function: Callable[..., None], arguments: tuple[object, ...], count: int) -> None:
    """Call ``function(rank, *arguments)`` in ``count`` processes that start warm.

    Raises:
        torch.multiprocessing.ProcessRaisedException: what one of them raised.
    """
    torch.multiprocessing.start_processes(function, arguments, count, start_method="forkserver")


def exit_code(process: BaseProcess) -> int:
    """Wait for the end of ``process``; return its exit code, minus the signal that it died of.

    Raises:
        subprocess.TimeoutExpired: it hangs, and has been killed.
    """
    process.join(HANG)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired("a process that was started warm", HANG)
    return process.exitcode


def _run(
    function: Callable[..., int | None],
    arguments: Sequence[object],
    streams: tuple[Path, Path],
    variables: dict[str, str],
    start_method: str,
) -> None:
    for path, stream in zip(streams, (sys.stdout, sys.stderr), strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(variables)
    # Of what it starts itself, not the server's.
    multiprocessing.set_start_method(start_method, force=True)
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context(
        "fork" if method == "spawn" else method
    )
    sys.exit(function(*arguments))
