"""Replace the poolings of any network, and the strides of its convolutions, in place."""

from .by_channels import PoolingByChannels
from .replace import replace_pooling
from .strided_convs import PooledConv2d
from .table import Left, Replacement, Replacements

__all__ = [
    "Left",
    "PooledConv2d",
    "PoolingByChannels",
    "Replacement",
    "Replacements",
    "replace_pooling",
]
