"""Kills at random moments, and before each file takes its place: the same bits at the end."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

import train_imagenet
import training.command
import training.records.figures
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from tests.support.warm_python import exit_code, start_warm
from tests.training.checkpoints.test_resuming import assert_same_run
from tests.training.conftest import write_no_curves

KILLS = 10
FILES_OF_TWO_EPOCHS = 8
SECONDS_OF_AN_EPOCH = 0.1
RUN = (*SMALL_DIGITS, "--ema", 0.9, "--resume", "auto")
SEED = ("--seed", 5)

pytestmark = pytest.mark.slow


def start(out_dir, epochs, output, seed=SEED, die_before_replacing=0):
    """Start a run in a process of its own."""
    options = [*map(str, (*RUN, *seed, "--epochs", epochs, "--out-dir", out_dir))]
    return start_warm(run, options, out_dir, die_before_replacing, stdout=output, stderr=output)


def run(options, out_dir, die_before_replacing):
    training.command.create_model = create_tiny_network
    training.records.figures.write_figures = write_no_curves
    replace, calls = os.replace, iter(range(1, 10**6))

    def replace_or_die(source, target):
        own = Path(target).parent == out_dir  # Numba replaces those of its cache, too
        if own and next(calls) == die_before_replacing:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die
    return train_imagenet.main(options)


def finish(process, output):
    assert exit_code(process) == 0, output.read_text()


def test_kills_at_random_moments(tmp_path):
    """Of some starts while they make ready, of others as they begin or in their second epoch.

    However fast the machine is, none replaces more files than those of two epochs; however slow it
    is, those in their second epoch have saved the first.
    """
    epochs = 2 * KILLS + 1
    whole, killed, output = tmp_path / "whole", tmp_path / "killed", tmp_path / "whole.txt"
    finish(start(whole, epochs, output), output)

    moments = random.Random(12)  # which draws each kind of moment at least twice
    for kill in range(KILLS):
        output = tmp_path / f"{kill}.txt"
        process = start(killed, epochs, output, die_before_replacing=FILES_OF_TWO_EPOCHS)
        mark, times = moments.choice([("", 1), ("to repeat", 1), ("val loss", 2)])
        while process.exitcode is None and not (
            output.exists() and output.read_text().count(mark) >= times
        ):
            time.sleep(0.005)
        process.join(timeout=moments.uniform(0, SECONDS_OF_AN_EPOCH))
        process.kill()
        assert exit_code(process) == -signal.SIGKILL, output.read_text()
    finish(start(killed, epochs, output, seed=()), output)  # a checkpoint has it
    printed = "".join(path.read_text() for path in tmp_path.glob("*.txt"))
    assert printed.count("resuming from ") > KILLS // 4
    assert "skipped" not in printed
    assert_same_run(killed, whole, epochs)


def test_kill_before_each_file_takes_its_place(tmp_path):
    """Each start is killed one file later than the one before it."""
    epochs = 3
    whole, killed, output = tmp_path / "whole", tmp_path / "killed", tmp_path / "output.txt"
    finish(start(whole, epochs, output), output)
    for files in range(1, 30):
        process = start(killed, epochs, output, die_before_replacing=files)
        code = exit_code(process)
        if code == 0:
            break
        assert code == -signal.SIGKILL, output.read_text()
    assert files > 5
    assert "skipped" not in output.read_text()
    assert_same_run(killed, whole, epochs)
    assert sorted(killed.iterdir()) == [killed / path.name for path in sorted(whole.iterdir())]
