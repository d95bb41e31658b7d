"""The moving average of the weights: its decay, which weights are the better ones, who takes them.

That a resumed run has the same average is tested in test_resuming.py.
"""

import math

import pytest
import torch
from torch import nn

from tests.support.command_line import error_here, output_here, read_log
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from training.checkpoints.averaging import make_average, update_average
from training.checkpoints.format import load_checkpoint
from training.checkpoints.weights import weights_of_file
from training.records.evaluation import read_evaluation
from training.records.metrics import Scores

RUN = (*SMALL_DIGITS, "--seed", 5, "--epochs", 2)


def test_decay_warms_up_to_its_value():
    """min(decay, (1 + steps) / (10 + steps)), as TensorFlow documents it; the first is copied."""
    generator = torch.Generator().manual_seed(0)
    model = nn.BatchNorm2d(3)
    averaged, expected = make_average(model), None
    for step in range(6):
        for tensor in (model.weight.data, model.running_var):
            tensor.copy_(torch.rand(3, generator=generator))
        now = {name: value.clone() for name, value in model.state_dict().items()}
        decay = (0, 2 / 11, 3 / 12, 0.3, 0.3, 0.3)[step]  # 4 / 13 would be more than 0.3
        expected = expected or now
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
        update_average(averaged, model, decay=0.3)
    actual = averaged.module.state_dict()
    for name in ("weight", "running_var"):
        torch.testing.assert_close(actual[name], expected[name])
        assert not torch.equal(actual[name], model.state_dict()[name])


def create_convolutions(arch, pool, classes):
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 49, classes)),
    )


def test_average_of_a_short_run_is_near_the_run(tmp_path, monkeypatch):
    """90 steps, of which an average with a decay of 0.9999 from the start would hold the first."""
    monkeypatch.setattr("training.command.create_model", create_convolutions)
    options = ("--dataset", "digits", "--cpu", "--seed", 1, "--epochs", 2, "--ema", 0.9999)
    output_here(*options, "--out-dir", tmp_path)
    last = read_log(tmp_path)[-1]
    assert float(last["val_err1"]) < 20
    assert float(last["ema_val_err1"]) < float(last["val_err1"]) + 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output directory of a run with an average, and what it printed."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        return out, output_here(*RUN, "--ema", 0.9, "--out-dir", out)


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


def load(out, name="checkpoint-epoch2.pth.tar"):
    return torch.load(out / name, weights_only=True)


def test_log_and_lines_have_both(run):
    out, printed = run
    plain = output_here(*RUN, "--out-dir", out / "plain")
    rows, plain_rows = read_log(out), read_log(out / "plain")
    for row, plain_row in zip(rows, plain_rows, strict=True):
        assert row["val_loss"] == plain_row["val_loss"]  # of the raw weights: those of any run
        assert plain_row["ema_val_loss"] == ""
        assert row["ema_val_loss"] != row["val_loss"]
        assert f"averaged weights' val loss {float(row['ema_val_loss']):.4f}" in printed
    assert "(better: " in printed
    assert "averaged" not in plain
    assert load(out)["stats"]["ema_val_err1"] == [float(row["ema_val_err1"]) for row in rows]


def with_averaged_error(content, err1):
    """Return a checkpoint of the same weights whose averaged ones had this error at last."""
    stats = content["stats"]
    return {
        **content,
        "stats": {**stats, "ema_val_err1": [*stats["ema_val_err1"][:-1], err1]},
        "averaged_is_better": err1 == 0.0,
    }


@pytest.mark.parametrize(
    ("err1", "column", "averaged"),
    [
        (0.0, "ema_val_loss", True),
        (100.0, "val_loss", False),
        (math.nan, "ema_val_loss", True),  # of a version that validated the averaged ones alone
    ],
)
def test_checkpoint_is_judged_by_its_better_weights(run, tmp_path, err1, column, averaged):
    out, _ = run
    path = tmp_path / "checkpoint.pth.tar"
    content = with_averaged_error(load(out), err1)
    if math.isnan(err1):
        del content["averaged_is_better"]
    torch.save(content, path)
    printed = output_here(*SMALL_DIGITS, "--evaluate", "--resume", path, "--out-dir", tmp_path)
    evaluation = read_evaluation(tmp_path / "evaluation.json")
    assert evaluation.averaged is averaged
    assert evaluation.loss == pytest.approx(float(read_log(out)[-1][column]))
    assert ("of the averaged weights" in printed) is averaged
    taken = weights_of_file("--weights", str(path)).tensors
    source = "ema" if averaged else "state_dict"
    name = "module.fc.weight" if averaged else "fc.weight"
    assert torch.equal(taken[name], content[source][name])


def test_best_checkpoint_is_that_of_the_better_weights(tmp_path, monkeypatch):
    """The raw weights are best after the first epoch, the averaged ones, better still, after it."""
    errors = iter([(50.0, 60.0), (55.0, 40.0), (70.0, 45.0)])

    def evaluate_each(models, batches, **others):
        for _ in batches:
            pass
        return [Scores(1.0, err1, 0.0, images=32) for err1 in next(errors)]

    monkeypatch.setattr("training.epochs.evaluate_each", evaluate_each)
    printed = output_here(*RUN, "--epochs", 3, "--ema", 0.9, "--out-dir", tmp_path)
    assert load(tmp_path, "model_best.pth.tar")["epoch"] == 2
    for epoch, averaged in (1, False), (2, True), (3, True):
        name = f"checkpoint-epoch{epoch}.pth.tar"
        assert load(tmp_path, name)["averaged_is_better"] is averaged
        assert load_checkpoint(str(tmp_path / name)).averaged_is_better is averaged
    assert "best top-1 error 40.00% (top-5 0.00%) of the averaged weights after epoch 2" in printed
    assert printed.count("(better: raw)") == 1
    assert printed.count("(better: averaged)") == 2


def test_average_is_not_lost_unnoticed(run, tmp_path):
    first = run[0] / "checkpoint-epoch1.pth.tar"
    message = error_here(*RUN, "--out-dir", tmp_path / "out", "--resume", first)
    assert "averaged the weights; pass its --ema" in message
    assert not (tmp_path / "out").exists()
