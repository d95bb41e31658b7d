"""Several processes: the same result as one, and errors that reach the command's end."""

import math
import socket

import pytest
import torch
from torch import nn

from models import create_model
from tests.command_line import (
    checked_error,
    error_here,
    free_dist_url,
    output_here,
    read_log,
    run_command,
)
from tests.image_folders import write_image_folder
from training.history import COLUMNS

# What depends on the machine rather than on the run.
MACHINE_COLUMNS = {"seconds", "images_per_second", "data_wait_percent", "gpu_memory_gib"}


def two_processes():
    return (
        *("--multiprocessing-distributed", "--nproc", 2, "--cpu"),
        *("--dist-url", free_dist_url(), "--dist-backend", "gloo"),
    )


def write_start(path, arch, pool, classes):
    """Save a checkpoint of no epochs whose weights have a gradient worth comparing.

    The published VGG starts at a standard deviation of 0.01, where its logits and gradients
    all but vanish.
    """
    torch.manual_seed(0)
    model = create_model(arch, pool, classes)
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


def test_two_processes_give_the_result_of_one(tmp_path):
    """For the same global batches, of odd sizes, so that the two shares differ.

    A network with batch normalisation cannot give it: each process normalises by the
    statistics of its own share. VGG without ``_bn`` and GFGP has none, and no dropout.
    """
    data = write_image_folder(tmp_path / "data", train=6, val=5, classes=2)
    start = write_start(tmp_path / "start.pth.tar", "vgg11bow", "avg", 2)
    common = (
        *("--data", data, "--arch", "vgg11bow", "--pool", "avg", "--config-name", "digits"),
        *("--epochs", 2, "--batch-size", 7, "--lr", 0.001, "--resume", start, "--workers", 0),
    )
    output_here(*common, "--cpu", "--out-dir", tmp_path / "one")
    output_here(*common, *two_processes(), "--out-dir", tmp_path / "two")
    first = torch.load(start, weights_only=True)["state_dict"]
    one, two = (weights(tmp_path / name, 2) for name in ("one", "two"))
    for name, before in first.items():
        moved = (one[name] - before).norm()
        assert moved > 0
        assert (two[name] - one[name]).norm() < 1e-3 * moved, name
    for row_of_one, row_of_two in zip(
        read_log(tmp_path / "one"), read_log(tmp_path / "two"), strict=True
    ):
        for column in set(COLUMNS) - MACHINE_COLUMNS:
            assert math.isclose(
                float(row_of_one[column]), float(row_of_two[column]), rel_tol=1e-4
            ), column


def test_evaluation_of_two_processes_is_that_of_the_checkpoint(tmp_path):
    """With batch normalisation too: exact over an odd number of images, statistics included."""
    data = write_image_folder(tmp_path / "data", train=6, val=7, classes=3)
    common = (
        *("--data", data, "--arch", "resnet18", "--pool", "skip", "--config-name", "digits"),
        *("--epochs", 1, "--batch-size", 8, "--workers", 0, "--seed", 1),
    )
    out = tmp_path / "out"
    output_here(*common, *two_processes(), "--out-dir", out)
    (row,) = read_log(out)
    checkpoint = out / "checkpoint-epoch1.pth.tar"
    printed = output_here(*common, "--cpu", "--evaluate", "--resume", checkpoint)
    assert f"loss {float(row['val_loss']):.4f} on 21 images" in printed
    assert f"top-1 error {float(row['val_err1']):.2f}%" in printed


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
