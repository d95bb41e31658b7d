"""The record of a run: statistics, log.csv, curves."""

import csv
import math

import matplotlib
import pytest
from PIL import Image

from training.errors import UserError
from training.history import (
    EpochRecord,
    best_record,
    history_from_stats,
    stats_from_history,
    write_log,
)
from training.plots import draw_curves, write_curves

PUBLISHED_KEYS = ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")


def record(epoch, val_err1=50.0):
    return EpochRecord(epoch, 0.1 / epoch, 2.5, 80.0, 30.0, 2.25, val_err1, 20.0, 12.5, 99.0)


def test_stats_have_the_published_lists_and_come_back():
    history = [record(1), record(2), record(3)]
    stats = stats_from_history(history)
    assert set(PUBLISHED_KEYS) <= set(stats)
    assert stats["test_loss"] == [2.25] * 3
    assert history_from_stats(stats, epoch=3) == history


def test_published_stats_leave_only_their_missing_columns_unknown():
    stats = {key: [float(number), number + 1.0] for number, key in enumerate(PUBLISHED_KEYS)}
    history = history_from_stats(stats, epoch=2)
    assert [entry.epoch for entry in history] == [1, 2]
    assert [entry.val_loss for entry in history] == stats["test_loss"]
    assert [entry.train_err5 for entry in history] == stats["train_err5"]
    assert all(math.isnan(entry.lr) and math.isnan(entry.seconds) for entry in history)


def test_stats_of_unequal_length_are_refused():
    stats = {key: [1.0, 2.0] for key in PUBLISHED_KEYS} | {"test_err1": [1.0]}
    with pytest.raises(ValueError):
        history_from_stats(stats, epoch=2)


def test_latest_of_the_best_epochs_counts():
    history = [record(1, 3.0), record(2, 2.0), record(3, 2.0), record(4, 5.0)]
    assert best_record(history).epoch == 3


def test_log_has_a_row_per_epoch_and_replaces_the_file(tmp_path):
    path = tmp_path / "log.csv"
    write_log([record(1), record(2), record(3)], path)
    unknown = EpochRecord(2, math.nan, *[1.0] * 8)
    write_log([record(1), unknown], path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["lr"]) == 0.1
    assert rows[1]["lr"] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_curves_go_to_a_pdf_and_a_png(tmp_path):
    backend = matplotlib.get_backend(auto_select=False)
    write_curves([record(1), record(2)], tmp_path / "curves.pdf")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
    assert matplotlib.get_backend(auto_select=False) == backend


def test_curves_show_the_history():
    history = [record(1, 60.0), record(2, 40.0)]
    panels = draw_curves(history).axes
    lr, _, top1, _ = ([line.get_xydata().tolist() for line in axes.lines] for axes in panels)
    assert lr == [[[1, 0.1], [2, 0.05]]]
    assert top1 == [[[1, 80], [2, 80]], [[1, 60], [2, 40]]]


def test_unwritable_file_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(UserError, match=r"log\.csv"):
        write_log([record(1)], tmp_path / "log.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
