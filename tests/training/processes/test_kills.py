"""Kills at random moments, and before each file takes its place: the same bits at the end."""

import multiprocessing
import os
import random
import signal
import sys
import time

import pytest

from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from tests.training.checkpoints.test_resuming import assert_same_run

KILLS = 20
RUN = (*SMALL_DIGITS, "--ema", 0.9, "--resume", "auto")
SEED = ("--seed", 5)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start():
    """Return a function that starts a run in a process whose server has imported what is slow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_imagenet", "training.command", "sklearn.datasets"])

    def start(out_dir, epochs, output, seed=SEED, die_before_replacing=0):
        options = [*map(str, (*RUN, *seed, "--epochs", epochs, "--out-dir", out_dir))]
        process = context.Process(target=run, args=(options, str(output), die_before_replacing))
        process.start()
        return process

    return start


def run(options, output, die_before_replacing):
    import train_imagenet
    import training.command

    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    training.command.create_model = create_tiny_network
    replace, calls = os.replace, iter(range(1, 10**6))

    def replace_or_die(source, target):
        if next(calls) == die_before_replacing:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die
    sys.exit(train_imagenet.main(options))


def finish(process, output):
    process.join(timeout=300)
    assert process.exitcode == 0, output.read_text()


def test_twenty_kills_at_random_moments(tmp_path, start):
    # More than the kills leave behind, even if epochs are then much faster than at first.
    epochs = 24
    whole, killed, output = tmp_path / "whole", tmp_path / "killed", tmp_path / "whole.txt"
    begun = time.monotonic()
    finish(start(whole, epochs, output), output)
    seconds_an_epoch = (time.monotonic() - begun) / epochs

    moments = random.Random(0)
    for kill in range(KILLS):
        output = tmp_path / f"{kill}.txt"
        process = start(killed, epochs, output)
        # Some kills come while the run makes its start, the others in its first epochs; the
        # second has begun once the first one's checkpoint is written.
        mark, marks = moments.choice([("", 0), ("to repeat", 1), ("val loss", 1), ("val loss", 2)])
        while marks and (not output.exists() or output.read_text().count(mark) < marks):
            assert process.exitcode is None, output.read_text()
            time.sleep(0.005)
        process.join(timeout=moments.uniform(0, seconds_an_epoch))
        assert process.exitcode is None, output.read_text()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    finish(start(killed, epochs, output, seed=()), output)  # a checkpoint has it
    printed = "".join(path.read_text() for path in tmp_path.glob("*.txt"))
    assert printed.count("resuming from ") > KILLS // 4
    assert "skipped" not in printed
    assert_same_run(killed, whole, epochs)


def test_kill_before_each_file_takes_its_place(tmp_path, start):
    """Each start is killed one file later than the one before it."""
    epochs = 3
    whole, killed, output = tmp_path / "whole", tmp_path / "killed", tmp_path / "output.txt"
    finish(start(whole, epochs, output), output)
    for files in range(1, 30):
        process = start(killed, epochs, output, die_before_replacing=files)
        process.join(timeout=300)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, output.read_text()
    assert files > 5
    assert "skipped" not in output.read_text()
    assert_same_run(killed, whole, epochs)
    assert sorted(killed.iterdir()) == [killed / path.name for path in sorted(whole.iterdir())]
