"""Files made by hand: each that cannot be a checkpoint is refused in one line that says why."""

import pytest
import torch

from tests.support.command_line import error_here, output_here, run_here
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network

RUN = (*SMALL_DIGITS, "--seed", 5)


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The content of a checkpoint within the second epoch."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        patch.setattr("training.checkpoints.format.remove_outdated", lambda *_: None)
        output_here(
            *(*RUN, "--epochs", 2, "--ema", 0.9, "--checkpoint-minutes", 1e-9, "--out-dir", out)
        )
    return out / "checkpoint-epoch1-batch2.pth.tar"


def of(*keys, value):
    """Return what sets the part that ``keys`` lead to."""

    def change(content):
        *path, last = keys
        for key in path:
            content = content[key]
        content[last] = value

    return change


def without(*keys):
    def change(content):
        *path, last = keys
        for key in path:
            content = content[key]
        del content[last]

    return change


PARTIAL = "partial_epoch"
STATES = (PARTIAL, "random_states")
EMPTY_STATS = {
    f"{split}_{what}": [] for split in ("train", "test") for what in ("loss", "err1", "err5")
}
MALFORMED = {
    "partial is a text": (of(PARTIAL, value="text"), "partial_epoch must be a dict"),
    "partial is empty": (of(PARTIAL, value={}), "partial_epoch must hold batches"),
    "partial lacks a part": (without(PARTIAL, "order"), "partial_epoch must hold"),
    "partial has another part": (of(PARTIAL, "more", value=1), "partial_epoch must hold"),
    "batches is a text": (of(PARTIAL, "batches", value="2"), "'batches'"),
    "batches is negative": (of(PARTIAL, "batches", value=-1), "'batches'"),
    "seconds is a text": (of(PARTIAL, "seconds", value="long"), "'seconds'"),
    "train_seconds is a text": (of(PARTIAL, "train_seconds", value="long"), "'train_seconds'"),
    "sums is a list": (of(PARTIAL, "score_sums", value=[0.0] * 5), "'score_sums'"),
    "sums of another shape": (of(PARTIAL, "score_sums", value=torch.zeros(2)), "'score_sums'"),
    "order is a list": (of(PARTIAL, "order", value=[1]), "'order'"),
    "order is of tensors": (of(PARTIAL, "order", "batch_size", value=torch.zeros(2)), "batch_size"),
    "no random states": (of(*STATES, value=[]), "'random_states'"),
    "two random states": (lambda content: content[PARTIAL]["random_states"].append({}), "state of"),
    "random state is a text": (of(*STATES, 0, value="x"), "'random_states'"),
    "random state lacks Python's": (without(*STATES, 0, "python"), "python"),
    "PyTorch's state is short": (of(*STATES, 0, "torch", value=torch.zeros(3)), "'torch'"),
    "Python's state is a number": (of(*STATES, 0, "python", value=3), "cannot be gone on"),
    "NumPy's state is empty": (of(*STATES, 0, "numpy", value=()), "cannot be gone on"),
    "momentum is a text": (of("optimizer", "param_groups", 0, "momentum", value="0.9"), "momentum"),
    "momentum_buffer is a text": (
        of("optimizer", "state", 0, "momentum_buffer", value="text"),
        "momentum_buffer",
    ),
    "state of a parameter is a list": (of("optimizer", "state", 0, value=[1]), "state"),
    "state is a list": (of("optimizer", "state", value=[]), "optimizer"),
    "groups is a text": (of("optimizer", "param_groups", value="all"), "param_groups"),
    "no groups": (of("optimizer", "param_groups", value=[]), "param_groups"),
    "optimizer is None": (of("optimizer", value=None), "optimizer must be a dict"),
    "statistics are of different lengths": (
        of("stats", "test_err1", value=[1.0, 2.0]),
        "one length",
    ),
    "statistics are texts": (of("stats", "test_err1", value=["5"]), "test_err1"),
    "statistics are no lists": (of("stats", "test_err1", value=5.0), "test_err1"),
    "classes is a text": (of("classes", value="0123456789"), "classes"),
    "classes are numbers": (of("classes", value=list(range(10))), "classes"),
    "classes are none": (of("classes", value=[]), "classes"),
    "classes twice": (of("classes", value=["0"] * 10), "classes"),
    "lineage is a number": (of("lineage", value=3), "lineage"),
    "lineage of texts": (of("lineage", value=["ab"]), "lineage"),
    "steps is a text": (of("steps", value="3"), "steps"),
    "average is a list": (of("ema", value=[1]), "ema"),
    "average of texts": (of("ema", "module.fc.bias", value="text"), "ema"),
    "arch is a list": (of("arch", value=["resnet18"]), "arch"),
    "pool is a list": (of("args", "pool", value=["skip"]), "pool"),
}


def changed(checkpoint, change, path):
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_checkpoint_is_one_line(checkpoint, tmp_path, case):
    change, words = MALFORMED[case]
    path = changed(checkpoint, change, tmp_path / "file.pth.tar")
    out = tmp_path / "out"
    options = ("--epochs", 2, "--ema", 0.9, "--out-dir", out, "--resume", path)
    message = error_here(*RUN, *options)
    assert f"--resume {path}: " in message
    assert words in message
    assert not out.exists()


def test_empty_statistics(checkpoint, tmp_path):
    """There are none within the first epoch of a run, and only there."""

    def between_epochs(content):
        del content[PARTIAL]
        content["stats"] = EMPTY_STATS

    path = changed(checkpoint, between_epochs, tmp_path / "checkpoint-epoch1.pth.tar")
    for options in (("--epochs", 2), ("--epochs", 1)):
        message = error_here(*RUN, *options, "--out-dir", tmp_path / "out", "--resume", path)
        assert "stats must be of 1 to 1 epochs, not of 0" in message
    code, _, err = run_here(*RUN, "--resume", "auto", "--epochs", 1, "--out-dir", tmp_path)
    assert code == 2
    assert "Traceback" not in err


def test_start_epoch_has_no_statistics_at_first(tmp_path):
    """A run that begins late and stops at once goes on; where it is over, it says so."""
    late = (*RUN, "--start-epoch", 1, "--out-dir", tmp_path)
    output_here(*late, "--epochs", 2, "--checkpoint-minutes", 1e-9)
    content = torch.load(tmp_path / "checkpoint-epoch2.pth.tar", weights_only=True)
    assert len(content["stats"]["test_err1"]) == 1
    assert "finished already" in output_here(*late, "--epochs", 2, "--resume", "auto")
