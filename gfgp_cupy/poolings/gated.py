"""Gated max-average pooling: each window decides on its proportion of max and average."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.types import Device

from ..arguments import as_parameter
from ..autocast import autocasts
from ..axes import for_lines_and_volumes
from ..bins import Bins
from ..geometry import PoolGeometry, Sizes
from ..guided import GuidedPool2d
from ..learned import LearnedPool2d
from ..memory_format import in_layout, layout_of
from ..overrides import overridable
from ..padding import Windows, place_windows
from ..reference import pad_to_windows
from .mixed import mix_of_max_and_average

__all__ = [
    "GFGPGatedPool1d",
    "GFGPGatedPool2d",
    "GFGPGatedPool3d",
    "GatedPool1d",
    "GatedPool2d",
    "GatedPool3d",
    "gated_pool1d",
    "gated_pool2d",
    "gated_pool3d",
]


@overridable
def gated_pool2d(
    input: Tensor, weight: Tensor | float, kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, bias: Tensor | float = 0.0, count_include_pad: bool = False,
    axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""Gated max-average pooling: the window's own elements set the proportion of max pooling.

    .. math:: y = a \max_i x_i + (1 - a) \frac{1}{n} \sum_i x_i, \qquad
              a = \sigma\Bigl(\sum_i w_i x_i + b\Bigr)

    The published form has no bias. w = 0 without one is half max, half average pooling;
    :math:`b \to -\infty` average pooling, :math:`b \to \infty` max pooling. Of elements that share
    the maximum one gets all of its gradient, as in :func:`torch.nn.functional.max_pool2d`, where
    :func:`mixed_pool2d` shares it evenly.

    Source: C.-Y. Lee, P. W. Gallagher, Z. Tu, "Generalizing Pooling Functions in Convolutional
    Neural Networks: Mixed, Gated, and Tree", AISTATS 2016.

    Args:
        input: [N, C, H, W] or [C, H, W], of a floating-point type.
        weight: w, a floating-point tensor that broadcasts to [1, C, kH, kW], or a number. Where a
            window reaches past the input, that part of w goes unused.
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in
            :func:`gfgp_cupy.functional.max_ent_pool2d`.
        bias: b, a floating-point tensor that broadcasts to the output [N, C, oH, oW], or a number.
        axes: that windows have: 1, 2 or 3, and w, too.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format. Half types are
        computed in float32.

    Raises:
        TypeError, ValueError: as :func:`gfgp_cupy.functional.max_ent_pool2d`, ``weight`` and
            ``bias`` in λ's place.

    Example:
        >>> x = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> gated_pool2d(x, 0.5, kernel_size=2)
        tensor([[[2.9289]]])
    """
    windows = place_windows(
        input, kernel_size, stride, padding, ceil_mode, count_include_pad, axes
    ).with_fixed_padding()
    x, geometry, output_shape = windows.padded, windows.geometry, windows.output_shape
    weight_shape = (1, output_shape[1], *_given_size(windows, input))
    weight = as_parameter("weight", weight, input, weight_shape).expand(weight_shape)
    weight = weight.reshape(*weight_shape[:2], *geometry.kernel_size)
    bias = windows.all_of(as_parameter("bias", bias, input, output_shape))
    computed = x.to(weight.dtype)
    logit = _weighted_sum(computed, weight, geometry) + bias
    max_pool = F.max_pool2d if x.dim() == 4 else F.max_pool3d
    largest = max_pool(
        computed,
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        ceil_mode=geometry.ceil_mode,
    )
    output = mix_of_max_and_average(largest, computed, logit.sigmoid(), geometry).to(x.dtype)
    if x.dim() == 5:  # PyTorch's pooling of volumes knows one layout
        output = in_layout(output, layout_of(x))
    return windows.result(output, input.dim())


gated_pool1d, gated_pool3d = for_lines_and_volumes(gated_pool2d)


def _given_size(windows: Windows, input: Tensor) -> Sizes:
    """The windows' size on each of the caller's axes."""
    kernel_size = windows.geometry.kernel_size
    if windows.axes > len(kernel_size):  # the only one is a whole volume
        return tuple(input.shape[-windows.axes :])
    return kernel_size[-windows.axes :]


def _weighted_sum(input: Tensor, weight: Tensor, geometry: PoolGeometry) -> Tensor:
    """Σ w x over each window, which zeros instead of the padding leave as it is."""
    padded = pad_to_windows(input, geometry)
    device, convolve = input.device, F.conv2d if input.dim() == 4 else F.conv3d
    with torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext():
        return convolve(
            padded, weight.transpose(0, 1), stride=geometry.stride, groups=weight.shape[1]
        )


class GatedPool2d(LearnedPool2d):
    """Gated max-average pooling with learned gates; see :func:`gated_pool2d`.

    The gates start at 1/2 for every window.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function.
        num_features: number of channels C, for one gate a channel; ``None`` for one in all.
        device, dtype: of the gates.

    Attributes:
        weight: w, of shape [1, C, kH, kW] or [1, 1, kH, kW].

    Example:
        >>> pool = GatedPool2d(kernel_size=2, num_features=16)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    parameter_name = "weight"
    shown = ("num_features",)
    weight: Tensor

    def __init__(
        self, kernel_size: int | Sizes, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        num_features: int | None = None, count_include_pad: bool = False, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.add_parameter(num_features, True, device, dtype)
        self.reset_parameters()

    @property
    def parameter_size(self) -> Sizes:
        return _size_of_weight(self.kernel_size)

    def initial_value(self) -> float:
        return 0.0

    def forward(self, input: Tensor) -> Tensor:
        return gated_pool2d(
            input, self.weight, *self.window, count_include_pad=self.count_include_pad,
            axes=self.axes,
        )  # fmt: skip


class GFGPGatedPool2d(GuidedPool2d):
    """Gated max-average pooling whose bias a GFGP head predicts per sample and channel.

    The weight of the gates is learned per channel, as in :class:`GatedPool2d`; at zero, where it
    starts, this gives what :class:`gfgp_cupy.GFGPMixedPool2d` does. See
    :class:`gfgp_cupy.poolings.GuidedPool2d` for the arguments and :func:`gated_pool2d` for the
    pooling.

    Attributes:
        weight: w, of shape [1, C, kH, kW].

    Example:
        >>> pool = GFGPGatedPool2d(64, kernel_size=3, stride=2, padding=1)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    activation = nn.Identity
    weight: Tensor

    def add_tensors(self, device: Device, dtype: torch.dtype | None) -> None:
        size = _size_of_weight(self.kernel_size)
        weight = torch.zeros(1, self.num_features, *size, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight)

    def reset_parameters(self) -> None:
        """Sets the weight back to zero and draws the head's weights anew."""
        nn.init.zeros_(self.weight)
        super().reset_parameters()

    def pool(self, input: Tensor, parameter: Tensor) -> Tensor:
        return gated_pool2d(input, self.weight, *self.window, bias=parameter, axes=self.axes)


class GatedPool1d(GatedPool2d, axes=1): ...


class GatedPool3d(GatedPool2d, axes=3): ...


class GFGPGatedPool1d(GFGPGatedPool2d, axes=1): ...


class GFGPGatedPool3d(GFGPGatedPool2d, axes=3): ...


def _size_of_weight(kernel_size: Sizes) -> Sizes:
    if isinstance(kernel_size, Bins):
        raise TypeError(
            f"kernel_size must be sizes, got windows for output_size={kernel_size.sizes()}: the "
            "gates have a weight for each element of a window; take sizes, or another pooling, "
            "such as 'mixed'"
        )
    return kernel_size
