"""A signal to a run of two processes: both stop after the same step, and go on to the same bits."""

import signal
import subprocess
import threading

import pytest
import torch

from tests.support.command_line import (
    COMMAND,
    free_dist_url,
    output_of_command,
    torchrun_command,
)
from tests.training.checkpoints.test_resuming import assert_same_bits, checkpoint_names

EPOCHS = 2
RUN = (
    *("--dataset", "digits", "--arch", "resnet18", "--pool", "skip", "--cpu", "--seed", 5),
    *("--epochs", EPOCHS, "--batch-size", 8, "--limit-train-batches", 8),
    *("--limit-val-batches", 2, "--ema", 0.9, "--print-freq", 1, "--resume", "auto"),
)

pytestmark = pytest.mark.slow


def two_processes(out_dir):
    options = ("--multiprocessing-distributed", "--nproc", 2, "--dist-url", free_dist_url())
    return [*COMMAND, *map(str, (*RUN, *options, "--out-dir", out_dir))]


def under_torchrun(out_dir):
    return torchrun_command(*RUN, "--out-dir", out_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    output_of_command(*two_processes(out)[len(COMMAND) :])
    return out


@pytest.mark.parametrize(
    ("command", "signum", "code"),
    # torchrun's own code is 1, whatever ends its processes.
    [(two_processes, signal.SIGTERM, 128 + signal.SIGTERM), (under_torchrun, signal.SIGINT, 1)],
)
def test_both_stop_and_go_on(tmp_path, whole, command, signum, code):
    run = subprocess.Popen(
        command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watchdog = threading.Timer(300, run.kill)
    watchdog.start()
    printed = ""
    for line in run.stdout:
        printed += line
        if line.startswith(f"epoch {EPOCHS}/{EPOCHS} [16/"):
            run.send_signal(signum)
    watchdog.cancel()
    assert run.wait() == code, printed
    assert f"stopped by {signum.name} after batch" in printed
    if command is two_processes:
        assert "Traceback" not in printed
    (left,) = (name for name in checkpoint_names(tmp_path) if "batch" in name)
    assert f"{tmp_path / left}; go on with --resume auto" in printed

    again = subprocess.run(
        command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert again.returncode == 0, again.stdout
    assert f"resuming from {tmp_path / left}" in again.stdout
    ours, theirs = (
        torch.load(folder / f"checkpoint-epoch{EPOCHS}.pth.tar", weights_only=True)
        for folder in (tmp_path, whole)
    )
    for part in ("state_dict", "ema", "optimizer"):
        assert_same_bits(ours[part], theirs[part])
