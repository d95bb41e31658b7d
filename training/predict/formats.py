"""Predictions as text."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

CSV_COLUMNS = ("image", "rank", "class", "probability")


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, the first of all first.

    Attributes:
        image: its path.
        classes: their names, or numbers where the checkpoint has no names.
        probabilities: by softmax of the logits.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def as_csv(predictions: Sequence[Prediction]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for prediction in predictions:
        ranked = zip(prediction.classes, prediction.probabilities, strict=True)
        for rank, (name, probability) in enumerate(ranked, start=1):
            writer.writerow((prediction.image, rank, name, f"{probability:.6g}"))
    return text.getvalue()


def as_json(predictions: Sequence[Prediction]) -> str:
    content = [
        {
            "image": each.image,
            "predictions": [
                {"class": name, "probability": float(f"{probability:.6g}")}
                for name, probability in zip(each.classes, each.probabilities, strict=True)
            ],
        }
        for each in predictions
    ]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


FORMATS = {"csv": as_csv, "json": as_json}
