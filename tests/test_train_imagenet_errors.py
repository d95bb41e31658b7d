"""What bad input on the command line gets: one line, exit code 2, nothing overwritten."""

import shutil

import pytest
import torch

from tests.support.command_line import (
    checked_error,
    error_here,
    output_here,
    read_log,
    run_command,
    run_here,
)
from tests.support.image_folders import write_image_folder

SMALL = (
    *("--arch", "resnet18", "--pool", "skip", "--cpu", "--epochs", 1, "--batch-size", 4),
    *("--config-name", "digits", "--workers", 0),
)
SMALL_DIGITS = (*SMALL, "--limit-train-batches", 2, "--limit-val-batches", 1)


@pytest.fixture
def tree(tmp_path):
    return write_image_folder(tmp_path / "data")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    output_here(*SMALL_DIGITS, "--out-dir", out, "--seed", 0)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--arch", "resnet5"), ("--arch", "'resnet5'", "'resnet50'")),
        (("--pool", "maxent"), ("--pool", "'maxent'", "'max_ent'")),
        (("--config-name", "imagnet"), ("--config-name", "'imagnet'", "'imagenet'")),
        (("--dataset", "digit"), ("--dataset", "'digit'", "'digits'")),
        (("--epochs", "0"), ("--epochs", "'0'")),
        (("--lr", "nan"), ("--lr", "'nan'")),
        (("--unheard-of",), ("--unheard-of",)),
        (("--pretrained", "--weights", "f"), ("--pretrained and --weights f", "leave one")),
        (("--evaluate",), ("--evaluate", "--resume")),
        (("--exclude", "list.txt"), ("--exclude list.txt", "--evaluate")),
        (("--nproc", "2"), ("--nproc 2", "--multiprocessing-distributed")),
        (("--world-size", "2", "--rank", "2"), ("--rank 2", "--world-size")),
        (("--world-size", "2", "--dist-url", "8080"), ("--dist-url 8080", "tcp://")),
        (("--gpu", "99"), ("--gpu 99",)),
        (("--gpu", "0", "--cpu"), ("--gpu 0", "--cpu")),
        (("--batch-size", "1"), ("--batch-size 1", "2")),
        (("--warmup-epochs", "5", "--epochs", "5"), ("--warmup-epochs 5", "epochs, 5")),
        (("--lr-schedule", "linear"), ("--lr-schedule", "'linear'", "cosine")),
        (
            ("--accum-steps", "2", "--batch-size", "3"),
            ("--batch-size 3", "--accum-steps", "4 in all"),
        ),
        (("--label-smoothing", "1"), ("--label-smoothing", "'1'")),
        (("--ema", "1.5"), ("--ema", "'1.5'")),
        (("--amp", "fp8"), ("--amp", "'fp8'", "'bf16'")),
        (("--sync-bn", "--cpu"), ("--sync-bn", "GPUs")),
        (("--start-epoch", "999"), ("--start-epoch 999",)),
        (("--seed", str(2**63)), ("--seed", f"'{2**63}'", "below")),
        (("--evaluate", "--resume", ""), ("--evaluate", "--resume FILE")),
        (("--lr-milestones", "30,60"), ("--lr-milestones 30,60", "--lr-schedule milestones")),
        (("--lr-gamma", "0.2", "--lr-schedule", "cosine"), ("--lr-gamma 0.2", "milestones")),
        (("--lr-schedule", "milestones"), ("--lr-milestones",)),
        (("--lr-milestones", "60,30"), ("--lr-milestones", "must rise", "'60,30'")),
        (("--bce-threshold", "0.2"), ("--bce-threshold 0.2", "--loss bce")),
        (("--optimizer", "adamv"), ("--optimizer", "'adamv'", "'adam'")),
        (("--optimizer", "adahessian"), ("--optimizer adahessian", "second derivatives")),
        (("--optimizer", "adamw", "--momentum", "0.8"), ("--momentum", "--optimizer adamw")),
        (("--opt-betas", "0.9,0.95"), ("--opt-betas", "--optimizer sgd")),
        (("--opt-betas", "0.9", "--optimizer", "adamw"), ("--opt-betas 0.9", "takes 2 numbers")),
        (
            ("--opt-betas", "0.9,0.98", "--optimizer", "adan"),
            ("--opt-betas 0.9,0.98", "takes 3 numbers"),
        ),
        (("--clip-grad", "0"), ("--clip-grad", "'0'")),
        (("--dist-backend", "mpi"), ("--dist-backend", "'mpi'", "nccl")),
        (("--dist-url", "env://", "--world-size", "2"), ("env://", "MASTER_ADDR")),
        (("--w", "2"), ("ambiguous option: --w",)),
        (("--pdf-filename", ".pdf"), ("--pdf-filename .pdf", "must end in .pdf")),
        (("--pdf-filename", "curves.png"), ("--pdf-filename curves.png", ".pdf")),
        (("--pdf-filename", "lambdas.pdf"), ("--pdf-filename lambdas.pdf", "another picture")),
        (("--pdf-filename", "./lambdas.pdf"), ("./lambdas.pdf", "another picture")),
        (("--pdf-filename", "confusion.pdf"), ("--pdf-filename confusion.pdf", "another picture")),
        (("--num-classes", "3"), ("--num-classes 3", "10 classes")),
    ],
)
def test_options_that_cannot_be(tmp_path, options, words):
    out = tmp_path / "out"
    message = error_here("--out-dir", out, *options)
    for word in words:
        assert word in message
    assert not out.exists()


def test_missing_folders(tmp_path, tree):
    out = tmp_path / "out"
    options = (*SMALL, "--out-dir", out, "--data")
    assert "nowhere" in error_here(*options, tmp_path / "nowhere")
    (tree / "train").rename(tree / "elsewhere")
    assert f"{tree}/train: no such directory" in error_here(*options, tree)
    (tree / "elsewhere").rename(tree / "train")
    (tree / "val").rename(tree / "elsewhere")
    assert f"{tree}/val: no such directory" in error_here(*options, tree)
    assert not out.exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_unreadable_image(tmp_path, tree, split):
    bad = tree / split / "class1" / "1_1.JPEG"
    bad.write_bytes(b"not a picture")
    out = tmp_path / "out"
    assert str(bad) in error_here(*SMALL, "--data", tree, "--out-dir", out)
    assert not list(out.glob("*"))


def test_unreadable_image_in_a_worker_process(tmp_path, tree):
    """As a person meets it: the whole standard error is the one line."""
    bad = tree / "train" / "class1" / "1_1.JPEG"
    bad.write_bytes(b"not a picture")
    result = run_command(*SMALL, "--workers", 2, "--data", tree, "--out-dir", tmp_path / "out")
    assert str(bad) in checked_error(result.returncode, result.stderr)


def test_file_that_is_no_checkpoint(tmp_path, finished_run):
    options = (*SMALL, "--out-dir", tmp_path / "out", "--resume")
    assert "missing" in error_here(*options, tmp_path / "missing")
    broken = tmp_path / "broken.pth.tar"
    whole = (finished_run / "model_best.pth.tar").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        broken.write_bytes(content)
        assert f"{broken}: is no checkpoint" in error_here(*options, broken)
    assert not (tmp_path / "out").exists()


def test_checkpoint_of_another_network_or_class_count(tmp_path, finished_run):
    best = finished_run / "model_best.pth.tar"
    for evaluate in ((), ("--evaluate",)):
        options = (*SMALL, "--out-dir", tmp_path / "out", "--resume", best, *evaluate)
        message = error_here(*options, "--arch", "resnet34")
        assert "--arch resnet18 --pool skip" in message
        assert "--pool skip" in error_here(*options, "--pool", "max")
        assert "has 10 classes, not 12" in error_here(*options, "--num-classes", 12)
    assert not (tmp_path / "out").exists()


def test_out_dir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("here already")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"--out-dir {out}: cannot be written" in error_here(*SMALL_DIGITS, "--out-dir", out)
    assert (tmp_path / "file").read_text() == "here already"


def test_out_dir_of_an_evaluation_that_cannot_be_written(tmp_path, finished_run):
    """The error comes before the images are looked at, so that no hour of them is lost."""
    (tmp_path / "file").write_text("here already")
    best = finished_run / "model_best.pth.tar"
    options = (*SMALL_DIGITS, "--evaluate", "--resume", best, "--out-dir", tmp_path / "file")
    code, out, err = run_here(*options)
    assert f"--out-dir {tmp_path / 'file'}: cannot be written" in checked_error(code, err)
    assert "top-1 error" not in out
    assert (tmp_path / "file").read_text() == "here already"


def test_out_dir_that_holds_a_run_is_not_overwritten(tmp_path, finished_run):
    before = contents(finished_run)
    message = error_here(*SMALL_DIGITS, "--out-dir", finished_run)
    assert str(finished_run) in message
    assert "--resume" in message
    elsewhere = tmp_path / "elsewhere.pth.tar"
    elsewhere.write_bytes(before["checkpoint-epoch1.pth.tar"])
    assert "holds a run" in error_here(
        *SMALL_DIGITS, "--out-dir", finished_run, "--resume", elsewhere, "--epochs", 2
    )
    assert contents(finished_run) == before


def test_resume_of_a_finished_run(finished_run):
    before = contents(finished_run)
    last = finished_run / "checkpoint-epoch1.pth.tar"
    message = error_here(*SMALL_DIGITS, "--out-dir", finished_run, "--resume", last)
    assert "has had 1 epochs" in message
    assert "--epochs" in message
    assert contents(finished_run) == before


def test_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, finished_run):
    out = tmp_path / "out"
    shutil.copytree(finished_run, out)
    options = (*SMALL_DIGITS, "--out-dir", out, "--seed", 0)
    before = contents(out)
    last = out / "checkpoint-epoch1.pth.tar"
    message = error_here(*options, "--resume", last, "--epochs", 3, "--lr", "1e38")
    assert "the loss is not finite" in message
    assert "--lr" in message
    assert contents(out) == before
    torch.load(last, weights_only=True)
    assert len(read_log(out)) == 1


@pytest.mark.parametrize("size", [1, 16])
def test_images_that_are_too_small_for_the_network(tmp_path, size):
    options = (*SMALL_DIGITS, "--arch", "resnet18", "--pool", "max_ent", "--out-dir", tmp_path)
    message = error_here(*options, "--image-size", size)
    assert f"--image-size {size}: too small for resnet18 with max_ent" in message
    assert "32 is large enough" in message
    output_here(*options, "--image-size", 32)
