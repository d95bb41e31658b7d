"""A signal to a run of two processes: both stop after the same step, and go on to the same bits."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import torch

import training.checkpoints.format
from tests.support import steady_training
from tests.support.command_line import free_dist_url, torchrun_command
from tests.support.paths import REPOSITORY
from tests.support.warm_python import HANG, exit_code, start_warm
from tests.training.checkpoints.test_resuming import assert_same_bits, checkpoint_names

EPOCHS = 2
# (steady_training has a network of its own in the place of the one named.)
RUN = (
    *("--dataset", "digits", "--arch", "resnet18", "--pool", "skip", "--cpu", "--seed", 5),
    *("--epochs", EPOCHS, "--batch-size", 8, "--limit-train-batches", 24),
    *("--limit-val-batches", 2, "--ema", 0.9, "--print-freq", 1, "--resume", "auto"),
)

pytestmark = pytest.mark.slow


def two_processes(out_dir):
    options = ("--multiprocessing-distributed", "--nproc", 2, "--dist-url", free_dist_url())
    return (*RUN, *options, "--out-dir", out_dir)


def start(out_dir, output):
    """Start the run, or go on with it; what it prints is added to the file ``output``."""
    options = list(map(str, two_processes(out_dir)))
    return start_warm(steady_training.main, options, stdout=output, stderr=output)


def printed_by_whole(out_dir, output):
    assert exit_code(start(out_dir, output)) == 0, output.read_text()
    return output.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    printed_by_whole(out, out / "output")
    return out


def send_in_last_epoch(signum, pid, output):
    """Send ``signum`` to the run ``pid`` once the file ``output`` tells of its last epoch."""
    in_last_epoch = f"\nepoch {EPOCHS}/{EPOCHS} [16/"
    end = time.monotonic() + HANG
    while not (output.exists() and in_last_epoch in output.read_text()):
        assert time.monotonic() < end, f"waited {HANG} s for {in_last_epoch!r}"
        time.sleep(0.005)
    os.kill(pid, signum)


def assert_goes_on(out_dir, whole, printed, signum):
    assert f"stopped by {signum.name} after batch" in printed
    (left,) = (name for name in checkpoint_names(out_dir) if "batch" in name)
    assert f"{out_dir / left}; go on with --resume auto" in printed
    assert f"resuming from {out_dir / left}" in printed_by_whole(out_dir, out_dir / "output")
    assert_same_end(out_dir, whole)


def assert_same_end(out_dir, whole):
    ours, theirs = (
        torch.load(folder / f"checkpoint-epoch{EPOCHS}.pth.tar", weights_only=True)
        for folder in (out_dir, whole)
    )
    for part in ("state_dict", "ema", "optimizer"):
        assert_same_bits(ours[part], theirs[part])


def test_both_stop_and_go_on(tmp_path, whole):
    out_dir, output = tmp_path / "out", tmp_path / "output"
    run = start(out_dir, output)
    send_in_last_epoch(signal.SIGTERM, run.pid, output)
    code, printed = exit_code(run), output.read_text()
    assert code == 128 + signal.SIGTERM, printed
    assert "Traceback" not in printed
    assert_goes_on(out_dir, whole, printed, signal.SIGTERM)


def test_both_stop_under_torchrun_and_go_on(tmp_path, whole):
    out_dir, output = tmp_path / "out", tmp_path / "output"
    with open(output, "wb") as file:
        program = ("-m", steady_training.__name__)
        command = torchrun_command(*RUN, "--out-dir", out_dir, program=program)
        run = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY)
    send_in_last_epoch(signal.SIGINT, run.pid, output)
    code, printed = run.wait(HANG), output.read_text()
    assert code == 1, printed  # torchrun's own, whatever ends its processes
    assert_goes_on(out_dir, whole, printed, signal.SIGINT)


def run_that_keeps_all_checkpoints(options):
    training.checkpoints.format.remove_outdated = lambda *_: None
    return steady_training.main(options)


def test_both_write_checkpoints_in_time(tmp_path, whole):
    """After each step, which changes nothing; and both go on from one of them to the same bits."""
    options = (*two_processes(tmp_path / "all"), "--checkpoint-minutes", 1e-9)
    output = tmp_path / "output"
    run = start_warm(
        run_that_keeps_all_checkpoints, list(map(str, options)), stdout=output, stderr=output
    )
    assert exit_code(run) == 0, output.read_text()
    assert_same_end(tmp_path / "all", whole)
    within = [name for name in checkpoint_names(tmp_path / "all") if "epoch1-batch" in name]
    assert len(within) > 20
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "all" / "checkpoint-epoch1-batch13.pth.tar", tmp_path / "out")
    printed = printed_by_whole(tmp_path / "out", tmp_path / "output_of_the_rest")
    assert "checkpoint-epoch1-batch13.pth.tar" in printed
    assert_same_end(tmp_path / "out", whole)
