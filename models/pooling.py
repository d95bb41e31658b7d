"""The pooling types of the published networks, and the one factory that makes them."""

from torch import nn

import gfgp_cupy.poolings
from gfgp_cupy.choices import check_choice

PUBLISHED_POOL_TYPES = ("max", "avg", "skip", "max_ent")
POOL_TYPES = (
    *PUBLISHED_POOL_TYPES,
    *(name for name in gfgp_cupy.poolings.list_poolings() if name not in PUBLISHED_POOL_TYPES),
)


def create_pooling(
    pool: str, num_features: int, kernel_size: int, stride: int, padding: int = 0
) -> nn.Module:
    """Return a pooling of type ``pool`` for input [N, num_features, H, W].

    ``skip`` is the identity: a network that skips its pooling leaves the stride to a
    convolution. The others are those of :func:`gfgp_cupy.poolings.create_pooling`. ``avg``
    counts the padding in its mean, as the published networks do; the others, ``max_ent``
    (Kobayashi, ICCV 2019) among them, never count it.

    Raises:
        ValueError: ``pool`` is none of ``POOL_TYPES``.
    """
    check_choice("pool", pool, POOL_TYPES)
    if pool == "skip":
        return nn.Identity()
    return gfgp_cupy.poolings.create_pooling(pool, num_features, kernel_size, stride, padding)
