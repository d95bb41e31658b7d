"""The pooling types of the published networks, and the one factory that makes them."""

from functools import partial

from torch import nn

import gfgp_cupy.poolings
from gfgp_cupy import GFGPGaussianPool2d
from gfgp_cupy.choices import check_choice

PUBLISHED_POOL_TYPES = ("max", "avg", "skip", "max_ent")
"""Those of https://github.com/tk1980/GFGP."""

GAUSSIAN_POOL_TYPES = {
    f"gauss{code}_{stochasticity}": partial(
        GFGPGaussianPool2d, stochasticity=stochasticity, count_include_pad=counts_padding
    )
    for code, counts_padding in (("_cuda", False), ("", True))
    for stochasticity in ("CN", "HWCN")
}
"""Those of https://github.com/tk1980/GaussianPooling, whose layer without a kernel counts the
padding."""

POOL_TYPES = (
    *PUBLISHED_POOL_TYPES,
    *(name for name in gfgp_cupy.poolings.list_poolings() if name not in PUBLISHED_POOL_TYPES),
    *GAUSSIAN_POOL_TYPES,
)


def published_pool(pool: str) -> str:
    """Return the published name of a pooling type that has one, otherwise its own.

    Example:
        >>> published_pool("gauss"), published_pool("max_ent")
        ('gauss_cuda_CN', 'max_ent')
    """
    return "gauss_cuda_CN" if pool == "gauss" else pool


def create_pooling(
    pool: str, num_features: int, kernel_size: int, stride: int, padding: int = 0
) -> nn.Module:
    """Return a pooling of type ``pool`` for input [N, num_features, H, W].

    ``skip`` is the identity: a network that skips its pooling leaves the stride to a
    convolution. ``gauss_cuda_CN``, which is ``gauss``, ``gauss_cuda_HWCN``, ``gauss_CN`` and
    ``gauss_HWCN`` are the published Gaussian poolings (Kobayashi, NeurIPS 2019). The others are
    those of :func:`gfgp_cupy.poolings.create_pooling`. ``avg``, ``gauss_CN`` and ``gauss_HWCN``
    count the padding, as the published networks do; the others, ``max_ent`` (Kobayashi, ICCV
    2019) among them, never count it.

    Raises:
        ValueError: ``pool`` is none of ``POOL_TYPES``.
    """
    check_choice("pool", pool, POOL_TYPES)
    if pool == "skip":
        return nn.Identity()
    if pool in GAUSSIAN_POOL_TYPES:
        return GAUSSIAN_POOL_TYPES[pool](num_features, kernel_size, stride, padding)
    return gfgp_cupy.poolings.create_pooling(pool, num_features, kernel_size, stride, padding)
