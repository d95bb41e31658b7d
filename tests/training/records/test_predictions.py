"""The tables of what images are taken for, against counts that are written out."""

import csv

import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage

from training.processes.ranks import Process
from training.records import confusion, predictions
from training.records.confusion import draw_confusion, write_confusion
from training.records.predictions import PredictionLog, Predictions, write_predictions

ALONE = Process(rank=0, world_size=1, device=torch.device("cpu"))


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def predictions_of(pairs, names):
    targets, predicted = np.array(pairs).T
    return Predictions(targets, predicted, targets == predicted, names)


# Five images of a, four of b (one taken for c, two for a), none of c.
PAIRS = [(0, 0)] * 5 + [(1, 1)] + [(1, 2)] + [(1, 0)] * 2
NAMES = ("a", 'b, "or" ß', "c", "unseen")


def test_log_has_each_batchs_predictions():
    log = PredictionLog()
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [9, 8, 7, 6, 5, 4, 3.0]])
    log.add(logits, torch.tensor([1, 4]))  # the sixth largest, and the fifth
    log.add(logits[1:], torch.tensor([0]))
    found = log.of_all(ALONE, ("a", "b"), outputs=7)
    assert found.targets.tolist() == [1, 4, 0]
    assert found.predicted.tolist() == [6, 0, 0]
    assert found.among_five.tolist() == [False, True, True]
    assert found.names == ("a", "b", *(f"class {number}" for number in range(2, 7)))


def test_log_without_images():
    found = PredictionLog().of_all(ALONE, ("a", "b"), outputs=2)
    assert found.targets.shape == found.predicted.shape == (0,)
    assert found.outputs == found.confused == []


def test_tables(tmp_path):
    found = predictions_of(PAIRS, NAMES)
    write_predictions(found, tmp_path)
    assert read(tmp_path / "evaluation_classes.csv") == [
        ["class", "images", "top1_error", "top5_error", "predicted", "most_confused_with",
         "confused_images"],
        ["a", "5", "0.0", "0.0", "7", "", "0"],
        [NAMES[1], "4", "75.0", "75.0", "1", "a", "2"],
        ["c", "0", "", "", "1", "", "0"],
    ]  # fmt: skip
    assert read(tmp_path / "confusion.csv") == [
        ["class", "a", NAMES[1], "c"],
        ["a", "5", "0", "0"],
        [NAMES[1], "2", "1", "1"],
        ["c", "0", "0", "0"],
    ]
    assert read(tmp_path / "confused_pairs.csv") == [
        ["class", "predicted", "images", "percent"],
        [NAMES[1], "a", "2", "50.0"],
        [NAMES[1], "c", "1", "25.0"],
    ]


def test_classs_name_may_be_no_text(tmp_path):
    """As a folder's may be: it is written as the bytes that it is."""
    write_predictions(predictions_of([(0, 0)], ("caf\udce9",)), tmp_path)
    assert b"\ncaf\xe9,1," in (tmp_path / "evaluation_classes.csv").read_bytes()


def test_no_matrix_of_too_many_classes(tmp_path, monkeypatch):
    """Nor one of an earlier evaluation."""
    found = predictions_of(PAIRS, NAMES)
    write_predictions(found, tmp_path)
    write_confusion(found, tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"evaluation_classes.csv", "confused_pairs.csv", "confusion.csv",
                     "confusion.pdf", "confusion.png"}  # fmt: skip
    for module in (predictions, confusion):
        monkeypatch.setattr(module, "MOST_CLASSES", 2)
    write_predictions(found, tmp_path)
    write_confusion(found, tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"evaluation_classes.csv", "confused_pairs.csv"}


def drawn(figure):
    (image,) = [each for each in figure.axes[0].get_children() if isinstance(each, AxesImage)]
    return image.get_array()


def test_picture_of_few_classes():
    figure = draw_confusion(predictions_of(PAIRS, NAMES))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", NAMES[1], "c"]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "1", "2", "5"]
    shares = drawn(figure)
    assert shares[:2].tolist() == [[100, 0, 0], [50, 25, 25]]
    assert shares.mask[2].all()


def test_picture_of_names_that_are_no_text(tmp_path):
    """Bytes of a folder's name that are no UTF-8, formulas, and one cut before its second $."""
    names = ("caf\udce9", "$\\frac$ of $", "a$" + 20 * "b" + "$cd")
    found = predictions_of([(0, 0), (1, 1), (2, 2)], names)
    write_confusion(found, tmp_path)
    figure = draw_confusion(found)
    figure.draw_without_rendering()
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == ["caf\N{REPLACEMENT CHARACTER}", r"\$\frac\$ of \$", r"a\$" + 20 * "b" + r"\$…"]


@pytest.mark.parametrize("classes", [100, 450])
def test_picture_of_many_classes(classes):
    """Each is taken for itself in three of four times, and for the next but two in one."""
    pairs = [(one, one if number else (one + 3) % classes)
             for one in range(classes) for number in range(4)]  # fmt: skip
    figure = draw_confusion(predictions_of(pairs, [f"class {one}" for one in range(classes)]))
    axes, shares = figure.axes[0], drawn(figure)
    assert not axes.texts
    assert "class 0" not in [label.get_text() for label in axes.get_yticklabels()]
    if classes == 100:
        assert (shares.diagonal() == 75).all()
        assert (shares.diagonal(3) == 25).all()
    else:  # three together
        assert shares.shape == (150, 150)
        assert (shares.diagonal() == 75).all()
        assert (shares.diagonal(1) == 25).all()
        assert axes.get_xlabel() == "predicted class, 3 together"
