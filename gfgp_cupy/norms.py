"""The norms of a GFGP head."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.types import Device

__all__ = ["LayerNorm2d", "make_norm"]


class LayerNorm2d(nn.GroupNorm):
    """Normalises each sample over its channels: a head's norm for batches of few samples.

    On a head's maps of one point it is what torchvision and timm call LayerNorm2d, with one scale
    and shift a channel. ``experiments/head_norms.py`` compares it with others.

    Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", arXiv:1607.06450, 2016.

    Args:
        num_features: number of channels C. One alone, as the hidden layer of up to 3 channels has,
            would become 0 whatever it is: it is scaled and shifted only.
        eps: added to the variance.
        device, dtype: of the scale and shift.

    Shape:
        - input, output: [N, C, 1, 1].

    Example:
        >>> import gfgp_cupy
        >>> pool = gfgp_cupy.GFGPMaxEntPool2d(64, kernel_size=2, norm_layer=LayerNorm2d)
        >>> pool(torch.randn(1, 64, 28, 28)).shape
        torch.Size([1, 64, 14, 14])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(1, num_features, eps, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        if self.num_channels == 1:
            return input * self.weight + self.bias
        return super().forward(input)


def make_norm(
    norm_layer: Callable[[int], nn.Module] | None,
    num_features: int,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """``norm_layer(num_features)``, moved to ``device`` and ``dtype``; by default a BatchNorm2d.

    Raises:
        TypeError: ``norm_layer`` is not callable, a module already, or does not make one.
    """
    if norm_layer is None:
        return nn.BatchNorm2d(num_features, device=device, dtype=dtype)
    norm = None
    if callable(norm_layer) and not isinstance(norm_layer, nn.Module):
        # On the device at once, as PyTorch's own layers are: what is made on "meta" holds nothing
        # that could be moved.
        with contextlib.nullcontext() if device is None else torch.device(device):
            norm = norm_layer(num_features)
    if not isinstance(norm, nn.Module):
        raise TypeError(
            "norm_layer must make a module when called with a number of features, as "
            f"gfgp_cupy.norms.LayerNorm2d does, got {norm_layer!r}"
        )
    return norm.to(device=device, dtype=dtype)
