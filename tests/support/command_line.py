"""Running ``train_imagenet.py`` in a test, as a person would and within the test's process."""

import csv
import io
import re
import socket
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

import train_imagenet
from tests.support.paths import REPOSITORY
from tests.support.warm_python import HANG, exit_code, start_warm

# "Exception ignored in: …" or "… in thread started by: …", and the traceback that may follow.
IGNORED_BY_PYTHON = re.compile(
    r"^Exception ignored in.*\n(?:\s*Traceback \(most recent call last\):\n(?: .*\n)*(?:\S.*\n)?)?",
    re.MULTILINE,
)
COMMAND = (sys.executable, str(REPOSITORY / "train_imagenet.py"))


def run_script(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does, and wait for its end."""
    return subprocess.run(
        [*COMMAND, *map(str, options)], capture_output=True, text=True, timeout=HANG
    )


def run_command(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which starts warm, and wait for its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        code = exit_code(start_command(*options, stdout=out, stderr=err))
        return subprocess.CompletedProcess(options, code, out.read_text(), err.read_text())


def output_of_command(*options: object) -> str:
    """Run the command as ``run_command`` does; it must succeed. Return what it printed."""
    result = run_command(*options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def start_command(
    *options: object, stdout: Path, stderr: Path, environment: dict[str, str] | None = None
) -> BaseProcess:
    """Start the command in a process of its own, which starts warm, for the caller to join."""
    arguments = [str(option) for option in options]
    return start_warm(_main, arguments, stdout=stdout, stderr=stderr, environment=environment)


def _main(arguments: list[str]) -> int:
    sys.argv = [COMMAND[1], *arguments]
    return train_imagenet.main(arguments)


def torchrun_command(*options: object, program: tuple[str, ...] = (COMMAND[1],)) -> list[str]:
    """Return the command line that runs the command under torchrun, in two processes here.

    Args:
        program: the script, or ``-m`` and a module.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--local-addr", "127.0.0.1", "--nproc-per-node", "2", "--max-restarts", "1"]
    return [*torchrun, *program, *map(str, options)]


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
    said = said_by_program(stderr)
    assert "Traceback" not in said, stderr
    assert said.startswith("train_imagenet.py: error: "), stderr
    assert said.count("\n") == 1, stderr
    return said


def said_by_program(stderr: str) -> str:
    """Return ``stderr`` without what Python adds of itself.

    An error in a finalizer or a thread that outlives the interpreter changes nothing; that of a
    process which is killed or leaves on a busy machine cannot be kept from it.
    """
    return IGNORED_BY_PYTHON.sub("", stderr)


def read_log(out_dir: Path) -> list[dict[str, str]]:
    with open(out_dir / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def free_dist_url() -> str:
    """Return a ``--dist-url`` on a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"
