"""evaluation.json: what was written is read, and what is none is refused."""

import json
from dataclasses import replace

import pytest

from training.atomic_write import WriteError
from training.errors import UserError
from training.records.evaluation import Evaluation, read_evaluation, write_evaluation

EVALUATION = Evaluation(
    top1_error=23.456,
    top5_error=6.789,
    loss=0.9876543,
    images=48_238,
    skipped_images=0,
    averaged=False,
    checkpoint="checkpoint-epoch120.pth.tar",
    dataset="imagenet",
    data="images/",
)


def test_what_is_written_is_read_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "evaluation.json"
    for evaluation in (EVALUATION, replace(EVALUATION, averaged=True, skipped_images=3)):
        write_evaluation(evaluation, path)
        assert read_evaluation(path) == evaluation
    content = json.loads(path.read_text())
    assert (content["top1_error"], content["images"]) == (23.456, 48_238)
    assert [each.name for each in tmp_path.iterdir()] == ["evaluation.json"]


def test_the_line_that_is_printed():
    scores = "top-1 error 23.46%, top-5 error 6.79%, loss 0.9877 on 48238 images"
    assert str(EVALUATION) == scores
    skipped = replace(EVALUATION, averaged=True, skipped_images=3)
    assert str(skipped) == f"{scores}, 3 bad ones skipped, of the averaged weights"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"top1_error": 1}', "\xff"])
def test_file_that_is_no_evaluation(tmp_path, text):
    path = tmp_path / "evaluation.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"evaluation\.json: is no evaluation"):
        read_evaluation(path)


def test_folder_that_is_not_there(tmp_path):
    path = tmp_path / "nowhere" / "evaluation.json"
    with pytest.raises(UserError, match="No such file"):
        read_evaluation(path)
    with pytest.raises(WriteError, match="cannot write"):
        write_evaluation(EVALUATION, path)
