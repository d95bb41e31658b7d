"""Several processes: the same result as one, and errors that reach the command's end."""

import math
import os
import signal
import socket
import subprocess
import time

import pytest
import torch
from torch import nn

from tests.support import plain_training
from tests.support.command_line import (
    checked_error,
    error_here,
    free_dist_url,
    output_here,
    output_of_command,
    read_log,
    run_command,
    torchrun_command,
)
from tests.support.image_folders import write_image_folder
from tests.support.paths import REPOSITORY
from tests.support.warm_python import HANG, exit_code, start_warm
from training.records.history import COLUMNS

# What depends on the machine rather than on the run.
MACHINE_COLUMNS = {"seconds", "images_per_second", "data_wait_percent", "gpu_memory_gib"}


def two_processes():
    return (
        *("--multiprocessing-distributed", "--nproc", 2, "--cpu"),
        *("--dist-url", free_dist_url(), "--dist-backend", "gloo"),
    )


def write_start(path, arch, pool, classes):
    """Save a checkpoint of no epochs whose weights have a gradient worth comparing."""
    torch.manual_seed(0)
    model = plain_training.create_plain_network(arch, pool, classes)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    stats = {column.replace("val_", "test_"): [] for column in COLUMNS}
    content = {
        "epoch": 0,
        "arch": arch,
        "state_dict": model.state_dict(),
        "stats": stats,
        "optimizer": optimizer.state_dict(),
        "args": {"pool": pool, "seed": 3},
    }
    torch.save(content, path)
    return path


def weights(out_dir, epoch):
    path = out_dir / f"checkpoint-epoch{epoch}.pth.tar"
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Options of a run of the plain network on a few images of odd numbers."""
    folder = tmp_path_factory.mktemp("plain")
    data = write_image_folder(folder / "data", train=9, val=5, classes=2)
    start = write_start(folder / "start.pth.tar", "resnet18", "skip", 2)
    return (
        *("--resume", start, "--data", data, "--arch", "resnet18", "--pool", "skip"),
        *("--config-name", "digits", "--epochs", 2, "--batch-size", 9, "--lr", 0.001),
        *("--workers", 0, "--cpu", "--ema", 0.5),
    )


@pytest.fixture(scope="module")
def plain_of_one_process(plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", plain_training.create_plain_network)
        output_here(*plain, "--out-dir", out)
    return out


def start_plain(*options, stdout, stderr):
    """Start a run of the plain network in a process of its own."""
    return start_warm(plain_training.main, list(map(str, options)), stdout=stdout, stderr=stderr)


@pytest.mark.parametrize("accumulation", [(), ("--accum-steps", 2)])
def test_two_processes_give_the_result_of_one(tmp_path, plain, plain_of_one_process, accumulation):
    """For the same global batches, of odd sizes, so that the two shares differ."""
    out, printed = tmp_path / "out", tmp_path / "printed"
    command = start_plain(
        *(*plain, *two_processes(), *accumulation, "--out-dir", out),
        stdout=printed,
        stderr=printed,
    )
    assert exit_code(command) == 0, printed.read_text()
    assert_same_run(out, plain_of_one_process, first_weights=plain[1])


def assert_same_run(two_out, one_out, first_weights):
    """Two processes and one moved the weights alike, and their logs say the same."""
    first = torch.load(first_weights, weights_only=True)["state_dict"]
    one, two = (weights(out, 2) for out in (one_out, two_out))
    for name, before in first.items():
        moved = (one[name] - before).norm()
        assert moved > 0
        assert (two[name] - one[name]).norm() < 1e-3 * moved, name
    for row_of_one, row_of_two in zip(read_log(one_out), read_log(two_out), strict=True):
        for column in set(COLUMNS) - MACHINE_COLUMNS:
            assert math.isclose(
                float(row_of_one[column]), float(row_of_two[column]), rel_tol=1e-4
            ), column


@pytest.mark.slow
def test_evaluation_of_two_processes_is_that_of_the_checkpoint(tmp_path):
    """With batch normalisation too: exact over an odd number of images, statistics included."""
    data = write_image_folder(tmp_path / "data", train=6, val=7, classes=3)
    common = (
        *("--data", data, "--arch", "resnet18", "--pool", "skip", "--config-name", "digits"),
        *("--epochs", 1, "--batch-size", 8, "--workers", 0, "--seed", 1),
    )
    out = tmp_path / "out"
    output_of_command(*common, *two_processes(), "--out-dir", out)
    (row,) = read_log(out)
    checkpoint = out / "checkpoint-epoch1.pth.tar"
    printed = output_here(*common, "--cpu", "--evaluate", "--resume", checkpoint, "--out-dir", out)
    assert f"loss {float(row['val_loss']):.4f} on 21 images" in printed
    assert f"top-1 error {float(row['val_err1']):.2f}%" in printed


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds the workers in /proc")
def test_torchrun_restarts_and_gives_the_result_of_one(tmp_path, plain, plain_of_one_process):
    """One of the two processes is killed after the first epoch; torchrun starts both anew.

    They go on from the newest checkpoint: each of the two starts makes an epoch of the result.
    """
    program = ("-m", plain_training.__name__)
    options = (*plain, "--accum-steps", 2, "--out-dir", tmp_path)
    command = torchrun_command(*options, program=program)
    launcher = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
    )
    while not (tmp_path / "checkpoint-epoch1.pth.tar").exists():
        assert launcher.poll() is None
        time.sleep(0.01)
    os.kill(children(launcher.pid)[1], signal.SIGKILL)
    printed, _ = launcher.communicate(timeout=HANG)
    assert launcher.returncode == 0, printed
    assert printed.count("epoch 1/2: lr") == 1, printed
    assert_same_run(tmp_path, plain_of_one_process, first_weights=plain[1])


@pytest.fixture
def tiny_command(tmp_path):
    data = write_image_folder(tmp_path / "data", train=4, val=2)
    return (
        *("--data", data, "--arch", "resnet18", "--pool", "skip", "--config-name", "digits"),
        *("--epochs", 1, "--batch-size", 4, "--out-dir", tmp_path / "out"),
    )


def test_error_of_one_process_ends_the_command(tmp_path, tiny_command):
    """An unreadable image that one of the two comes upon, in a worker process."""
    bad = tmp_path / "data" / "train" / "class1" / "1_2.JPEG"
    bad.write_bytes(b"not a picture")
    result = run_command(*tiny_command, *two_processes(), "--workers", 2)
    assert str(bad) in checked_error(result.returncode, result.stderr)


def test_port_in_use_ends_the_command(tiny_command):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = [*two_processes(), "--dist-url", f"tcp://127.0.0.1:{port}"]
        assert f"port {port} cannot be used" in error_here(*tiny_command, *options)


@pytest.mark.slow
def test_machines_that_see_different_checkpoints_are_refused(tmp_path, plain):
    """Each machine has a --resume FILE of its own: one after no epoch, the other after one."""
    other = tmp_path / "other.pth.tar"
    content = torch.load(plain[1], weights_only=True)
    stats = {name: [50.0] for name in content["stats"]}
    torch.save({**content, "epoch": 1, "stats": stats}, other)
    url, out_dir = free_dist_url(), tmp_path / "out"
    errors = [tmp_path / "stderr0", tmp_path / "stderr1"]
    machines = [
        start_plain(
            *("--resume", start, *plain[2:], "--world-size", 2, "--rank", rank),
            *("--dist-url", url, "--out-dir", out_dir),
            stdout=tmp_path / "stdout",
            stderr=errors[rank],
        )
        for rank, start in enumerate((plain[1], other))
    ]
    assert all(map(exit_code, machines))
    assert (
        "process 1 would go on from after epoch 1, the main one from after epoch 0"
        in errors[1].read_text()
    )
    assert not list(out_dir.glob("*"))
