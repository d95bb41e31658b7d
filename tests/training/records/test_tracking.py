"""Trackers: what fails is told later, what is known is not told again, services for real."""

import json
import struct
import sys
import time

import pytest
import torch

from tests.support.command_line import error_here, output_here, read_log, run_here
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from tests.support.warm_python import HANG
from training.errors import UserError
from training.processes.ranks import Process
from training.records.history import EpochRecord
from training.records.metrics import ScoreSums
from training.records.remembered import Remembered, recall, remember
from training.records.step_axis import StepAxis
from training.records.steps import StepRecord, StepRecords
from training.records.tracker import Ending
from training.records.tracking import Tracking

RUN = (*SMALL_DIGITS, "--seed", 5, "--print-freq", 2)


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


def record(epoch):
    return EpochRecord(epoch, *[1.0] * 9)


class Listening:
    """A tracker that notes what it is told, or does not listen."""

    def __init__(self, told=0):
        self.told = told
        self.deaf = False
        self.epochs, self.steps = [], []

    def add_step(self, record):
        if self.deaf:
            raise ConnectionError("nobody there")
        self.steps.append(record.step)

    def add_epoch(self, history, lambdas):
        if self.deaf:
            raise ConnectionError("nobody there")
        self.epochs.append((history[-1].epoch, lambdas))
        self.told = history[-1].epoch

    def close(self, ending):
        self.ending = ending


def step(number):
    return StepRecord(number, number / 10, 0.1, 1.0, 50.0, 0)


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which stands still until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("training.records.tracking.time.monotonic", lambda: now[0])
    return now


def test_what_a_tracker_has_missed_it_is_told_later(clock, capsys):
    listening, found = Listening(), {1: {"pool": "first"}, 2: {"pool": "second"}}
    tracking = Tracking("--log it", lambda: listening, lambda: found)
    history = [record(1)]
    tracking.begin([])
    tracking.add_epoch(history, found[1])
    listening.deaf = True
    for number in (11, 12, 13):
        tracking.add_step(step(number))  # one line, not three
    history.append(record(2))
    tracking.add_epoch(history, found[2])
    listening.deaf = False
    tracking.add_step(step(21))  # it would come before the second epoch
    history.append(record(3))
    tracking.add_epoch(history, {"pool": "third"})
    tracking.add_step(step(31))
    tracking.close(Ending.STOPPED)
    assert listening.epochs == [(1, found[1]), (2, found[2]), (3, {"pool": "third"})]
    assert listening.steps == [31] and listening.ending is Ending.STOPPED
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["--log it: cannot be told of the run (nobody there); training goes on"] * 2


def test_run_that_goes_on_tells_what_is_not_known():
    listening = Listening(told=1)
    tracking = Tracking("--log it", lambda: listening, lambda: {2: {"pool": "second"}})
    tracking.begin([record(1), record(2)])
    assert listening.epochs == [(2, {"pool": "second"})]


def test_tracker_that_fails_slowly_is_let_be_for_a_while(clock, capsys):
    """Where it takes a minute until it has failed, no epoch of the next ten tries again."""
    listening, tries = Listening(), []

    def opened():
        tries.append(clock[0])
        clock[0] += 60
        if len(tries) < 3:
            raise ConnectionError("nobody there")
        return listening

    tracking = Tracking("--log it", opened, dict)
    tracking.begin([])
    history = []
    for epoch in range(1, 15):
        clock[0] += 100
        tracking.add_step(step(epoch))
        history.append(record(epoch))
        tracking.add_epoch(history, {})
    assert tries == [1000, 1660, 2320]
    assert listening.told == 14 and [each for each, _ in listening.epochs] == [*range(1, 15)]
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("ending", Ending)
def test_end_of_a_run_is_a_last_try_and_a_stop_is_not(clock, ending):
    listening = Listening()
    tracking = Tracking("--log it", lambda: listening, dict)
    listening.deaf = True
    tracking.begin([])
    tracking.add_epoch([record(1)], {})
    listening.deaf = False
    tracking.close(ending)
    assert listening.epochs == ([(1, {})] if ending is Ending.FINISHED else [])


def test_ids_are_kept_and_a_rewind_is_another_run(tmp_path):
    assert recall(tmp_path, "wandb", 5) is None
    remember(tmp_path, "wandb", Remembered("a", 3))
    remember(tmp_path, "mlflow", Remembered("b", 2))
    assert recall(tmp_path, "wandb", 3) == recall(tmp_path, "wandb", 4) == Remembered("a", 3)
    assert recall(tmp_path, "wandb", 2) is None
    assert recall(tmp_path, "mlflow", 2) == Remembered("b", 2)
    for text in ("[]", "{", '{"wandb": {}}', '{"wandb": 3}'):
        (tmp_path / "trackers.json").write_text(text)
        with pytest.raises(UserError, match=r"trackers\.json: is not what this program wrote"):
            recall(tmp_path, "wandb", 3)


def records_of(epochs, length, **options):
    """Records of every second batch of a run that has had ``epochs`` epochs of ``length``."""
    return StepRecords(2, StepAxis(epochs, epochs * length, length), **options)


def test_step_records_are_means_since_the_one_before():
    sums, records = ScoreSums(torch.device("cpu")), records_of(epochs=0, length=5)
    losses, found = [4.0, 2.0, 1.0, 1.0, 8.0, 6.0], []
    for number, loss in enumerate(losses[:5], start=1):
        sums.add(torch.tensor(loss), torch.eye(3), torch.tensor([0, 1, 0]))
        if number == 4:
            sums.add_skipped_step()
        found += [records.record(2, number, sums, lr=0.5)] * 2  # as from validation, too
        found[-1] = records.record(2, number, sums, lr=0.5)
    told = [each for each in found if each is not None]
    assert [(each.step, each.epoch, each.train_loss, each.skipped_steps) for each in told] == [
        (12, pytest.approx(2.4), 3.0, 0),
        (14, pytest.approx(2.8), 1.0, 1),
    ]
    assert told[0].train_err1 == pytest.approx(100 / 3) and told[0].lr == 0.5
    fresh = ScoreSums(torch.device("cpu"))
    for number in (1, 2):
        fresh.add(torch.tensor(7.0), torch.eye(3), torch.tensor([0, 1, 2]))
        last = records.record(3, number, fresh, lr=0.5)
    assert (last.step, last.train_loss, last.train_err1) == (17, 7.0, 0.0)


def test_step_that_was_recorded_before_a_stop_is_not_recorded_again():
    """Where the run was stopped while it validated, the first it has to tell is of that step."""
    records = records_of(epochs=1, length=4, batches=4)
    sums = ScoreSums(torch.device("cpu"))
    sums.add(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 2]))
    assert records.record(1, 4, sums, lr=0.5) is None
    assert records.record(2, 2, sums, lr=0.5).step == 10


def test_first_record_after_a_stop_within_an_epoch_is_of_what_came_behind_it():
    """Of this process's images alone; those before the stop are of all processes."""
    before, sums = ScoreSums(torch.device("cpu")), ScoreSums(torch.device("cpu"))
    before.add(torch.tensor(9.0), torch.eye(3)[:2], torch.tensor([1, 0]))
    before.sums[4] = 2 * 3  # three steps, as each of two processes has counted
    sums.go_on_from(before.sums, Process(0, 2, torch.device("cpu")))
    records = records_of(epochs=1, length=8, batches=3, sums=before.sums)
    sums.add(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 2]))
    record = records.record(1, 4, sums, lr=0.5)
    assert (record.train_loss, record.train_err1, record.skipped_steps) == (1.0, 0.0, 3)


def test_steps_go_on_after_epochs_of_another_length():
    axis = StepAxis(epochs=2, steps=90, batches_per_epoch=10)
    assert [axis.at(epoch) for epoch in range(5)] == [0, 45, 90, 100, 110]
    record = StepRecords(2, axis).record(3, 4, ScoreSums(torch.device("cpu")), lr=0.5)
    assert (record.step, record.epoch) == (104, pytest.approx(3.4))


@pytest.mark.parametrize("text", ["", "tensorboard", "wandb,", "wandb mlflow"])
def test_unknown_service(text):
    assert "must be wandb or mlflow or both" in error_here(*RUN, "--log", text)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_service_that_is_not_installed(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    message = error_here(*RUN, "--log", name, "--out-dir", tmp_path / "out")
    assert f"--log {name}" in message and f"pip install {name}" in message
    assert not (tmp_path / "out").exists()


def told_records(path):
    """Yield what wandb keeps of an offline run: LevelDB's log format after seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found = Record()
            found.ParseFromString(parts)
            parts = b""
            yield found


def records_of_all(folder, runs):
    """Return what is kept of ``runs`` runs, once the process that writes it has written all."""
    end = time.monotonic() + HANG
    while time.monotonic() < end:
        paths = sorted(folder.glob("offline-run-*/*.wandb"))
        found = [each for path in paths for each in told_records(path)]
        if sum(each.HasField("exit") for each in found) == runs:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{folder} is not whole")


def test_wandb_for_real(tmp_path, monkeypatch):
    """Offline: a start of two epochs and one that goes on; the log's numbers, under one id."""
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    options = (*RUN, "--log", "wandb", "--out-dir", tmp_path / "run")
    output_here(*options, "--epochs", 2)
    output_here(*options, "--epochs", 3, "--resume", "auto")
    ids, rows, config, exits = set(), [], {}, 0
    for each in records_of_all(tmp_path / "run" / "wandb", runs=2):
        kind = each.WhichOneof("record_type")
        if kind == "run":
            ids.add((each.run.run_id, each.run.project, each.run.display_name))
        elif kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in each.config.update}
        elif kind == "history":
            keys = [item.key or "/".join(item.nested_key) for item in each.history.item]
            values = [json.loads(item.value_json) for item in each.history.item]
            rows.append(dict(zip(keys, values, strict=True)))
        elif kind == "exit":
            assert each.exit.exit_code == 0
            exits += 1
    known = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    assert ids == {(known["id"], "gfgp-cupy", "run")} and known["epoch"] == 3
    assert exits == 2
    assert (config["pool"], config["batch_size"], config["seed"]) == ("skip", 16, 5)
    epochs = [row for row in rows if "val_loss" in row]
    log = read_log(tmp_path / "run")
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    for column in ("val_loss", "train_loss", "lr", "val_err1"):
        assert [row[column] for row in epochs] == [float(row[column]) for row in log]
    assert [row["_step"] for row in rows] == [2, 3, 5, 6, 8, 9]  # batches; every second, and ends
    assert [row["within_epochs/step"] for row in rows if "within_epochs/lr" in row] == [2, 5, 8]


def test_mlflow_for_real(tmp_path, monkeypatch):
    """As above, in a folder; and without the option the numbers are the same."""
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    uri = f"file://{tmp_path / 'mlruns'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    options = (*RUN, "--log", "mlflow", "--out-dir", tmp_path / "run")
    output_here(*options, "--epochs", 2)
    output_here(*options, "--epochs", 3, "--resume", "auto")
    output_here(*RUN, "--epochs", 3, "--out-dir", tmp_path / "plain")
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("gfgp-cupy").experiment_id
    (told,) = client.search_runs([experiment])
    assert (told.info.status, told.info.run_name) == ("FINISHED", "run")
    assert (told.data.params["pool"], told.data.params["batch_size"]) == ("skip", "16")
    log, plain = read_log(tmp_path / "run"), read_log(tmp_path / "plain")
    for column in ("val_loss", "train_loss", "lr"):
        history = client.get_metric_history(told.info.run_id, column)
        assert [each.step for each in history] == [1, 2, 3]
        assert [each.value for each in history] == [float(row[column]) for row in log]
        assert [row[column] for row in log] == [row[column] for row in plain]
    best = min(log, key=lambda row: (float(row["val_err1"]), -int(row["epoch"])))
    assert told.data.metrics["best_val_err1"] == float(best["val_err1"])
    assert told.data.metrics["best_epoch"] == int(best["epoch"])
    steps = client.get_metric_history(told.info.run_id, "within_epochs/train_loss")
    assert [each.step for each in steps] == [2, 5, 8]


def test_service_that_does_not_answer_ends_no_run(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, _, err = run_here(*RUN, "--epochs", 1, "--log", "mlflow", "--out-dir", tmp_path)
    assert code == 0
    lines = err.splitlines()
    assert 2 <= len(lines) <= 3 and all(
        line.startswith("--log mlflow: cannot be told") for line in lines
    )
    assert len(read_log(tmp_path)) == 1
