"""What a run leaves for people, from end to end: config.json, lambdas.csv, TensorBoard."""

import csv
import os
import shlex
import shutil
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gfgp_cupy import record_lambdas
from models import create_model
from tests.support.command_line import error_here, output_here, read_log
from tests.training.conftest import no_curves  # noqa: F401  for all of its runs here
from training.images.datasets import load_digits_data
from training.recipes import RECIPES
from training.records.config import read_config

SMALL = (
    *("--arch", "resnet18", "--cpu", "--batch-size", 8, "--epochs", 2),
    *("--limit-train-batches", 2, "--limit-val-batches", 1),
)
TIMING = {"seconds", "images_per_second", "data_wait_percent"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "first"
    return out, output_here(*SMALL, "--tensorboard", "--print-freq", 1, "--out-dir", out)


def scores(out):
    return [{key: row[key] for key in row.keys() - TIMING} for row in read_log(out)]


def lambda_rows(out):
    with open(out / "lambdas.csv", newline="") as file:
        return list(csv.DictReader(file))


def events(out):
    return EventAccumulator(str(out / "tensorboard"), {"histograms": 0}).Reload()


def test_command_of_config_repeats_the_run(run, tmp_path):
    out, printed = run
    command = read_config(out / "config.json")["command"]
    assert command in printed
    assert str(out) in command
    again = [word.replace(str(out), str(tmp_path / "again")) for word in shlex.split(command)[2:]]
    output_here(*again)
    assert scores(tmp_path / "again") == scores(out)
    assert lambda_rows(tmp_path / "again") == lambda_rows(out)


def test_wait_is_in_the_log_and_memory_only_on_a_gpu(run):
    out, printed = run
    for row in read_log(out):
        assert 0 <= float(row["data_wait_percent"]) <= 100
        assert row["gpu_memory_gib"] == ""
        assert f"data wait {float(row['data_wait_percent']):.1f}%" in printed
    assert "GPU memory" not in printed


def test_lambdas_are_of_validation_images_after_each_epoch(run):
    out, _ = run
    images = load_digits_data("", None, train=False).val
    transform, of_batches = RECIPES["digits"].val_steps()
    batch = of_batches(torch.stack([transform(images.image(index)) for index in range(8)]), [])
    for epoch in (1, 2):
        model = create_model("resnet18", "max_ent", 10).eval()
        path = out / f"checkpoint-epoch{epoch}.pth.tar"
        model.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        with record_lambdas(model) as lambdas, torch.no_grad():
            model(batch)
        rows = [row for row in lambda_rows(out) if row["epoch"] == str(epoch)]
        assert {row["layer"] for row in rows} == set(lambdas)
        for layer, lam in lambdas.items():
            bins = [row for row in rows if row["layer"] == layer]
            assert sum(int(row["count"]) for row in bins) == lam.numel()
            assert 0 <= lam.min().item() - float(bins[0]["low"]) <= 0.02
            assert 0 <= float(bins[-1]["high"]) - lam.max().item() <= 0.02


def test_tensorboard_has_the_log_and_the_lambdas(run):
    out, _ = run
    seen, log = events(out), read_log(out)
    columns = {
        "lr": "lr",
        "loss/train": "train_loss",
        "loss/val": "val_loss",
        "err1/val": "val_err1",
        "err5/train": "train_err5",
        "usage/images_per_second": "images_per_second",
        "usage/data_wait_percent": "data_wait_percent",
    }
    for tag, column in columns.items():
        shown = seen.Scalars(tag)
        assert [event.step for event in shown] == [1, 2]
        assert [event.value for event in shown] == pytest.approx(
            [float(row[column]) for row in log], rel=1e-5
        )
    assert "usage/gpu_memory_gib" not in seen.Tags()["scalars"]
    layers = {row["layer"] for row in lambda_rows(out)}
    assert seen.Scalars("loss/train")[0].step == 1
    assert set(seen.Tags()["histograms"]) == {f"lambda/{layer}" for layer in layers}
    for layer in layers:
        bins = [row for row in lambda_rows(out) if row["layer"] == layer]
        shown = seen.Histograms(f"lambda/{layer}")
        assert [event.step for event in shown] == [1, 2]
        for event in shown:
            rows = [row for row in bins if row["epoch"] == str(event.step)]
            assert event.histogram_value.num == sum(int(row["count"]) for row in rows)
            assert event.histogram_value.min == float(rows[0]["low"])
            # Every bin is where lambdas.csv has it.
            limits = event.histogram_value.bucket_limit
            counts = dict(zip(limits, event.histogram_value.bucket, strict=True))
            filled = {limit: count for limit, count in counts.items() if count}
            assert filled == {float(row["high"]): int(row["count"]) for row in rows}
        medians = [event.value for event in seen.Scalars(f"lambda/{layer}/median")]
        assert len(medians) == 2 and all(0 < median < 1 for median in medians)


def test_tensorboard_shows_what_happens_within_the_epochs(run):
    out, _ = run  # two batches an epoch, a record after each
    seen = EventAccumulator(str(out / "tensorboard" / "within_epochs")).Reload()
    shown = {
        name: [(event.step, event.value) for event in seen.Scalars(f"within_epochs/{name}")]
        for name in ("lr", "train_loss", "epoch", "skipped_steps")
    }
    log = read_log(out)
    assert shown["epoch"] == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert shown["skipped_steps"] == [(step, 0) for step in (1, 2, 3, 4)]
    rates = [float(row["lr"]) for row in log for _ in range(2)]
    assert [lr for _, lr in shown["lr"]] == pytest.approx(rates)
    # Batches of equal size: the epoch's loss is the mean of theirs.
    losses = [loss for _, loss in shown["train_loss"]]
    means = [sum(losses[:2]) / 2, sum(losses[2:]) / 2]
    assert means == pytest.approx([float(row["train_loss"]) for row in log], rel=1e-5)


def test_resumed_epochs_replace_what_was_told_of_them(run, tmp_path):
    out = shutil.copytree(run[0], tmp_path / "out", copy_function=os.link)
    before, config_before = lambda_rows(out), read_config(out / "config.json")
    output_here(
        *(*SMALL, "--tensorboard", "--out-dir", out, "--seed", 2),
        *("--resume", out / "checkpoint-epoch1.pth.tar"),
    )
    first = [row for row in before if row["epoch"] == "1"]
    after = lambda_rows(out)
    assert after[: len(first)] == first
    assert {row["epoch"] for row in after[len(first) :]} == {"2"}
    assert after != before
    shown = events(out).Scalars("loss/val")
    assert [event.step for event in shown] == [1, 2]
    assert shown[1].value == pytest.approx(float(read_log(out)[1]["val_loss"]), rel=1e-5)
    config = read_config(out / "config.json")
    (resumed,) = config.pop("resumed")
    assert config == config_before
    assert resumed["settings"]["seed"] == 2


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    message = error_here(*SMALL, "--tensorboard", "--out-dir", tmp_path / "out")
    assert "--tensorboard" in message and "pip install tensorboard" in message
    assert not (tmp_path / "out").exists()
