"""Running ``train_imagenet.py`` in a test, as a person would and within the test's process."""

import csv
import io
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import train_imagenet
from tests.support.paths import REPOSITORY

COMMAND = (sys.executable, str(REPOSITORY / "train_imagenet.py"))


def run_command(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own and wait for its end."""
    return subprocess.run(
        [*COMMAND, *map(str, options)], capture_output=True, text=True, timeout=300
    )


def torchrun_command(*options: object) -> list[str]:
    """Return the command line that runs the command under torchrun, in two processes here."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--local-addr", "127.0.0.1", "--nproc-per-node", "2", "--max-restarts", "1"]
    return [*torchrun, COMMAND[1], *map(str, options)]


def run_here(*options: object) -> tuple[int, str, str]:
    """Run the command in this process: exit code, standard output and standard error."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = train_imagenet.main([str(option) for option in options])
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def output_here(*options: object) -> str:
    """Run the command in this process; it must succeed. Return what it printed."""
    code, out, err = run_here(*options)
    assert code == 0, out + err
    return out


def error_here(*options: object) -> str:
    """Run the command in this process; it must refuse. Return the one line of its error."""
    code, _, err = run_here(*options)
    return checked_error(code, err)


def checked_error(code: int, stderr: str) -> str:
    assert code == 2, stderr
    assert "Traceback" not in stderr, stderr
    assert stderr.startswith("train_imagenet.py: error: ")
    assert stderr.count("\n") == 1
    return stderr


def read_log(out_dir: Path) -> list[dict[str, str]]:
    with open(out_dir / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def free_dist_url() -> str:
    """Return a ``--dist-url`` on a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"
