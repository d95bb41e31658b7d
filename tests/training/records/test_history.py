"""The record of a run: statistics, log.csv, curves."""

import csv
import math
from dataclasses import astuple, replace
from math import nan

import matplotlib
import pytest
from PIL import Image

from training.errors import UserError
from training.records.curves import draw_curves, write_curves
from training.records.history import (
    EpochRecord,
    best_record,
    history_from_stats,
    read_log,
    stats_from_history,
    write_log,
)

PUBLISHED_KEYS = ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")


def record(epoch, val_err1=50.0):
    return EpochRecord(
        *(epoch, 0.1 / epoch, 2.5, 80.0, 30.0, 2.25, val_err1, 20.0, 12.5, 99.0),
        *(6.25, 3.5, 0.0, 2.0, 55.0, 15.0),
    )


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


def test_stats_of_a_version_with_fewer_columns():
    stats = stats_from_history([record(1), record(2)])
    del stats["data_wait_percent"], stats["gpu_memory_gib"]
    for expected, entry in zip([record(1), record(2)], history_from_stats(stats, 2), strict=True):
        assert math.isnan(entry.data_wait_percent) and math.isnan(entry.gpu_memory_gib)
        assert astuple(entry)[:10] == astuple(expected)[:10]


def test_stats_of_unequal_length_are_refused():
    stats = {key: [1.0, 2.0] for key in PUBLISHED_KEYS} | {"test_err1": [1.0]}
    with pytest.raises(ValueError):
        history_from_stats(stats, epoch=2)


def test_latest_of_the_best_epochs_counts():
    history = [record(1, 3.0), record(2, 2.0), record(3, 2.0), record(4, 5.0)]
    assert best_record(history).epoch == 3


@pytest.mark.parametrize(
    ("errors", "losses", "better"),
    [
        ((3.0, 2.0), (1.0, 5.0), True),
        ((2.0, 3.0), (5.0, 1.0), False),
        ((2.0, 2.0), (1.0, 0.9), True),
        ((2.0, 2.0), (1.0, 1.0), False),
        ((2.0, math.nan), (1.0, math.nan), False),
    ],
)
def test_better_weights_have_the_lower_error_then_the_lower_loss(errors, losses, better):
    raw, averaged = zip(errors, losses, strict=True)
    entry = replace(record(1), val_err1=raw[0], val_loss=raw[1])
    entry = replace(entry, ema_val_err1=averaged[0], ema_val_loss=averaged[1])
    assert entry.averaged_is_better is better
    assert (entry.best_val_err1, entry.best_val_err5) == (min(errors), 15.0 if better else 20.0)


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


def test_log_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "log.csv"
    history = [record(1), record(2)]
    write_log(history, path)
    assert read_log(path) == history
    write_log([EpochRecord(1, *[math.nan] * 12)], path)
    assert all(math.isnan(value) for value in astuple(read_log(path)[0])[1:])


def test_log_of_another_version_is_read(tmp_path):
    """One with the columns of version 0.1.0 and one that is not known yet."""
    path = tmp_path / "log.csv"
    path.write_text(
        "epoch,lr,train_loss,train_err1,train_err5,val_loss,val_err1,val_err5,seconds,"
        "images_per_second,later\n3,0.1,2.5,80.0,30.0,2.25,50.0,20.0,12.5,99.0,text\n"
    )
    (entry,) = read_log(path)
    assert (entry.epoch, entry.val_err1, entry.images_per_second) == (3, 50.0, 99.0)
    assert math.isnan(entry.data_wait_percent)


@pytest.mark.parametrize("text", ["no,log\n1,2\n", "epoch,lr\n1,high\n", "epoch\nx\n"])
def test_file_that_is_no_log(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UserError, match=r"log\.csv: is no log"):
        read_log(tmp_path / "log.csv")
    with pytest.raises(UserError, match="No such file"):
        read_log(tmp_path / "missing.csv")


def test_line_of_an_epoch_leaves_out_what_is_not_known():
    assert "99.0 images/s, data wait 6.2%, GPU memory 3.50 GiB" in str(record(1))
    assert str(EpochRecord(1, *[1.0] * 9)).endswith("1.0 images/s")


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
    # Training, validation of the raw weights, and of the averaged ones.
    assert top1 == [[[1, 80], [2, 80]], [[1, 60], [2, 40]], [[1, 55], [2, 55]]]
    without = [replace(each, ema_val_loss=nan, ema_val_err1=nan) for each in history]
    assert [len(axes.lines) for axes in draw_curves(without).axes] == [1, 2, 2, 3]


def test_last_half_has_panels_of_its_own():
    history = [record(1, 900.0), *(record(epoch, 50.0 - epoch) for epoch in range(2, 41))]
    panels = draw_curves(history).axes
    assert len(panels) == 7
    whole, half = (
        next(axes for axes in panels if axes.get_title() == title)
        for title in ("Top-1 error (%)", "Top-1 error (%), epochs 21 to 40")
    )
    assert whole.get_ylim()[1] > 900
    val = half.lines[1].get_xydata().tolist()
    assert val == [[epoch, 50 - epoch] for epoch in range(21, 41)]
    # No dots where they would only make the line thick.
    assert {line.get_marker() for axes in panels for line in axes.lines} == {"None"}
    assert len(draw_curves(history[:5]).axes) == 4


def test_unwritable_file_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(UserError, match=r"log\.csv"):
        write_log([record(1)], tmp_path / "log.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
