"""Processes that die, hang or are told to stop: an end within the time-out, and nothing left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

import training.command
from tests.support import process_work
from tests.support.command_line import (
    COMMAND,
    checked_error,
    error_here,
    free_dist_url,
    said_by_program,
    start_command,
)
from tests.support.image_folders import write_image_folder
from tests.support.paths import REPOSITORY
from tests.support.warm_python import exit_code, start_warm
from training.processes import spawn
from training.processes.peer_failure import reason_of_peer_failure
from training.processes.stop_signals import SECONDS_OF_ONE_SIGNAL

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks into /proc")

LIMIT = 300
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"),
    *("--nproc-per-node", "2", "--max-restarts", "0"),
)
WORK = ("-m", "tests.support.process_work")


def two_processes():
    return ("--multiprocessing-distributed", "--nproc", 2, "--cpu", "--dist-url", free_dist_url())


@pytest.fixture(autouse=True)
def _limit():
    """Fail where a command that is run in this process does not end, and end what it has left."""

    def fail(signum, frame):
        # No TimeoutError: that is an OSError, which the wait for a process swallows.
        pytest.fail(f"waited {2 * LIMIT} s")

    before = signal.signal(signal.SIGALRM, fail)
    # Again and again: what deals with the first error may hang as well.
    signal.setitimer(signal.ITIMER_REAL, 2 * LIMIT, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    for process in multiprocessing.active_children():
        process.kill()


def wait_until(condition, what, command=None):
    """Wait for the condition; fail at once if ``command`` ends before it holds."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT} s until {what}"
        if command is not None and state(command.pid) == "Z" and not condition():
            pytest.fail(f"the command ended before {what}: {command.said()}")
        time.sleep(0.02)


def numbers(folder, what):
    """Return what the processes noted, by their ranks."""
    files = sorted(folder.glob(f"{what}[0-9]"))
    return [[int(number) for number in file.read_text().split()] for file in files]


def pids(folder):
    return [noted[0] for noted in numbers(folder, "pid") if noted]


def state(pid):
    """Return the letter of the process's state, Z for one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def assert_gone(*left):
    wait_until(lambda: {state(pid) for pid in left} <= {"Z"}, f"{left} have ended")


def children_of(pid):
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in found]


def descendants(pid):
    """Return the children of the process, their children and so on."""
    return [each for child in children_of(pid) for each in (child, *descendants(child))]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):  # imports start processes that soon end
        return ""


def started_with(words, pids):
    """Return those of the processes whose command line has ``words``."""
    return [pid for pid in pids if words in command_line(pid)]


class Started:
    """A command with a process group of its own, as a shell starts one.

    Attributes:
        wait: takes seconds and returns its exit code; an error if it has not ended by then.
    """

    def __init__(self, out_dir, pid, wait):
        self.out_dir, self.pid, self.wait = out_dir, pid, wait
        self.seen = {pid}

    def look(self):
        """Remember which processes the command has started; return them."""
        found = descendants(self.pid)
        self.seen.update(found)
        return found

    def wait_for_work(self):
        wait_until(lambda: len(pids(self.out_dir)) == 2, "both processes are at work", self)
        self.look()

    def end(self):
        """Wait for the end, of all that it has started; return exit code and what it said."""
        code = self.wait(LIMIT)
        assert_gone(*self.seen)
        return code, self.said()

    def said(self):
        return said_by_program((self.out_dir / "stderr").read_text())

    def end_what_is_left(self):
        """Kill what still runs, which only a test that fails leaves; print what each was at."""
        self.look()
        self.seen.update(pids(self.out_dir))
        left = [pid for pid in self.seen if state(pid) != "Z"]
        for signum in (signal.SIGABRT, signal.SIGCONT, signal.SIGKILL):  # Python prints its stacks
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
            if left and signum == signal.SIGCONT:
                time.sleep(2)
        if left:
            print(f"{left} were left of it, and said:", self.said(), sep="\n")


@pytest.fixture
def started(tmp_path):
    """The commands of a test, nothing of which is left."""
    started = []
    yield started
    for command in started:
        command.end_what_is_left()


@pytest.fixture
def start(tmp_path, started):
    """Return a function that starts Python as a person does."""

    def start(*words):
        # To files: whatever is left of the command holds up no one who reads a pipe to its end.
        with open(tmp_path / "stdout", "wb") as out, open(tmp_path / "stderr", "wb") as err:
            process = subprocess.Popen(
                [sys.executable, *map(str, words), "--out-dir", str(tmp_path)],
                cwd=REPOSITORY,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
                start_new_session=True,
            )
        started.append(Started(tmp_path, process.pid, process.wait))
        return started[-1]

    return start


@pytest.fixture
def start_work(tmp_path, started):
    """Return a function that starts a command that does some work, warm."""

    def start_work(work, *options):
        arguments = [str(option) for option in (*options, "--out-dir", tmp_path)]
        files = {"stdout": tmp_path / "stdout", "stderr": tmp_path / "stderr"}
        process = start_warm(in_a_session, work, arguments, **files)
        started.append(Started(tmp_path, process.pid, lambda _: exit_code(process)))
        return started[-1]

    return start_work


def in_a_session(work, arguments):
    os.setsid()
    return process_work.instead_of_training(work, arguments)


@pytest.fixture
def in_two_processes(tmp_path, monkeypatch):
    """Return a function that makes a command line whose two processes do some work."""

    def options(work, *others):
        monkeypatch.setattr(training.command, "train_or_evaluate", work)
        return (*two_processes(), "--out-dir", tmp_path, *others)

    return options


@pytest.fixture
def ended(tmp_path):
    """Return a function that has a command do some work: its exit code and what it said."""

    def ended(work, *options):
        arguments = [str(option) for option in (*options, "--out-dir", tmp_path)]
        out, err = tmp_path / "stdout", tmp_path / "stderr"
        command = (process_work.instead_of_training, work, arguments)
        code = exit_code(start_warm(*command, stdout=out, stderr=err))
        return code, said_by_program(err.read_text())

    return ended


def test_process_that_dies_is_named(tmp_path, in_two_processes, capfd):
    """The one that the others meet at; ``test_training_whose_process_is_killed`` has another.

    The command runs in a thread: Python allows handlers of signals in the main one alone.
    """
    strike = partial(process_work.strike, victim=0, signum=signal.SIGKILL)
    options = in_two_processes(strike)
    message = ThreadPoolExecutor(1).submit(error_here, *options).result()
    assert "process 0 (pid " in message
    assert "died of signal 9" in message
    assert (
        f"--resume auto goes on from the newest whole checkpoint in --out-dir {tmp_path}" in message
    )
    assert_gone(*pids(tmp_path))
    assert "Traceback" not in said_by_program(capfd.readouterr().err)


@pytest.mark.slow
def test_process_that_hangs_ends_the_run(tmp_path, ended):
    hang = partial(process_work.strike, victim=1, signum=signal.SIGSTOP)
    message = checked_error(*ended(hang, *two_processes(), "--dist-timeout", 5))
    assert "process 0 has lost contact" in message
    assert "has not answered for 5 s (--dist-timeout)" in message
    assert "process 1 (pid " in message
    assert "did not leave and was killed" in message
    assert_gone(*pids(tmp_path))


def test_bug_keeps_its_traceback(tmp_path, ended):
    code, printed = ended(process_work.fail, *two_processes())
    assert code == 1
    assert printed.count("Traceback") == 1
    assert printed.endswith("RuntimeError: a bug\n")
    assert_gone(*pids(tmp_path))


def test_only_failures_of_communication_are_told_in_a_line():
    """Gloo raises RuntimeErrors too. Its words when one process has died are real."""
    closed = "[/x/third_party/gloo/gloo/transport/tcp/pair.cc:5] Connection closed by peer [::1]:9"
    told = {
        RuntimeError(f"{closed}. This is typically caused by a remote worker crashing."): (
            "Connection closed by peer [::1]:9"
        ),
        RuntimeError("Application timeout caused pair closure"): (
            "Application timeout caused pair closure"
        ),
        torch.distributed.DistBackendError("NCCL error in: a.cpp:1\nremote process exited"): (
            "NCCL error in: a.cpp:1 remote process exited"
        ),
        RuntimeError("[enforce fail at /x/gloo/transport/tcp/pair.cc:4] 8 <= 4"): None,
        RuntimeError("CUDA error: an illegal memory access was encountered"): None,
    }
    for error, reason in told.items():
        assert reason_of_peer_failure(error) == reason


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.slow
def test_machine_that_never_comes_ends_the_run(ended, rank):
    place = ("--world-size", 2, "--rank", rank, "--dist-url", free_dist_url(), "--cpu")
    code, said = ended(process_work.leave, *place, "--dist-timeout", 1)
    message = said.splitlines()[-1]  # PyTorch has its say before
    assert code == 2
    assert message.startswith("train_imagenet.py: error: ")
    assert "the 2 processes cannot meet" in message
    assert "within --dist-timeout 1 s" in message


@pytest.mark.slow
def test_processes_start_workers_as_the_command_would():
    """And not by spawn, as they are started: each worker would import PyTorch."""
    expected = multiprocessing.get_start_method()
    assert expected != "spawn"
    spawn.run_spawned(process_work.expect_start_method, (expected,), [0], way_on="")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["kill", "Ctrl-C", "timeout"])
def test_signal_reaches_each_process_once_and_waits_for_them(start, start_work, tmp_path, way):
    """The main process takes longer to leave than one may after an error.

    A terminal's Ctrl-C goes to the process group, and ``timeout`` sends its signal twice.
    """
    if way == "Ctrl-C":
        command = start(*WORK, "stop", *two_processes())
    else:
        command = start_work(process_work.stop, *two_processes())
    command.wait_for_work()
    signum = signal.SIGINT if way == "Ctrl-C" else signal.SIGTERM
    if way == "Ctrl-C":
        os.killpg(command.pid, signum)
    else:
        os.kill(command.pid, signum)
    if way == "timeout":
        os.kill(command.pid, signum)
    assert command.end() == (128 + signum, "")
    assert numbers(tmp_path, "signal") == [[signum], [signum]]
    assert numbers(tmp_path, "left") == [[signum], [signum]]
    if way == "Ctrl-C":  # forks end without what an interpreter does in the end
        assert numbers(tmp_path, "in a group") == [[0], [0]]


@pytest.mark.slow
def test_second_signal_ends_all_at_once(start_work, tmp_path):
    command = start_work(process_work.stay, *two_processes())
    command.wait_for_work()
    os.kill(command.pid, signal.SIGTERM)
    wait_until(lambda: len(numbers(tmp_path, "signal")) == 2, "the signal has been passed on")
    time.sleep(SECONDS_OF_ONE_SIGNAL)
    os.kill(command.pid, signal.SIGINT)
    assert command.end() == (143, "")


@pytest.mark.slow
def test_interrupt_while_the_processes_start(start, tmp_path):
    """They are still importing, in the process group that the terminal interrupts."""
    command = start(*WORK, "talk", *two_processes())
    wait_until(lambda: len(started_with("spawn_main", command.look())) == 2, "both are started")
    os.killpg(command.pid, signal.SIGINT)
    assert command.end() == (130, "")
    assert not pids(tmp_path)


def test_interrupt_before_training(start):
    command = start(*WORK, "talk", "--cpu")
    wait_until(lambda: pids(command.out_dir), "it is at work")
    os.kill(command.pid, signal.SIGINT)
    # Python drops a KeyboardInterrupt that comes while it runs a finalizer. A person presses again.
    with suppress(subprocess.TimeoutExpired):
        command.wait(LIMIT / 3)
    if state(command.pid) != "Z":
        os.kill(command.pid, signal.SIGINT)
    assert command.end() == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("at_work", [False, True])
def test_processes_stop_in_order_when_the_command_is_killed(start, start_work, tmp_path, at_work):
    if at_work:
        command = start_work(process_work.stop, *two_processes())
        command.wait_for_work()
    else:
        command = start(*WORK, "stop", *two_processes())
        wait_until(lambda: len(started_with("spawn_main", command.look())) == 2, "both are started")
    os.kill(command.pid, signal.SIGKILL)
    assert_gone(*command.seen)
    assert numbers(tmp_path, "left") == ([[signal.SIGTERM]] * 2 if at_work else [])


def training_with_workers(folder):
    """Return the options of a run that goes on until it is ended.

    Its processes have DataLoader workers, which must not stay.
    """
    return (
        *("--data", write_image_folder(folder / "data"), "--arch", "resnet18", "--pool", "skip"),
        *("--config-name", "digits", "--epochs", 100, "--batch-size", 4, "--workers", 2, "--cpu"),
    )


def kill_after_first_epoch(command, victim, name=""):
    """Kill the ``victim``-th process of the command, with ``name`` in its command line.

    Return what the command's end says; what it has written is whole.
    """
    checkpoint = command.out_dir / "checkpoint-epoch1.pth.tar"
    wait_until(checkpoint.exists, "the first epoch is over", command)
    command.look()
    os.kill(started_with(name, children_of(command.pid))[victim], signal.SIGKILL)
    end = command.end()
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
    return end


@pytest.mark.slow
def test_training_whose_process_is_killed(tmp_path, started):
    options = (*training_with_workers(tmp_path), *two_processes(), "--out-dir", tmp_path)
    process = start_command(*options, stdout=tmp_path / "stdout", stderr=tmp_path / "stderr")
    started.append(Started(tmp_path, process.pid, lambda _: exit_code(process)))
    assert "process 1 (pid " in checked_error(*kill_after_first_epoch(started[0], victim=1))


@pytest.mark.slow
def test_training_whose_process_is_killed_under_torchrun(tmp_path, start):
    command = start(*TORCHRUN[1:], COMMAND[1], *training_with_workers(tmp_path))
    code, stderr = kill_after_first_epoch(command, victim=0, name="train_imagenet.py")
    assert code != 0
    assert "RuntimeError" not in stderr


@pytest.mark.slow
@pytest.mark.longest
def test_hang_under_torchrun(start, tmp_path):
    """torchrun gives the process that hangs half a minute to leave."""
    command = start(*TORCHRUN[1:], *WORK, "talk", "--cpu", "--dist-timeout", 6)
    command.wait_for_work()
    os.kill(pids(tmp_path)[1], signal.SIGSTOP)
    code, stderr = command.end()
    assert code != 0
    assert "error: process 0 has lost contact with another one" in stderr
    assert "RuntimeError" not in stderr
