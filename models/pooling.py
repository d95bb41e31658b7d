"""The pooling types of the published networks, and the one factory that makes them."""

from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d
from models.choices import check_choice

POOL_TYPES = ("max", "avg", "skip", "max_ent")


def create_pooling(
    pool: str, num_features: int, kernel_size: int, stride: int, padding: int = 0
) -> nn.Module:
    """Return a pooling of type ``pool`` for input [N, num_features, H, W].

    ``skip`` is the identity: a network that skips its pooling leaves the stride to a
    convolution. ``avg`` counts the padding in its mean, as the published networks do;
    ``max_ent`` (Kobayashi, ICCV 2019) never counts it.

    Raises:
        ValueError: ``pool`` is none of ``POOL_TYPES``.
    """
    check_choice("pool", pool, POOL_TYPES)
    if pool == "max":
        return nn.MaxPool2d(kernel_size, stride, padding)
    if pool == "avg":
        return nn.AvgPool2d(kernel_size, stride, padding)
    if pool == "max_ent":
        return GFGPMaxEntPool2d(num_features, kernel_size, stride, padding)
    return nn.Identity()
