"""Two runs are never in one output directory, and a killed one is in nobody's way."""

import errno
import fcntl
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import error_here, output_here, run_here
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from tests.support.warm_python import HANG, exit_code, start_warm
from training.checkpoints.lock import LOCK_NAME, locked
from training.errors import UserError

RUN = (*SMALL_DIGITS, "--epochs", 1, "--seed", 5)


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


def hold(folder: Path, told: Path) -> None:
    """Hold the lock until killed, with a child as a ``DataLoader`` has; tell the child's number."""
    with locked(folder):
        child = os.fork()
        if child == 0:
            time.sleep(HANG)
            os._exit(0)
        told.with_suffix(".part").write_text(str(child))
        told.with_suffix(".part").rename(told)
        signal.pause()


@contextmanager
def holder(folder, tmp_path):
    """Yield a process that holds the lock of ``folder``; end it and its child."""
    told, output = tmp_path / "told", tmp_path / "output"
    process = start_warm(hold, folder, told, stdout=output, stderr=output)
    try:
        while not told.exists():
            assert process.exitcode is None, output.read_text()
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        exit_code(process)
        if told.exists():
            os.kill(int(told.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("resume", [(), ("--resume", "auto")])
def test_second_process_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path, resume):
    out = tmp_path / "out"
    with holder(out, tmp_path) as process:
        message = error_here(*RUN, *resume, "--out-dir", out)
        assert f"--out-dir {out}: process {process.pid} on " in message
        assert "trains there; wait for its end or stop it, or choose another" in message
        assert [path.name for path in out.iterdir()] == [LOCK_NAME]
        process.kill()
        assert exit_code(process) == -signal.SIGKILL
        # Its child is still there.
        assert "best top-1 error" in output_here(*RUN, *resume, "--out-dir", out)
    assert LOCK_NAME not in [path.name for path in out.iterdir()]


def test_evaluation_needs_no_lock(tmp_path):
    out = tmp_path / "out"
    output_here(*RUN, "--out-dir", out)
    with holder(out, tmp_path):
        output_here(*SMALL_DIGITS, "--evaluate", "--resume", "auto", "--out-dir", out)


def test_nothing_is_left_of_the_lock(tmp_path):
    """Not even a folder that was made for it; what was there stays."""
    inner = tmp_path / "some" / "where"
    with locked(inner):
        assert (inner / LOCK_NAME).exists()
    assert not list(tmp_path.iterdir())
    with locked(inner):
        (inner / "log.csv").touch()
    assert [path.name for path in inner.iterdir()] == ["log.csv"]
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["some"]


def test_lock_of_a_file_that_is_gone_is_not_taken_for_one(tmp_path, monkeypatch):
    """Who has it removes the file; who has opened that in the meantime opens another."""
    lockf, calls = fcntl.lockf, []

    def lock_late(descriptor, operation):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / LOCK_NAME).unlink()
        lockf(descriptor, operation)

    monkeypatch.setattr(fcntl, "lockf", lock_late)
    with locked(tmp_path):
        assert len(calls) == 2
        assert (tmp_path / LOCK_NAME).read_text().startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_without_locks(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    exit, _, err = run_here(*RUN, "--out-dir", tmp_path)
    assert exit == 0
    assert err.count("\n") == 1
    assert f"--out-dir {tmp_path}: the file system has no locks" in err


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("here already")
    with (
        pytest.raises(UserError, match=r"--out-dir .*: cannot be written"),
        locked(tmp_path / "file" / "below"),
    ):
        pass
