"""A rewind is a rewind: what follows goes on with it, and nothing of what it left is lost."""

import csv
import shutil

import pytest
import torch

from tests.support.command_line import error_here, output_here, read_log, run_here
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from tests.training.checkpoints.test_resuming import (
    CHECKS_PER_EPOCH,
    assert_same_bits,
    checkpoint_after,
    checkpoint_names,
    names,
    signal_at,
    truncate,
)
from training.checkpoints import lineage
from training.checkpoints.format import load_checkpoint
from training.processes.torchrun import Torchrun
from training.records.histograms import histogram_of

__all__ = ["signal_at"]

RUN = (*SMALL_DIGITS, "--seed", 5, "--lr-schedule", "step", "--warmup-epochs", 0)
OTHER = ("--lr", 0.002)
FIRST_EPOCHS = 4


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The output directory of a run of four epochs."""
    out = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        output_here(*RUN, "--epochs", FIRST_EPOCHS, "--out-dir", out)
    return out


@pytest.fixture
def out(first, tmp_path):
    """A copy of it."""
    return shutil.copytree(first, tmp_path / "out")


@pytest.fixture(scope="module")
def branch(first, tmp_path_factory):
    """What a run that goes another way from the second epoch on comes to after five epochs.

    In a folder of its own, where there is nothing that could mix with it.
    """
    out = tmp_path_factory.mktemp("branch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        start = ("--resume", first / "checkpoint-epoch2.pth.tar", *OTHER)
        output_here(*RUN, *start, "--epochs", 5, "--out-dir", out)
    return out


def back_to(out, epoch, *options):
    return (*RUN, *options, "--out-dir", out, "--resume", out / f"checkpoint-epoch{epoch}.pth.tar")


def auto(out, *options):
    return (*RUN, *options, "--out-dir", out, "--resume", "auto")


def losses(folder):
    return [row["val_loss"] for row in read_log(folder)]


def assert_is_branch(out, branch):
    ours, theirs = checkpoint_after(out, 5), checkpoint_after(branch, 5)
    for part in ("state_dict", "optimizer"):
        assert_same_bits(ours[part], theirs[part])
    assert losses(out) == losses(branch)


def test_auto_goes_on_with_the_newest_branch(out, first, branch):
    """As many epochs are trained as were abandoned, and fewer than those."""
    printed = output_here(*back_to(out, 2, *OTHER, "--epochs", 3))
    assert "back to checkpoint-epoch2.pth.tar: checkpoint-epoch4.pth.tar, " in printed
    assert losses(out) == losses(branch)[:3] != losses(first)[:3]
    printed = output_here(*auto(out, *OTHER, "--epochs", 5))
    assert f"resuming from {out / 'checkpoint-epoch3.pth.tar'}" in printed
    assert_is_branch(out, branch)


def test_what_was_abandoned_is_kept_beside(out, first):
    output_here(*back_to(out, 2, *OTHER, "--epochs", 3, "--save-last-checkpoint"))
    aside = out / "abandoned-1"
    for name in ("checkpoint-epoch3.pth.tar", "checkpoint-epoch4.pth.tar", "log.csv"):
        assert (aside / name).read_bytes() == (first / name).read_bytes()
    assert checkpoint_names(out) == ["checkpoint-epoch3.pth.tar"]
    output_here(*back_to(out, 3, "--lr", 0.1, "--epochs", 4))
    assert [name for name in names(out) if "abandoned" in name] == ["abandoned-1"]
    output_here(*back_to(out, 3, "--lr", 0.1, "--epochs", 4))
    assert checkpoint_names(out / "abandoned-2") == ["checkpoint-epoch4.pth.tar"]


def test_lambdas_and_tensorboard_follow(first, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def write(model, images):
        return {"layer": histogram_of(torch.arange(4.0))}

    monkeypatch.setattr("training.epochs.histograms_of", write)
    out = tmp_path / "out"
    output_here(*RUN, "--epochs", 4, "--tensorboard", "--out-dir", out)
    output_here(*back_to(out, 2, *OTHER, "--epochs", 3, "--tensorboard"))
    with open(out / "lambdas.csv", newline="") as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"1", "2", "3"}
    accumulator = EventAccumulator(str(out / "tensorboard"))
    accumulator.Reload()
    shown = accumulator.Scalars("loss/val")
    assert [event.step for event in shown] == [1, 2, 3]
    assert shown[2].value == pytest.approx(float(losses(out)[2]))


def test_lineage_tells_where_the_run_was_sent_back(out):
    output_here(*back_to(out, 2, *OTHER, "--epochs", 3))
    output_here(*auto(out, *OTHER, "--epochs", 4))
    output_here(*back_to(out, 3, "--epochs", 5))
    checkpoint = load_checkpoint(str(out / "checkpoint-epoch5.pth.tar"))
    assert checkpoint.lineage == ((2, 0), (3, 0))
    assert load_checkpoint(str(out / "checkpoint-epoch1.pth.tar")).lineage == ()


def test_branch_that_stops_in_its_first_epoch_is_gone_on_with(out, branch, signal_at):
    signal_at(2, 15)
    code, _, _ = run_here(*back_to(out, 2, *OTHER, "--epochs", 5))
    assert code == 143
    signal_at(10**6, 15)
    assert checkpoint_names(out)[1:] == [
        "checkpoint-epoch2-batch2.pth.tar",
        "checkpoint-epoch2.pth.tar",
    ]
    output_here(*auto(out, *OTHER, "--epochs", 5))
    assert_is_branch(out, branch)


class Killed(BaseException):
    """Takes the place of a kill: nothing handles it."""


def test_kill_while_going_back(out, first, branch, monkeypatch):
    """After each of its moves there is one line: what auto goes on with is it, and whole."""
    replace = lineage.os.replace
    for moves in range(4):
        folder = shutil.copytree(first, out.parent / str(moves))
        left = iter(range(moves))

        def replace_or_die(source, target, left=left):
            if next(left, None) is None:
                raise Killed
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(lineage.os, "replace", replace_or_die)
            with pytest.raises(Killed):
                run_here(*back_to(folder, 2, *OTHER, "--epochs", 5))
        kept = checkpoint_names(folder)
        assert kept == [f"checkpoint-epoch{1 + number}.pth.tar" for number in range(len(kept))]
        if "checkpoint-epoch3.pth.tar" in kept:
            output_here(*auto(folder, "--epochs", 4))
            assert losses(folder) == losses(first)
        else:
            output_here(*auto(folder, *OTHER, "--epochs", 5))
            assert_is_branch(folder, branch)


def best_after(folder):
    return load_checkpoint(str(folder / "model_best.pth.tar")).epoch


def with_errors(folder, errors):
    """Write other errors into the checkpoints of ``folder``, and make the best one the best."""
    for epoch in range(1, len(errors) + 1):
        path = folder / f"checkpoint-epoch{epoch}.pth.tar"
        content = torch.load(path, weights_only=True)
        content["stats"]["test_err1"] = list(errors[:epoch])
        torch.save(content, path)
    best = errors.index(min(errors)) + 1
    shutil.copy(folder / f"checkpoint-epoch{best}.pth.tar", folder / "model_best.pth.tar")


def test_best_is_one_of_the_line(out):
    """That of the abandoned epochs goes with them; in its place comes the best that is left."""
    with_errors(out, [1.0, 2.0, 3.0, 0.5])
    assert best_after(out) == 4
    output_here(*back_to(out, 2, *OTHER, "--epochs", 3))
    assert best_after(out) == 1
    assert best_after(out / "abandoned-1") == 4


def test_best_whose_epoch_is_not_kept(out):
    """Then it is the one that was gone back to, until a better one comes."""
    with_errors(out, [1.0, 2.0, 3.0, 0.5])
    (out / "checkpoint-epoch1.pth.tar").unlink()
    output_here(*back_to(out, 2, *OTHER, "--epochs", 3))
    assert best_after(out) == 2


def test_back_to_the_best(out, branch):
    """It has no place in the line but its epoch, which it then takes."""
    with_errors(out, [3.0, 1.0, 3.0, 2.0])
    (out / "checkpoint-epoch2.pth.tar").unlink()
    (out / "checkpoint-epoch1.pth.tar").unlink()
    best = ("--resume", out / "model_best.pth.tar", *OTHER, "--epochs")
    error_here(*RUN, *best, 2, "--out-dir", out)
    assert "checkpoint-epoch4.pth.tar" in names(out)
    output_here(*RUN, *best, 3, "--out-dir", out)
    assert checkpoint_names(out) == ["checkpoint-epoch2.pth.tar", "checkpoint-epoch3.pth.tar"]
    output_here(*auto(out, *OTHER, "--epochs", 5))
    theirs = checkpoint_after(branch, 5)
    assert_same_bits(checkpoint_after(out, 5)["state_dict"], theirs["state_dict"])


def test_back_to_a_file_with_the_name_of_a_later_one(out, branch):
    """It goes under its own, as any other file of the run does."""
    (out / "checkpoint-epoch2.pth.tar").rename(out / "checkpoint-epoch9.pth.tar")
    output_here(*back_to(out, 9, "--epochs", 3, *OTHER))
    output_here(*auto(out, "--epochs", 5, *OTHER))
    assert_is_branch(out, branch)
    assert "checkpoint-epoch9.pth.tar" in names(out / "abandoned-1")


def test_auto_sets_aside_what_it_passes_by(out, first):
    truncate(out / "checkpoint-epoch4.pth.tar")
    (out / "model_best.pth.tar").unlink()
    output_here(*auto(out, "--epochs", 4))
    assert checkpoint_names(out / "abandoned-1") == ["checkpoint-epoch4.pth.tar"]
    assert losses(out) == losses(first)


def test_going_on_from_the_newest_moves_nothing(out):
    output_here(*back_to(out, 4, "--epochs", 5))
    assert not list(out.glob("abandoned-*"))


def restart(monkeypatch, restarts):
    """Have the run believe that torchrun has started its only process for the n-th time."""
    place = Torchrun(0, 1, 0, 1, restarts, master_addr="127.0.0.1")
    monkeypatch.setattr("training.settings.read_torchrun", lambda _: place)
    monkeypatch.setattr(
        "training.processes.launcher.work_under_torchrun",
        lambda work, placement, _: work(one_process()),
    )


def one_process():
    from training.processes.ranks import Process

    return Process(0, 1, torch.device("cpu"))


def test_restart_goes_on_with_what_its_own_command_began(out, branch, monkeypatch, signal_at):
    """Under torchrun a command that goes back is started again and again as it is."""
    restart(monkeypatch, 1)  # the first start died before it could go back
    signal_at(CHECKS_PER_EPOCH + 2, 15)
    command = back_to(out, 2, *OTHER, "--epochs", 5)
    code, printed, _ = run_here(*command)
    assert code == 143
    assert "back to checkpoint-epoch2.pth.tar" in printed
    signal_at(10**6, 15)
    restart(monkeypatch, 2)
    printed = output_here(*command)
    assert f"resuming from {out / 'checkpoint-epoch3-batch2.pth.tar'}" in printed
    assert_is_branch(out, branch)
    assert not (out / "abandoned-2").exists()


def test_restart_of_a_run_from_the_best(out, monkeypatch, signal_at):
    """The best is another one by then, and the run goes on all the same."""
    restart(monkeypatch, 0)
    with_errors(out, [30.0, 10.0, 30.0, 20.0])
    command = (
        *RUN,
        *OTHER,
        "--epochs",
        5,
        "--out-dir",
        out,
        "--resume",
        out / "model_best.pth.tar",
    )
    signal_at(2 * CHECKS_PER_EPOCH + 2, 15)
    assert run_here(*command)[0] == 143
    shutil.copy(out / "checkpoint-epoch3.pth.tar", out / "model_best.pth.tar")
    signal_at(10**6, 15)
    restart(monkeypatch, 1)
    printed = output_here(*command)
    assert f"resuming from {out / 'checkpoint-epoch4-batch2.pth.tar'}" in printed


def test_best_of_another_folder_is_told(out, tmp_path):
    """The last line does not promise its weights where they are not; nor does it of a finished run.

    Where the run itself is the better one, or is in the same folder, they are there.
    """
    with_errors(out, [0.0, 100.0, 100.0, 100.0])
    new, start = tmp_path / "new", ("--resume", out / "checkpoint-epoch2.pth.tar")
    printed = output_here(*RUN, "--epochs", 3, *start, "--out-dir", new)
    end = f"after epoch 1 of 3; log, curves and checkpoints in {new}"
    assert printed.endswith(f"{end}, which lacks the weights of epoch 1\n")
    assert "model_best.pth.tar" not in names(new)
    printed = output_here(*auto(new, "--epochs", 3))
    assert printed.endswith(f"{end}, which lacks the weights of epoch 1\n")
    (out / "checkpoint-epoch1.pth.tar").unlink()  # as --keep-checkpoints does: it is the best yet
    assert "lacks" not in output_here(*auto(out, "--epochs", 5))
    with_start = torch.load(out / "checkpoint-epoch2.pth.tar", weights_only=True)
    with_start["stats"]["test_err1"] = [100.0, 100.0]
    torch.save(with_start, out / "checkpoint-epoch2.pth.tar")
    printed = output_here(*RUN, "--epochs", 3, *start, "--out-dir", tmp_path / "other")
    assert printed.endswith(f"of 3; log, curves and checkpoints in {tmp_path / 'other'}\n")


def test_run_from_elsewhere_begins_with_no_best(first, tmp_path, signal_at):
    signal_at(1, 15)
    start = first / "checkpoint-epoch2.pth.tar"
    run_here(*RUN, "--epochs", 3, "--resume", start, "--out-dir", tmp_path)
    assert "model_best.pth.tar" not in names(tmp_path)
