"""The published networks for ``torch.hub``, one entry point each.

    torch.hub.load(FOLDER, "resnet50", pool="max_ent", num_classes=1000, source="local")

``FOLDER`` is a clone of this repository. Weights are fresh: none are published.
"""

from torch import nn

import models

dependencies = ["torch", "numpy"]

if getattr(models, "list_models", None) is None:
    raise ImportError(
        f"{models} has been imported in place of this repository's package of the same name: load "
        "the network in a process that imports no other"
    )


def _entry_point(name: str):
    def create(pool: str = "max_ent", num_classes: int = 1000) -> nn.Module:
        return models.create_model(name, pool=pool, num_classes=num_classes)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"""{name} of T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019.

    Takes images [N, 3, H, W] and returns logits [N, num_classes]; see ``models.create_model``.

    Args:
        pool: "max", "avg", "skip", "max_ent", or another of gfgp_cupy.poolings.list_poolings().
        num_classes: length of the logits.

    Raises:
        TypeError: num_classes is not an int.
        ValueError: an unknown pool, or num_classes below 1.
    """
    return create


# torch.hub takes each callable here whose name has no underscore in front for an entry point.
globals().update({name: _entry_point(name) for name in models.list_models()})
