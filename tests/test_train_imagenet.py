"""The command line from end to end: the published command, digits, kill and resume, evaluation."""

import fcntl
import multiprocessing.connection
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import create_model
from tests.support.command_line import (
    free_dist_url,
    output_here,
    read_log,
    run_command,
    run_script,
    start_command,
)
from tests.support.image_folders import write_image_folder
from tests.support.paths import REPOSITORY
from tests.support.tiny_network import create_tiny_network
from tests.support.warm_python import HANG, exit_code
from tests.training.conftest import no_curves  # noqa: F401  for all of its runs here
from training.records.evaluation import read_evaluation

SMALL_DIGITS = (
    *("--dataset", "digits", "--arch", "resnet18", "--cpu", "--batch-size", 16),
    *("--limit-train-batches", 2, "--limit-val-batches", 1),
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_published_command_runs_unchanged(tmp_path):
    """All but the script's name as published; then flags that make it short."""
    data = write_image_folder(tmp_path / "data", train=4, val=3, val_name="val_dir")
    out = tmp_path / "results" / "resnet50"
    published = (
        *("--dataset", "imagenet", "--data", data, "--arch", "resnet50", "--pool", "max_ent"),
        *("--config-name", "imagenet", "--out-dir", out, "--dist-url", free_dist_url()),
        *("--dist-backend", "nccl", "--multiprocessing-distributed"),
        *("--world-size", 1, "--rank", 0),
    )
    # The published learning rate is for batches of 256: two images may not survive a step of it.
    short = ("--epochs", 1, "--batch-size", 2, "--lr", 1e-4, "--seed", 0)
    limits = ("--limit-train-batches", 1, "--limit-val-batches", 1)
    result = run_command(*published, *short, *limits)
    assert result.returncode == 0, result.stdout + result.stderr
    assert names(out) == [
        "checkpoint-epoch1.pth.tar",
        "config.json",
        "lambdas.csv",
        "lambdas.pdf",
        "lambdas.png",
        "log.csv",
        "model_best.pth.tar",
        "train_epochs.pdf",
        "train_epochs.png",
    ]
    (row,) = read_log(out)
    assert (row["epoch"], row["lr"]) == ("1", "0.0001")
    assert 0 <= float(row["val_err1"]) <= 100
    checkpoint = torch.load(out / "checkpoint-epoch1.pth.tar", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["arch"]) == (1, "resnet50")
    assert checkpoint["args"]["config_name"] == "imagenet"
    if not torch.cuda.is_available():
        assert "using gloo on the CPU" in result.stdout


@pytest.mark.slow
@pytest.mark.longest
def test_readmes_digits_command_reaches_its_accuracy(tmp_path):
    """In a shell, as it stands there but for the installation that comes before.

    One thread takes little longer than two, which wait for each other, and leaves the others to
    the tests that run beside it.
    """
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- command: digits -->\n```bash\n(.*)\n```", readme)[1]
    _, command = block.split("pip install -r requirements.txt && ")
    out = tmp_path / "digits"
    this_python = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    variables = {"PATH": this_python, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        command.replace("results/digits", shlex.quote(str(out))),
        shell=True, cwd=REPOSITORY, env=os.environ | variables, check=True,
    )  # fmt: skip
    log = read_log(out)
    assert float(log[-1]["val_err1"]) <= 3
    checkpoints = {f"checkpoint-epoch{number + 1}.pth.tar" for number in range(len(log))}
    assert checkpoints | {"train_epochs.pdf", "model_best.pth.tar"} <= set(names(out))
    printed = output_here(
        *("--dataset", "digits", "--arch", "resnet18", "--evaluate"),
        *("--resume", out / f"checkpoint-epoch{len(log)}.pth.tar", "--out-dir", tmp_path),
    )
    assert f"top-1 error {float(log[-1]['val_err1']):.2f}%" in printed
    assert "on 360 images" in printed


@pytest.fixture
def tiny_network(monkeypatch):
    """Train a network whose checkpoints are quickly written."""
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


@pytest.mark.usefixtures("tiny_network")
def test_resumed_epochs_replace_their_rows(tmp_path):
    out = tmp_path / "out"
    output_here(*SMALL_DIGITS, "--epochs", 2, "--seed", 0, "--out-dir", out)
    rows = read_log(out)
    output_here(
        *(*SMALL_DIGITS, "--epochs", 2, "--seed", 1, "--out-dir", out),
        *("--resume", out / "checkpoint-epoch1.pth.tar"),
    )
    again = read_log(out)
    assert [row["epoch"] for row in again] == ["1", "2"]
    assert again[0] == rows[0]
    assert again[1]["train_loss"] != rows[1]["train_loss"]


@pytest.mark.usefixtures("tiny_network")
def test_seed_decides_the_weights(tmp_path):
    def first_weights(name, *seed):
        output_here(*SMALL_DIGITS, "--epochs", 1, "--out-dir", tmp_path / name, *seed)
        path = tmp_path / name / "checkpoint-epoch1.pth.tar"
        return torch.load(path, weights_only=True)["state_dict"]["fc.weight"]

    seeded = first_weights("a", "--seed", 4)
    assert torch.equal(seeded, first_weights("b", "--seed", 4))
    assert not torch.equal(seeded, first_weights("c", "--seed", 5))
    assert not torch.equal(first_weights("d"), first_weights("e"))


def test_published_checkpoint_is_evaluated(tmp_path):
    """Against the same evaluation written out: exclusion, resize, crop, errors, all by hand."""
    data = write_image_folder(tmp_path / "data", val=5, classes=3, val_name="val_dir", size=60)
    for number, path in enumerate(sorted((data / "val_dir").rglob("*.JPEG")), start=1):
        path.rename(path.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
    (tmp_path / "exclude.txt").write_text("2\nILSVRC2012_val_00000015.JPEG\n")
    model = create_model("resnet18", "avg", 3).eval()
    stats = {
        key: [50.0]
        for key in ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")
    }
    torch.save(
        {
            "epoch": 1,
            "arch": "resnet18",
            "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()},
            "stats": stats,
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.1).state_dict(),
            "args": {"pool": "avg"},
        },
        tmp_path / "published.pth.tar",
    )
    printed = output_here(
        *("--dataset", "imagenet", "--data", data, "--arch", "resnet18", "--pool", "avg"),
        *("--config-name", "digits", "--cpu", "--evaluate", "--workers", 0),
        *("--resume", tmp_path / "published.pth.tar", "--exclude", tmp_path / "exclude.txt"),
        *("--out-dir", tmp_path / "out"),
    )
    wrong = 0
    kept = [number for number in range(1, 16) if number not in (2, 15)]
    for number in kept:
        label = (number - 1) // 5
        path = data / "val_dir" / f"class{label}" / f"ILSVRC2012_val_{number:08d}.JPEG"
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.resize((32, 32), Image.BILINEAR))) / 255
        wrong += model((pixels.movedim(2, 0)[None] - 0.5) / 0.5).argmax().item() != label
    assert f"top-1 error {100 * wrong / 13:.2f}%, top-5 error 0.00%" in printed
    assert "on 13 images" in printed
    evaluation = read_evaluation(tmp_path / "out" / "evaluation.json")
    assert evaluation.top1_error == pytest.approx(100 * wrong / 13)
    assert (evaluation.top5_error, evaluation.images, evaluation.averaged) == (0, 13, False)
    assert f"loss {evaluation.loss:.4f}" in printed
    assert evaluation.checkpoint == str(tmp_path / "published.pth.tar")
    assert (evaluation.dataset, evaluation.data) == ("imagenet", str(data))
    assert names(tmp_path / "out") == [
        "confused_pairs.csv",
        "confusion.csv",
        "confusion.pdf",
        "confusion.png",
        "evaluation.json",
        "evaluation_classes.csv",
    ]


@pytest.mark.usefixtures("tiny_network")
def test_lines_where_there_is_no_terminal(tmp_path):
    printed = output_here(*(*SMALL_DIGITS, "--epochs", 1, "--out-dir", tmp_path, "--print-freq", 1))
    lines = [line for line in printed.splitlines() if line.startswith("epoch 1/1 [")]
    assert len(lines) == 2
    for line, done in zip(lines, (16, 32), strict=True):
        assert f"[{done}/32]" in line
        assert re.search(r"loss \d+\.\d+ err@1 \d+\.\d+% err@5 \d+\.\d+%", line)
        assert re.search(r"\d+\.\d images/s \d\d:\d\d left", line)


def test_bar_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 150, 0, 0))
    process = start_command(
        *(*SMALL_DIGITS, "--epochs", 1, "--out-dir", tmp_path / "out"),
        stdout=tmp_path / "stdout",
        stderr=Path(os.ttyname(theirs)),
    )
    shown = b""
    while ours in multiprocessing.connection.wait([ours, process.sentinel], HANG):
        shown += os.read(ours, 4096)
    assert exit_code(process) == 0
    os.close(ours)
    os.close(theirs)
    output = (tmp_path / "stdout").read_text()
    bar = shown.decode()
    assert re.search(r"epoch 1/1: +\d+%\|", bar)
    assert "32/32" in bar
    assert "images/s" in bar
    assert re.search(r"loss \d+\.\d+ err@1 \d+\.\d+%", bar)
    assert "epoch 1/1: lr" in output
    assert "[16/32]" not in output


def test_help_names_every_published_option():
    """The options of the published imagenet_train.py."""
    result = run_script("--help")
    assert result.returncode == 0
    for option in (
        *("--data", "--dataset", "-a", "--arch", "--pool", "--config-name", "--pretrained"),
        *("--seed", "-j", "--workers", "--start-epoch", "-p", "--print-freq", "--out-dir"),
        *("--pdf-filename", "--save-last-checkpoint", "--resume", "-e", "--evaluate", "--gpu"),
        *("--world-size", "--rank", "--dist-url", "--dist-backend"),
        "--multiprocessing-distributed",
    ):
        assert re.search(rf"(?<![\w-]){option}\b", result.stdout), option


@pytest.mark.slow
def test_run_on_a_folder_needs_no_package_of_other_runs(tmp_path):
    """Neither webdataset, which shards need, nor tensorboard."""
    data = write_image_folder(tmp_path / "data", train=4, val=2)
    options = (
        *("--data", data, "--arch", "resnet18", "--pool", "skip", "--config-name", "digits"),
        *("--epochs", 1, "--batch-size", 4, "--limit-train-batches", 1, "--workers", 0, "--cpu"),
        *("--out-dir", tmp_path / "out"),
    )
    program = (
        "import sys\n"
        "sys.modules.update(webdataset=None, tensorboard=None)\n"  # importing them fails
        "import train_imagenet, training.command\n"
        "from tests.support.tiny_network import create_tiny_network\n"
        "training.command.create_model = create_tiny_network\n"
        "sys.exit(train_imagenet.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, options)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(read_log(tmp_path / "out")) == 1
