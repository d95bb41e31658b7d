"""Going on: the newest whole checkpoint, what is passed by, and a run's own bits again."""

import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import training.epochs
from tests.support.command_line import error_here, output_here, read_log, run_here
from tests.support.gloo_group import gloo_group
from tests.support.image_folders import write_image_folder
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from tests.support.warm_python import run_warm
from training import write_shards
from training.checkpoints.partial_epoch import PartialEpoch
from training.checkpoints.resuming import check_samples
from training.errors import UserError
from training.loading.global_batches import GlobalBatches
from training.processes.interruption import Interruption
from training.processes.ranks import Process

EPOCHS = 3
# Without a warm-up each epoch has a learning rate of its own.
RUN = (*SMALL_DIGITS, "--seed", 5, "--epochs", EPOCHS, "--ema", 0.9, "--warmup-epochs", 0)
CHECKS_PER_EPOCH = 5  # a batch each of training and validation
MACHINE_COLUMNS = {"seconds", "images_per_second", "data_wait_percent", "gpu_memory_gib"}


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The output directory of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        output_here(*RUN, "--out-dir", out)
    return out


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def checkpoint_names(folder):
    return [name for name in names(folder) if name.startswith("checkpoint")]


def checkpoint_after(out, epochs):
    return torch.load(out / f"checkpoint-epoch{epochs}.pth.tar", weights_only=True)


def assert_same_bits(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_bits(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            assert_same_bits(each, its)
    else:
        assert one == other


def assert_same_run(out, whole, epochs=EPOCHS):
    """Weights, average, momentum and statistics are the same bits, and the logs say the same."""
    ours, theirs = checkpoint_after(out, epochs), checkpoint_after(whole, epochs)
    for part in ("state_dict", "ema", "optimizer"):
        assert_same_bits(ours[part], theirs[part])
    logs = [
        [{key: row[key] for key in row.keys() - MACHINE_COLUMNS} for row in read_log(folder)]
        for folder in (out, whole)
    ]
    assert len(logs[0]) == epochs
    assert logs[0] == logs[1]


@pytest.fixture
def signal_at(monkeypatch):
    """Return a function that has a real signal sent at the ``number``-th check of a run."""
    check = Interruption.check

    def send(number, signum):
        calls = iter(range(1, 10**6))

        def checked(interruption):
            if next(calls) == number:
                os.kill(os.getpid(), signum)
            return check(interruption)

        monkeypatch.setattr(Interruption, "check", checked)

    return send


@pytest.mark.parametrize(
    ("number", "signum", "left"),
    [
        (1, signal.SIGTERM, "checkpoint-epoch0-batch1.pth.tar"),
        (3, signal.SIGINT, "checkpoint-epoch0-batch3.pth.tar"),
        (CHECKS_PER_EPOCH + 2, signal.SIGINT, "checkpoint-epoch1-batch2.pth.tar"),
        # In the validation: after all batches of the training.
        (CHECKS_PER_EPOCH + 4, signal.SIGTERM, "checkpoint-epoch1-batch3.pth.tar"),
        (2 * CHECKS_PER_EPOCH + 5, signal.SIGTERM, "checkpoint-epoch2-batch3.pth.tar"),
    ],
)
def test_stopped_run_resumes_to_the_same_bits(tmp_path, whole, signal_at, number, signum, left):
    handler = signal.getsignal(signum)
    signal_at(number, signum)
    code, printed, _ = run_here(*RUN, "--out-dir", tmp_path)
    assert code == 128 + signum
    assert f"stopped by {signum.name}" in printed
    assert signal.getsignal(signum) is handler
    assert left in checkpoint_names(tmp_path)
    printed = output_here(*RUN, "--out-dir", tmp_path, "--resume", "auto")
    assert f"resuming from {tmp_path / left}" in printed
    assert_same_run(tmp_path, whole)
    assert checkpoint_names(tmp_path) == checkpoint_names(whole)


def test_stopped_again_and_again(tmp_path, whole, signal_at):
    """At every third check: no epoch is trained and validated in one go."""
    codes = []
    while 0 not in codes and len(codes) < 20:
        signal_at(3, signal.SIGTERM)
        codes.append(run_here(*RUN, "--out-dir", tmp_path, "--resume", "auto")[0])
    assert codes == [143] * 5 + [0]
    assert_same_run(tmp_path, whole)


def test_stop_within_an_epoch_keeps_the_published_layout(tmp_path, signal_at):
    signal_at(CHECKS_PER_EPOCH + 1, signal.SIGTERM)
    run_here(*RUN, "--out-dir", tmp_path)
    left = tmp_path / "checkpoint-epoch1-batch1.pth.tar"
    content = torch.load(left, weights_only=True)
    assert content["epoch"] == len(content["stats"]["test_err1"]) == 1
    printed = output_here(*SMALL_DIGITS, "--evaluate", "--resume", left, "--out-dir", tmp_path)
    assert "of the averaged weights" in printed


def test_auto_evaluates_what_was_left_within_an_epoch_in_batches_of_another_size(
    tmp_path, signal_at
):
    signal_at(CHECKS_PER_EPOCH + 1, signal.SIGTERM)
    run_here(*RUN, "--out-dir", tmp_path)
    options = (*RUN, "--batch-size", 8, "--out-dir", tmp_path)
    printed = output_here(*options, "--evaluate", "--resume", "auto")
    assert f"resuming from {tmp_path / 'checkpoint-epoch1-batch1.pth.tar'}" in printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch-size", 8), "batch_size was 16, is 8"),
        (("--seed", 6), "seed was 5, is 6"),
    ],
)
def test_epoch_does_not_go_on_otherwise_than_it_began(tmp_path, signal_at, options, words):
    signal_at(CHECKS_PER_EPOCH + 1, signal.SIGTERM)
    run_here(*RUN, "--out-dir", tmp_path)
    left = tmp_path / "checkpoint-epoch1-batch1.pth.tar"
    run = (*RUN, *options, "--out-dir", tmp_path)
    assert words in error_here(*run, "--resume", left)
    code, printed, err = run_here(*run, "--resume", "auto")
    assert code == 0, err
    assert words in err
    assert f"resuming from {tmp_path / 'checkpoint-epoch1.pth.tar'}" in printed


def within_an_epoch_of_folders(tmp_path, signal_at, check=6):
    """Leave a run on twelve images within its second epoch; return its options and the file.

    It has three batches, and two of validation, an epoch, and is left at the ``check``-th.
    """
    data, out = write_image_folder(tmp_path / "data", train=6), tmp_path / "out"
    run = (
        *("--data", data, "--config-name", "digits", "--arch", "resnet18", "--pool", "skip"),
        *("--cpu", "--workers", 0, "--batch-size", 4, "--epochs", 2, "--out-dir", out),
    )
    signal_at(check, signal.SIGTERM)
    assert run_here(*run)[0] == 143
    return run, out / f"checkpoint-epoch1-batch{min(check - 5, 3)}.pth.tar"


@pytest.mark.parametrize("images", [11, 14])
def test_epoch_does_not_go_on_with_another_number_of_images(tmp_path, signal_at, images):
    """Of which some would be left out, or taken twice; between epochs there may be others."""
    run, left = within_an_epoch_of_folders(tmp_path, signal_at)
    folder = tmp_path / "data" / "train" / "class0"
    (folder / "0_0.JPEG").rename(tmp_path / "0_0.JPEG")
    for number in range(images - 11):
        shutil.copy(tmp_path / "0_0.JPEG", folder / f"more{number}.JPEG")
    before = names(left.parent)
    for resume in (left, "auto"):
        message = error_here(*run, "--resume", resume)
        assert f"--resume {left}: was left within an epoch on 12 training images, and" in message
        assert f"now there are {images}" in message
    assert names(left.parent) == before
    # The first way out that the message names, and the second.
    output_here(*run, "--resume", left.with_name("checkpoint-epoch1.pth.tar"))
    assert left.name in names(left.parent / "abandoned-1")


def test_epoch_of_an_older_checkpoint_goes_on(tmp_path, signal_at):
    """It does not say how many images there were, nor which ones it has had."""
    run, left = within_an_epoch_of_folders(tmp_path, signal_at)
    content = torch.load(left, weights_only=True)
    assert content["partial_epoch"]["order"].pop("images") == 12
    del content["partial_epoch"]["order"]["samples"]
    torch.save(content, left)
    (tmp_path / "data" / "train" / "class0" / "0_0.JPEG").unlink()
    assert "epoch 2/2: lr" in output_here(*run, "--resume", "auto")


@pytest.mark.parametrize("check", [6, 9])
def test_epoch_of_folders_goes_on_with_fewer_batches(tmp_path, signal_at, check):
    """Whose order does not depend on them; at the later one it is left in the validation."""
    run, left = within_an_epoch_of_folders(tmp_path, signal_at, check)
    printed = output_here(*run, "--resume", "auto", "--limit-train-batches", 2)
    assert f"resuming from {left}" in printed
    assert "epoch 2/2: lr" in printed


def within_an_epoch_of_shards(tmp_path, signal_at, workers):
    """Leave a run on 18 images in shards after two of five batches; return options and the file."""
    images, shards, out = (tmp_path / name for name in ("images", "shards", "out"))
    write_image_folder(images, train=9, val=2)
    assert write_shards.main([str(images), str(shards), "--samples", "6"]) == 0
    run = (
        *("--data", shards / "train-{0000..0002}.tar", "--val-data", shards / "val-0000.tar"),
        *("--config-name", "digits", "--arch", "resnet18", "--pool", "skip", "--cpu"),
        *("--workers", workers, "--batch-size", 4, "--epochs", 1, "--out-dir", out),
    )
    signal_at(2, signal.SIGTERM)
    assert run_here(*run)[0] == 143
    return run, out / "checkpoint-epoch0-batch2.pth.tar"


def assert_held_other_images(left, *run):
    """Whether the checkpoint is named or is the newest; no file is touched."""
    before = names(left.parent)
    for resume in (left, "auto"):
        message = error_here(*run, "--resume", resume)
        assert f"--resume {left}: was left within an epoch after batch 2, and until" in message
        assert "restore the shards, --accum-steps and --limit-train-batches" in message
    assert names(left.parent) == before


def test_epoch_does_not_go_on_in_shards_that_were_cut_anew(tmp_path, signal_at):
    run, left = within_an_epoch_of_shards(tmp_path, signal_at, workers=0)
    shards, images = tmp_path / "shards", str(tmp_path / "images")
    shards.rename(tmp_path / "before")
    assert write_shards.main([images, str(shards), "--samples", "7"]) == 0
    assert_held_other_images(left, *run)
    # An older checkpoint does not say which images they were.
    shutil.copytree(left.parent, tmp_path / "older")
    content = torch.load(left, weights_only=True)
    del content["partial_epoch"]["order"]["samples"]
    torch.save(content, tmp_path / "older" / left.name)
    older = (*run[:-1], tmp_path / "older", "--resume", "auto")
    assert "epoch 1/1: lr" in output_here(*older)
    # The ways out that the message names.
    shutil.rmtree(shards)
    (tmp_path / "before").rename(shards)
    assert "epoch 1/1: lr" in output_here(*run, "--resume", left)


def test_epoch_of_shards_does_not_go_on_with_other_batches(tmp_path, signal_at):
    """Two workers take turns, and each reads straight on through as many images as its batches."""
    run, left = within_an_epoch_of_shards(tmp_path, signal_at, workers=2)
    assert_held_other_images(left, *run, "--accum-steps", 2)
    assert_held_other_images(left, *run, "--limit-train-batches", 3)


def judge_samples(rank, folder):
    """Of a machine with another number of workers, so that only its process sees other images."""
    process = Process(rank, 2, torch.device("cpu"))
    options = {"shuffle_seed": 1, "shard_sizes": [12, 12]}
    before, now = (
        GlobalBatches(24, 4, process, workers=workers, **options) for workers in (2, 2 + rank)
    )
    order = {"samples": before.checksum(epoch=1, batches=3)}
    partial = PartialEpoch(3, torch.zeros(4), 1.0, random_states=[], order=order)
    checkpoint = SimpleNamespace(path="f", epoch=1, partial_epoch=partial)
    with gloo_group(folder, rank, world_size=2):
        check_samples(checkpoint, before)
        with pytest.raises(UserError, match=r"process 1 \(on .*: --resume f: was left within"):
            check_samples(checkpoint, now)


def test_every_process_refuses_what_one_of_them_does(tmp_path):
    run_warm(judge_samples, (tmp_path,), 2)


@pytest.mark.parametrize(("tells", "seconds"), [(True, 480), (False, 5000)])
def test_validation_before_a_stop_is_no_time_of_training(tmp_path, signal_at, tells, seconds):
    """An older checkpoint does not tell how long each of them took."""
    signal_at(CHECKS_PER_EPOCH - 1, signal.SIGTERM)
    run_here(*RUN, "--epochs", 1, "--out-dir", tmp_path)
    left = tmp_path / "checkpoint-epoch0-batch3.pth.tar"
    content = torch.load(left, weights_only=True)
    partial = content["partial_epoch"]
    assert 0 < partial["train_seconds"] < partial["seconds"]
    partial |= {"train_seconds": 480.0, "seconds": 5000.0}
    if not tells:
        del partial["train_seconds"]
    torch.save(content, left)
    output_here(*RUN, "--epochs", 1, "--out-dir", tmp_path, "--resume", "auto")
    (row,) = read_log(tmp_path)
    images = 3 * 16
    assert images / (seconds + 100) < float(row["images_per_second"]) <= images / seconds
    assert float(row["seconds"]) >= 5000
    assert row["data_wait_percent"] == ""  # of no batch


def run_with(whole, tmp_path):
    """Return a copy of the output directory of the whole run."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    return out


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def alter(path):
    """Change one bit of the last convolution's weight, where it lies in the file."""
    weight = torch.load(path, weights_only=True)["state_dict"]["conv.weight"]
    content = bytearray(path.read_bytes())
    content[content.index(weight.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, alter, empty])
def test_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, whole, damage):
    out = run_with(whole, tmp_path)
    newest = out / f"checkpoint-epoch{EPOCHS}.pth.tar"
    damage(newest)
    assert str(newest) in error_here(*RUN, "--out-dir", out, "--resume", newest)
    code, printed, err = run_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert code == 0, err
    assert err.startswith("skipped: ")
    assert str(newest) in err
    assert f"resuming from {out / f'checkpoint-epoch{EPOCHS - 1}.pth.tar'}" in printed
    assert_same_run(out, whole)


def test_no_checkpoint_that_can_be_used_is_an_error(tmp_path, whole):
    out = run_with(whole, tmp_path)
    (best,) = out.glob("model_best*")
    (out / f"checkpoint-epoch{EPOCHS}.pth.tar").unlink()
    os.link(best, out / f"checkpoint-epoch{EPOCHS}.pth.tar")
    for path in out.glob("checkpoint-*"):
        truncate(path)
    code, _, err = run_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert code == 2
    # (The best is another name of one.)
    assert f"none of the {EPOCHS} checkpoints in {out} can be used" in err
    assert names(out) == names(whole)


def test_auto_goes_on_from_the_best_where_all_others_are_damaged(tmp_path, whole):
    out = run_with(whole, tmp_path)
    best = out / "model_best.pth.tar"
    best.unlink()
    shutil.copy(whole / "checkpoint-epoch1.pth.tar", best)
    for path in out.glob("checkpoint-*"):
        truncate(path)
    code, printed, err = run_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert code == 0, err
    assert err.count("skipped: ") == EPOCHS
    assert f"resuming from {best}" in printed
    assert_same_run(out, whole)


def test_auto_starts_where_there_is_nothing(tmp_path, whole):
    """As in an empty folder, so in one whose run was killed before its first checkpoint."""
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(whole / "log.csv", out)
    output_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert_same_run(out, whole)


def with_only_the_best(whole, tmp_path, epoch):
    """Return a copy of the whole run with no checkpoint but the best, which is of ``epoch``."""
    out = run_with(whole, tmp_path)
    (out / "model_best.pth.tar").unlink()
    (out / f"checkpoint-epoch{epoch}.pth.tar").rename(out / "model_best.pth.tar")
    for path in out.glob("checkpoint-*"):
        path.unlink()
    return out


def test_auto_goes_on_from_the_best_where_no_other_is_left(tmp_path, whole):
    out = with_only_the_best(whole, tmp_path, epoch=2)
    printed = output_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert f"resuming from {out / 'model_best.pth.tar'}" in printed
    assert "epoch 1/3" not in printed
    assert checkpoint_names(out) == ["checkpoint-epoch2.pth.tar", "checkpoint-epoch3.pth.tar"]
    assert_same_run(out, whole)


def test_auto_leaves_a_finished_run_alone_whose_best_is_left(tmp_path, whole):
    out = with_only_the_best(whole, tmp_path, epoch=EPOCHS)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    printed = output_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert "finished already: best top-1 error" in printed
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_damaged_best_alone_is_not_written_over(tmp_path, whole):
    out = with_only_the_best(whole, tmp_path, epoch=2)
    truncate(out / "model_best.pth.tar")
    before = names(out)
    code, _, err = run_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert code == 2
    assert f"skipped: --resume {out / 'model_best.pth.tar'}: is no checkpoint" in err
    assert f"none of the 1 checkpoints in {out} can be used; move them away" in err
    assert names(out) == before


def test_file_that_holds_a_tensor_is_passed_by(tmp_path, whole):
    out = run_with(whole, tmp_path)
    newest = out / f"checkpoint-epoch{EPOCHS}.pth.tar"
    newest.unlink()  # another name of the best one, it may be
    torch.save(torch.zeros(3), newest)
    message = error_here(*RUN, "--out-dir", out, "--resume", newest)
    assert f"{newest}: is no checkpoint of a training run (it must be a dict, not Tens" in message
    code, _, err = run_here(*RUN, "--out-dir", out, "--resume", "auto")
    assert code == 0, err
    assert err.startswith(f"skipped: --resume {newest}: ")
    assert_same_run(out, whole)


def test_auto_leaves_a_finished_run_alone(tmp_path, whole):
    before = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    printed = output_here(*RUN, "--out-dir", whole, "--resume", "auto")
    assert "finished already: best top-1 error" in printed
    assert {path.name: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_auto_evaluates_the_newest(tmp_path, whole):
    evaluate = (*SMALL_DIGITS, "--evaluate", "--resume", "auto")
    printed = output_here(*evaluate, "--out-dir", whole)
    assert f"resuming from {whole / f'checkpoint-epoch{EPOCHS}.pth.tar'}" in printed
    assert "top-1 error" in printed
    assert "no checkpoint in --out-dir" in error_here(*evaluate, "--out-dir", tmp_path)


def full_disk(path):
    """Make the write of ``path`` fail as on a full disk."""
    path.with_name(f".{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk_does_not_end_the_run(tmp_path, whole):
    """The second epoch's checkpoint cannot be written; the third's can."""
    full_disk(tmp_path / "checkpoint-epoch2.pth.tar")
    code, _, err = run_here(*RUN, "--out-dir", tmp_path)
    assert code == 0
    assert err.count("\n") == 1
    assert f"cannot write {tmp_path / 'checkpoint-epoch2.pth.tar'} (No space left" in err
    assert "training goes on" in err
    kept = ["checkpoint-epoch1.pth.tar", "checkpoint-epoch3.pth.tar"]
    assert checkpoint_names(tmp_path) == kept
    assert_same_run(tmp_path, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_disk_that_stays_full_is_an_error_at_the_end(tmp_path, whole):
    for epoch in (2, 3):
        full_disk(tmp_path / f"checkpoint-epoch{epoch}.pth.tar")
    code, printed, err = run_here(*RUN, "--out-dir", tmp_path)
    assert code == 2
    assert err.count("training goes on") == 2
    assert "the last epochs are in no checkpoint" in err.splitlines()[-1]
    assert "epoch 3/3: lr" in printed
    assert len(read_log(tmp_path)) == 3
    # With space again, the run is the same as ever.
    output_here(*RUN, "--out-dir", tmp_path, "--resume", "auto")
    assert_same_run(tmp_path, whole)


def test_lost_output_directory_does_not_end_the_run(tmp_path, monkeypatch, signal_at):
    """It goes away in the second epoch and does not come back."""
    out = tmp_path / "out"
    check, calls = Interruption.check, iter(range(1, 10**6))

    def checked(interruption):
        if next(calls) == CHECKS_PER_EPOCH + 1:
            while out.exists():  # a picture of the first epoch may come in between
                shutil.rmtree(out, ignore_errors=True)
        return check(interruption)

    monkeypatch.setattr(Interruption, "check", checked)
    code, printed, err = run_here(*RUN, "--out-dir", out)
    assert code == 2
    assert "epoch 3/3: lr" in printed
    for name in ("log.csv", "checkpoint-epoch|model_best", "train_epochs"):
        lines = [line for line in err.splitlines()[:-1] if re.search(name, line)]
        assert all(line.endswith("training goes on") for line in lines)
        assert len(lines) == 2 or name == "train_epochs"
    assert "the last epochs are in no checkpoint" in err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize("options", [("--keep-checkpoints", 2), ("--save-last-checkpoint",)])
def test_newest_checkpoints_are_kept(tmp_path, options):
    output_here(*RUN, *options, "--out-dir", tmp_path)
    kept = {"--keep-checkpoints": [2, 3], "--save-last-checkpoint": [3]}[options[0]]
    assert checkpoint_names(tmp_path) == [f"checkpoint-epoch{epoch}.pth.tar" for epoch in kept]
    assert (tmp_path / "model_best.pth.tar").exists()
    assert "leave one of them out" in error_here(
        *RUN, "--out-dir", tmp_path, "--save-last-checkpoint", "--keep-checkpoints", 2
    )


def test_each_checkpoint_in_time_resumes_to_the_same_bits(tmp_path, whole, monkeypatch):
    """One is due after each step, and after each batch of the validation."""
    minutes = ("--checkpoint-minutes", 1e-9)
    output_here(*RUN, *minutes, "--out-dir", tmp_path / "tidy")
    assert_same_run(tmp_path / "tidy", whole)
    assert checkpoint_names(tmp_path / "tidy") == checkpoint_names(whole)
    with monkeypatch.context() as patch:
        patch.setattr("training.checkpoints.format.remove_outdated", lambda *_: None)
        output_here(*RUN, *minutes, "--out-dir", tmp_path / "all")
    within = [name for name in checkpoint_names(tmp_path / "all") if "batch" in name]
    assert within == [
        f"checkpoint-epoch{epoch}-batch{batch}.pth.tar"
        for epoch in (0, 1, 2)
        for batch in (1, 2, 3)
    ]
    for name in within[1::3]:
        out = tmp_path / name
        out.mkdir()
        shutil.copy(tmp_path / "all" / name, out)
        output_here(*RUN, "--resume", "auto", "--out-dir", out)
        ours, theirs = checkpoint_after(out, EPOCHS), checkpoint_after(whole, EPOCHS)
        for part in ("state_dict", "ema", "optimizer"):
            assert_same_bits(ours[part], theirs[part])


def test_no_checkpoint_before_it_is_due(tmp_path, monkeypatch):
    """The clock starts anew with each checkpoint, those after an epoch among them."""
    minute, now = 60.0, [0.0]
    monkeypatch.setattr("training.saving.time.monotonic", lambda: now[0])
    written = []

    def after(seconds, saving, due):
        now[0] += seconds
        assert saving.is_due() is due

    begin = training.epochs.begin_saving

    def begun(**given):
        saving = begin(**given)
        after(1.9 * minute, saving, False)
        after(0.1 * minute, saving, True)
        after(1.9 * minute, saving, False)
        written.append(saving)
        return saving

    monkeypatch.setattr("training.epochs.begin_saving", begun)
    run = (*SMALL_DIGITS, "--epochs", 1, "--out-dir", tmp_path, "--checkpoint-minutes", 2)
    output_here(*run)
    assert checkpoint_names(tmp_path) == ["checkpoint-epoch1.pth.tar"]
    after(1.9 * minute, written[0], False)
    after(0.2 * minute, written[0], True)
