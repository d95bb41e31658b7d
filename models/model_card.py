"""The page of a saved network: a model card in the format of the Hugging Face Hub.

https://huggingface.co/docs/hub/model-cards
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.readable import readable

OURS = (
    "<!-- Written by save_pretrained, which writes the page anew as long as this line is there. -->"
)
"""The last line of a card."""

PAPER = "https://staff.aist.go.jp/takumi.kobayashi/publication/2019/ICCV2019.pdf"
SHOWN_CLASSES = 20


@dataclass(frozen=True)
class Measured:
    """What the very weights that are saved came to on images that they were not trained on.

    Attributes:
        err1, err5: top-1 and top-5 errors in percent.
        data: what the images are of, such as ``"digits"``; None where it is not known.
        epoch: epochs that the network had been trained for.
    """

    err1: float
    err5: float
    data: str | None
    epoch: int


def model_card(config: Mapping[str, Any], measured: Measured | None) -> str:
    """Return the card of the network of ``config``, which is as in ``Network.config``.

    Its figures are those of ``measured`` alone; without any, it says that there are none.

    Example:
        >>> card = model_card({"name": "vgg16", "pool": "max_ent", "num_classes": 2}, None)
        >>> print(card.splitlines()[1])
        license: "mit"
    """
    fields = "\n".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in _metadata(config, measured).items()
    )
    paragraphs = [
        f"---\n{fields}\n---",
        f"# {_title(config)}",
        f"The network `{config['name']}` with pooling `{config['pool']}`, as in T. Kobayashi, "
        f"[Global Feature Guided Local Pooling]({PAPER}), ICCV 2019. {_classes(config)}",
        "## Figures",
        _figures(measured),
        "## Use",
        "In a clone of gfgp_cupy, with this folder or the name of its repository on the Hub:",
        '```python\nimport models\n\nnet = models.from_pretrained("FOLDER")\n```',
        "Images are [N, 3, H, W] in RGB, logits [N, "
        f"{config['num_classes']}]; what `config.json` says of size, mean and std is how images "
        "were prepared in training. The license named above is that of the code: who publishes "
        "weights chooses theirs.",
        OURS,
    ]
    return readable("\n\n".join(paragraphs) + "\n")


def _title(config: Mapping[str, Any]) -> str:
    return f"{config['name']} with {config['pool']} pooling"


def _metadata(config: Mapping[str, Any], measured: Measured | None) -> dict[str, Any]:
    """Return the fields by which the Hub finds the network, and its figures as the Hub has them."""
    fields: dict[str, Any] = {
        "license": "mit",
        "library_name": "gfgp_cupy",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pooling", "gfgp", config["name"]],
    }
    if measured is not None and measured.data is not None:
        accuracies = [
            {"type": "accuracy", "name": f"top-{top} accuracy", "value": round(1 - error / 100, 6)}
            for top, error in ((1, measured.err1), (5, measured.err5))
        ]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": measured.data, "name": measured.data},
            "metrics": accuracies,
        }
        fields["model-index"] = [{"name": _title(config), "results": [result]}]
    return fields


def _classes(config: Mapping[str, Any]) -> str:
    names = list(config.get("id2label", {}).values())
    if not names:
        return f"It tells {config['num_classes']} classes, whose names were not saved."
    shown = ", ".join(" ".join(str(name).split()) for name in names[:SHOWN_CLASSES])
    more = ", …" if len(names) > SHOWN_CLASSES else ""
    return f"It tells {config['num_classes']} classes: {shown}{more}."


def _figures(measured: Measured | None) -> str:
    if measured is None:
        return "None were measured with these weights. Those of the paper are of other weights."
    data = measured.data or "images that the record does not name"
    return (
        f"Top-1 error {measured.err1:.2f}%, top-5 error {measured.err5:.2f}%: validation on {data} "
        f"after epoch {measured.epoch}. Those of the paper are of other weights."
    )
