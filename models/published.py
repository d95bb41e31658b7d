"""The networks as the published code calls them: a function each, pooling as ``ptype``.

``models.resnet50(num_classes=1000, ptype="max_ent")`` and ``models.__dict__["resnet50"](…)``, for
users of https://github.com/tk1980/GFGP. What is called is :func:`models.create_model`.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from models import densenet, resnet, vgg
from models.registry import create_model

DEFAULT_POOLS = {
    **dict.fromkeys(densenet.NETWORKS, "avg"),
    **dict.fromkeys(resnet.NETWORKS, "skip"),
    **dict.fromkeys(vgg.NETWORKS, "max"),
}
"""The pooling that the published function of each network has by default: its family's own."""


def network_function(name: str) -> Callable[..., nn.Module]:
    """Return the published function of the network ``name``.

    Example:
        >>> network_function("resnet18")(num_classes=10, ptype="max_ent").fc.out_features
        10
    """

    def create(
        pretrained: bool = False,
        progress: bool = True,
        *,
        num_classes: int = 1000,
        ptype: str = DEFAULT_POOLS[name],
    ) -> nn.Module:
        if pretrained:
            raise ValueError(
                f"{name}(pretrained=True): no weights are published; "
                "train_imagenet.py --pretrained starts from torchvision's"
            )
        return create_model(name, pool=ptype, num_classes=num_classes)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"""Return {name} with fresh weights, called as in the published code.

    Args:
        pretrained: must be false, for no weights are published.
        progress: of no effect, as in the published code.
        num_classes: length of the logits.
        ptype: the pooling, any ``pool`` of :func:`models.create_model`. Default: this family's own,
            ``{DEFAULT_POOLS[name]!r}``.

    Raises:
        TypeError: ``num_classes`` is not an int.
        ValueError: ``pretrained``, an unknown ``ptype``, or ``num_classes`` below 1.
    """
    return create


FUNCTIONS: dict[str, Any] = {name: network_function(name) for name in sorted(DEFAULT_POOLS)}
"""The functions by name; those of the package ``models``."""
