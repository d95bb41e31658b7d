"""The published implementations' tensor names, which layers load, and some save, beside their own.

https://github.com/tk1980/GFGP (``ToParam``) and https://github.com/tk1980/GaussianPooling
(``ToHidden``, ``ToMean``, ``ToSigma``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = [
    "GAUSSIAN_NAMES",
    "MAX_ENT_NAMES",
    "own_names",
    "published_names",
    "renamed",
    "save_published_names",
    "takes_published_names",
]

MAX_ENT_NAMES = {
    "ToParam.1.": "head.conv1.",
    "ToParam.2.": "head.norm1.",
    "ToParam.4.": "head.conv2.",
    "ToParam.5.": "head.norm2.",
}
"""How the published names of a Max-Ent layer's tensors begin, and this one's."""

GAUSSIAN_NAMES = {
    "ToHidden.1.": "head.conv1.",
    "ToHidden.2.": "head.norm1.",
    "ToMean.0.": "head.mean.conv.",
    "ToMean.1.": "head.mean.norm.",
    "ToSigma.0.": "head.deviation.conv.",
    "ToSigma.1.": "head.deviation.norm.",
}
"""The same of a Gaussian layer's."""

FSDP_WRAPPED_MODULE = "_fsdp_wrapped_module."
"""In the names of all that a ``FullyShardedDataParallel`` holds, until its own hook takes it away.

That hook looks for each tensor by the names of attributes, and ends in an error where one is gone.
"""


def renamed(name: str, beginnings: Mapping[str, str]) -> str:
    """A tensor's ``name`` in its layer with the beginning that ``beginnings`` has for its own.

    Example:
        >>> renamed("ToParam.1.weight", MAX_ENT_NAMES)
        'head.conv1.weight'
    """
    for old, new in beginnings.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def takes_published_names(layer: nn.Module) -> None:
    """Lets ``layer.load_state_dict`` take its ``published_names`` too, as strictly as its own."""
    layer.register_load_state_dict_pre_hook(own_names)


def save_published_names(layer: nn.Module) -> None:
    """Makes ``layer.state_dict`` give its ``published_names`` in place of its own.

    Inside ``FullyShardedDataParallel`` the names stay its own.
    """
    layer.register_state_dict_post_hook(published_names)


# Hooks are functions of modules, not closures, so that layers can be copied and pickled.
def own_names(layer: Any, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Renames in place what ``state_dict`` has under the layer's published names."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        own = prefix + renamed(name.removeprefix(prefix), layer.published_names)
        # With both names present, the leftover one is reported as unexpected.
        if own != name and own not in state_dict:
            state_dict[own] = state_dict.pop(name)


def published_names(layer: Any, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Renames in place what ``state_dict`` has under the layer's own names, in their order."""
    if FSDP_WRAPPED_MODULE in prefix:
        return
    beginnings = {own: published for published, own in layer.published_names.items()}
    # The layer's tensors are the last that were added, so that theirs is the whole dict's order.
    for name in [name for name in state_dict if name.startswith(prefix)]:
        published = prefix + renamed(name.removeprefix(prefix), beginnings)
        state_dict[published] = state_dict.pop(name)
