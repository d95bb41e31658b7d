"""An epoch's files: their order, a disk that is nearly full, kills and rewinds in between."""

import errno
import os
import resource
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.command_line import output_here, read_log, run_here
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from training.atomic_write import WriteError, remove_leftovers, write_link
from training.processes.interruption import Interruption
from training.records import figures
from training.records.going_on import going_on
from training.records.run_files import RunFiles
from training.records.tensorboard import EventFile, _scalars

EPOCHS = 3
RUN = (*SMALL_DIGITS, "--seed", 5, "--epochs", EPOCHS, "--tensorboard", "--print-freq", 1)
DRAWN = figures.write_figures
"""What draws, before a fixture of all these tests takes its place."""


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


@contextmanager
def files_of_at_most(size):
    """No file grows beyond ``size`` bytes: a write fails as it does where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def shown(out, tag="loss/val"):
    seen = EventAccumulator(str(out / "tensorboard")).Reload()
    return [(event.step, event.value) for event in seen.Scalars(tag)]


def logged(out):
    return [(int(row["epoch"]), pytest.approx(float(row["val_loss"]))) for row in read_log(out)]


def test_text_then_the_checkpoint_then_the_pictures(tmp_path, monkeypatch):
    replace, order = os.replace, []

    def noted(source, target):
        if Path(target).parent == tmp_path:  # Numba replaces those of its cache, too
            order.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    monkeypatch.setattr(figures, "SECONDS_BETWEEN", 0)
    output_here(*RUN, "--epochs", 1, "--out-dir", tmp_path)
    assert order == [
        *("config.json", "log.csv", "model_best.pth.tar", "checkpoint-epoch1.pth.tar"),
        *("train_epochs.pdf", "train_epochs.png"),
    ]


def test_curves_have_the_name_that_they_are_told(tmp_path, monkeypatch):
    """Also where a run that has ended draws what a kill has kept it from."""
    monkeypatch.setattr(figures, "write_figures", DRAWN)
    pdf = tmp_path / "pictures" / "curves.pdf"
    named = (*RUN, "--epochs", 1, "--out-dir", tmp_path, "--pdf-filename", "pictures/curves.pdf")
    assert "finished already" not in output_here(*named)
    assert drawn(tmp_path) == [pdf, pdf.with_suffix(".png")]
    pdf.unlink()
    assert "finished already" in output_here(*named, "--resume", "auto")
    assert drawn(tmp_path) == [pdf, pdf.with_suffix(".png")]


def drawn(out):
    return sorted(path for path in out.rglob("*") if path.suffix in (".pdf", ".png"))


@pytest.mark.parametrize(
    ("size", "missing"),
    [
        # Of the checkpoints, of 13 KB, but not of the pictures.
        (17_000, {"train_epochs.pdf", "train_epochs.png"}),
        # Of the PDF file, too, but not of the PNG file.
        (32_000, {"train_epochs.png"}),
    ],
)
def test_nearly_full_disk_takes_the_pictures_alone(tmp_path, monkeypatch, size, missing):
    monkeypatch.setattr(figures, "write_figures", DRAWN)
    with files_of_at_most(size):
        code, _, err = run_here(*RUN, "--out-dir", tmp_path)
    assert code == 0, err
    assert all("cannot write" in line and "goes on" in line for line in err.splitlines())
    assert "Traceback" not in err and "train_epochs" in err
    left = {path.name for path in tmp_path.iterdir()}
    assert {f"checkpoint-epoch{epoch}.pth.tar" for epoch in (1, 2, 3)} < left
    assert not missing & left and not [name for name in left if name.startswith(".")]
    assert shown(tmp_path) == logged(tmp_path)


def test_tensorboard_without_space_is_told_later(tmp_path):
    """Of a run whose first epoch found no space for as much as a line."""
    file = EventFile(tmp_path / "tensorboard", purge_step=0)
    with files_of_at_most(64):
        with pytest.raises(OSError):
            file.add(_scalars({"loss": 1.0}), step=1)
        assert file.path.stat().st_size <= 64
    file.add(_scalars({"loss": 1.0}), step=1)
    with files_of_at_most(file.path.stat().st_size + 10), pytest.raises(OSError):
        file.add(_scalars({"loss": 2.0}), step=2)
    file.add(_scalars({"loss": 2.0, "err1": 3.0}), step=2)
    assert shown(tmp_path, "loss") == [(1, 1.0), (2, 2.0)]
    assert shown(tmp_path, "err1") == [(2, 3.0)]


def test_steps_go_on_where_a_resumed_run_has_other_epochs(tmp_path):
    """From one start to the next; a checkpoint that does not tell them counts as it did."""
    for epochs, batches in ((2, 3), (3, 1), (4, 2)):
        options = ("--epochs", epochs, "--limit-train-batches", batches, "--resume", "auto")
        output_here(*RUN, *options, "--out-dir", tmp_path)
    seen = EventAccumulator(str(tmp_path / "tensorboard" / "within_epochs")).Reload()
    told = [(event.step, event.value) for event in seen.Scalars("within_epochs/epoch")]
    assert [step for step, _ in told] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [epoch for _, epoch in told[6:]] == [3, 3.5, 4]
    first, last = tmp_path / "checkpoint-epoch2.pth.tar", tmp_path / "checkpoint-epoch3.pth.tar"
    content = torch.load(first, weights_only=True)
    assert content.pop("steps") == 6
    torch.save(content, first)
    options = ("--epochs", 3, "--limit-train-batches", 1, "--out-dir", tmp_path)
    output_here(*RUN, *options, "--resume", first)
    assert torch.load(last, weights_only=True)["steps"] == 2 * 1 + 1


def test_stop_within_an_epoch_is_not_seen_in_the_steps(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    output_here(*RUN, "--epochs", 2, "--out-dir", whole)
    check, calls = Interruption.check, iter(range(1, 100))

    def stopped(interruption):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return check(interruption)

    monkeypatch.setattr(Interruption, "check", stopped)
    assert run_here(*RUN, "--epochs", 2, "--out-dir", parts)[0] == 128 + signal.SIGTERM
    output_here(*RUN, "--epochs", 2, "--out-dir", parts, "--resume", "auto")
    for name in ("train_loss", "train_err1", "lr", "epoch"):
        told = [
            [(event.step, event.value) for event in seen.Scalars(f"within_epochs/{name}")]
            for folder in (parts, whole)
            for seen in [EventAccumulator(str(folder / "tensorboard/within_epochs")).Reload()]
        ]
        assert told[0] == told[1] and len(told[0]) == 6


class Killed(BaseException):
    """Nothing is done any more."""


@pytest.mark.parametrize("part", ["write_epoch", "show_epoch"])
def test_kill_between_the_parts_of_an_epoch(tmp_path, monkeypatch, part):
    """Before or after what there is of the second epoch: in the end all is told once."""
    original, calls = getattr(RunFiles, part), iter(range(1, 10))

    def killed(files, *arguments):
        if next(calls) == 2:
            raise Killed
        original(files, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunFiles, part, killed)
        patch.setattr(RunFiles, "close", lambda files, ending: None)
        run_here(*RUN, "--out-dir", tmp_path)
    output_here(*RUN, "--out-dir", tmp_path, "--resume", "auto")
    assert [epoch for epoch, _ in logged(tmp_path)] == [1, 2, 3]
    assert shown(tmp_path) == logged(tmp_path)


def test_kill_before_the_last_picture(tmp_path):
    output_here(*RUN, "--out-dir", tmp_path)
    picture = tmp_path / "train_epochs.png"
    whole = picture.read_bytes()
    picture.with_suffix(".pdf").unlink()
    picture.write_text("of the epoch before")
    printed = output_here(*RUN, "--out-dir", tmp_path, "--resume", "auto")
    assert "finished already" in printed
    assert picture.read_bytes() == whole and picture.with_suffix(".pdf").exists()


def test_rewind_that_is_stopped_leaves_no_later_epochs(tmp_path, monkeypatch):
    output_here(*RUN, "--out-dir", tmp_path)
    check = Interruption.check

    def stopped(interruption):
        os.kill(os.getpid(), signal.SIGTERM)
        return check(interruption)

    monkeypatch.setattr(Interruption, "check", stopped)
    first = tmp_path / "checkpoint-epoch1.pth.tar"
    code, _, _ = run_here(*RUN, "--out-dir", tmp_path, "--resume", first)
    assert code == 128 + signal.SIGTERM
    assert [epoch for epoch, _ in logged(tmp_path)] == [1]


def test_leftovers_are_what_atomic_writes_of_others_left(tmp_path):
    left, own = tmp_path / ".log.csv.1234567.tmp", tmp_path / f".log.csv.{os.getpid()}.tmp"
    others = [tmp_path / name for name in (".mine.notes.tmp", "log.csv.12.tmp", ".12.tmp", "a.csv")]
    for path in (left, own, *others):
        path.touch()
    folder = tmp_path / ".folder.12.tmp"
    folder.mkdir()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([own, folder, *others])


def test_best_checkpoint_is_the_same_file(tmp_path):
    output_here(*RUN, "--out-dir", tmp_path)
    best = min(read_log(tmp_path), key=lambda row: (float(row["val_err1"]), -int(row["epoch"])))
    path = tmp_path / f"checkpoint-epoch{best['epoch']}.pth.tar"
    assert path.samefile(tmp_path / "model_best.pth.tar")


def test_link_where_there_are_none_is_a_copy(tmp_path, monkeypatch):
    source, path = tmp_path / "source", tmp_path / "path"
    source.write_text("content")
    write_link(source, path)
    write_link(source, path)
    assert path.samefile(source)

    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_link(source, path)
    assert path.read_text() == "content" and not path.samefile(source)
    with pytest.raises(WriteError, match="cannot write"):
        write_link(tmp_path / "missing", path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["path", "source"]


def test_pictures_are_drawn_beside_the_training_and_at_most_once_a_minute(tmp_path, monkeypatch):
    drawn, goes_on = [], threading.Event()

    def write_figures(history, curves, lambdas):
        assert goes_on.wait(60)
        drawn.append(len(history))

    now = 1000.0
    monkeypatch.setattr(figures, "write_figures", write_figures)
    monkeypatch.setattr(figures.time, "monotonic", lambda: now)
    pictures = figures.Figures(tmp_path, "curves.pdf")
    history = ["first"]
    pictures.update(history)  # begins at once, and is still at it a minute later
    history.append("second")
    now += figures.SECONDS_BETWEEN + 1
    pictures.update(history)
    assert drawn == []
    goes_on.set()
    pictures._thread.join()
    pictures.update([*history, "third"])
    pictures._thread.join()
    assert drawn == [1, 3]
    now += figures.SECONDS_BETWEEN - 1
    pictures.update([*history, "third", "fourth"])
    assert drawn == [1, 3]
    pictures.close()
    assert drawn == [1, 3, 4]
    pictures.close()
    assert drawn == [1, 3, 4]


def test_what_libraries_raise_is_a_line(capsys):
    import zlib

    for error in (OSError(28, "No space left"), zlib.error("of a full\ndisk"), AttributeError("x")):
        with going_on("cannot write it") as outcome:
            raise error
        line = capsys.readouterr().err
        assert line.startswith("cannot write it (") and line.count("\n") == 1
        assert line.endswith("; training goes on\n") and str(outcome.error) in line
