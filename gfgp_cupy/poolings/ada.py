"""AdaPool: a learned mix of two exponential poolings, by size and by likeness to the mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.types import Device

from ..autograd import register
from ..axes import for_lines_and_volumes
from ..geometry import PoolGeometry, Sizes
from ..guided import GuidedPool2d
from ..learned import LearnedPool2d
from ..overrides import overridable
from ..pool2d import Pool2d
from ..reference import composition as max_ent
from ..reference import windows
from ..torchscript import sizes_of
from ..window_function import WindowFunction
from ..window_pooling import pool_windows

__all__ = [
    "AdaPool1d",
    "AdaPool2d",
    "AdaPool3d",
    "EDSCWPool1d",
    "EDSCWPool2d",
    "EDSCWPool3d",
    "GFGPAdaPool1d",
    "GFGPAdaPool2d",
    "GFGPAdaPool3d",
    "ada_pool1d",
    "ada_pool2d",
    "ada_pool3d",
    "edscw_pool1d",
    "edscw_pool2d",
    "edscw_pool3d",
]


@overridable
def ada_pool2d(
    input: Tensor, beta: Tensor | float, kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""AdaPool: a mix of eDSCWPool and SoftPool.

    .. math:: y = \beta \sum_i \frac{e^{s_i}}{\sum_j e^{s_j}} x_i
                  + (1 - \beta) \sum_i \frac{e^{x_i}}{\sum_j e^{x_j}} x_i, \qquad
              s_i = \frac{2 x_i \bar x}{x_i^2 + \bar x^2}

    :math:`\bar x` is the window's mean, and :math:`s_i` the Dice-Sørensen coefficient, from −1 to
    1, which tells how like the mean an element is: eDSCWPool, :math:`\beta = 1`, weights elements
    by that, SoftPool, :math:`\beta = 0`, by their size. Where element and mean both are 0,
    :math:`s_i` is 0 and has no derivative; so a window of zeros has the gradient of average
    pooling. The result always lies between the smallest and the largest element of its window. It
    is NaN where an element is NaN or infinite, or the difference of two is.

    Derivatives are those of this formula; the published kernels take weights and mean for
    constants.

    Source: A. Stergiou, R. Poppe, "AdaPool: Exponential Adaptive Pooling for Information-Retaining
    Downsampling", IEEE Transactions on Image Processing 32, 2023.

    Args:
        input: [N, C, H, W] or [C, H, W], of a floating-point type.
        beta: β, from 0 to 1 (which is not checked), a floating-point tensor that broadcasts to the
            output [N, C, oH, oW], or a number.
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in
            :func:`gfgp_cupy.functional.max_ent_pool2d`.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format. Half types are
        computed in float32.

    Raises:
        TypeError, ValueError: as :func:`gfgp_cupy.functional.max_ent_pool2d`, ``beta`` in λ's
            place.

    Example:
        >>> x = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> ada_pool2d(x, 0.5, kernel_size=2)
        tensor([[[2.1092]]])
    """
    return pool_windows(
        ADA, input, beta, kernel_size, stride, padding, ceil_mode, count_include_pad, axes
    )


@overridable
def edscw_pool2d(
    input: Tensor, kernel_size: int | Sizes, stride: int | Sizes | None = None,
    padding: int | Sizes | str = 0, ceil_mode: bool = False,
    count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""eDSCWPool: the mean of each window with weights by how like the plain mean an element is.

    .. math:: y = \sum_i e^{s_i} x_i / \sum_j e^{s_j}, \qquad
              s_i = \frac{2 x_i \bar x}{x_i^2 + \bar x^2}

    This is :func:`ada_pool2d` with β = 1, which see for shapes, errors, limits and the source. Like
    an average, it is homogeneous: a multiple of the input gives that multiple of the output.

    Example:
        >>> edscw_pool2d(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), kernel_size=2)
        tensor([[[1.7257]]])
    """
    return ada_pool2d(
        input, 1.0, kernel_size, stride, padding, ceil_mode, count_include_pad, axes=axes
    )


def _composition(input: Tensor, beta: Tensor, geometry: PoolGeometry) -> Tensor:
    x = input.to(beta.dtype)
    by_size = max_ent(x, torch.ones_like(beta), geometry)
    return torch.lerp(by_size, _by_likeness(x, geometry), beta).to(input.dtype)


def _by_likeness(input: Tensor, geometry: PoolGeometry) -> Tensor:
    elements, inside = windows(input, geometry)
    count = inside.sum(0).to(input.dtype)
    # A power of two of at most 1 / n: with it the sum does not outgrow the largest element.
    factor = 0.5 ** (sizes_of(elements)[0] - 1).bit_length()
    mean = (factor * elements).sum(0) / (factor * count)
    weight = torch.where(inside, _likeness(elements, mean).exp(), 0)
    # The result is the same about any centre, and so are its derivatives.
    centre = mean.detach()
    distance = torch.where(inside, elements - centre, 0)
    return centre + (weight / weight.sum(0) * distance).sum(0)


def _likeness(x: Tensor, mean: Tensor) -> Tensor:
    """2 x mean / (x² + mean²), by way of the quotient of the smaller one and the larger, whose
    square is in range."""
    mean = mean.expand_as(x)
    x_is_larger = x.abs() > mean.abs()
    smaller, larger = torch.where(x_is_larger, mean, x), torch.where(x_is_larger, x, mean)
    both_zero = larger == 0
    quotient = torch.where(both_zero, 0, smaller / torch.where(both_zero, 1, larger))
    return 2 * quotient / (1 + quotient.square())


ADA = register(
    WindowFunction(
        name="ada",
        parameter="beta",
        composition=_composition,
        cuda="ada.cu",
        cpu="gfgp_cupy.backends.numba.functions.ada",
        spread="signed",
    )
)
"""θ is β; ∂y/∂β is eDSCWPool's result less SoftPool's."""


class EDSCWPool2d(Pool2d):
    """eDSCWPool as a layer; see :func:`edscw_pool2d`.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function. The kernel is 2 by default, as in the published layer.

    Example:
        >>> pool = EDSCWPool2d(kernel_size=2)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    def __init__(
        self, kernel_size: int | Sizes = 2, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        count_include_pad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        return edscw_pool2d(
            input, *self.window, count_include_pad=self.count_include_pad, axes=self.axes
        )


class AdaPool2d(LearnedPool2d):
    """AdaPool with a β of its own; see :func:`ada_pool2d`.

    β is the sigmoid of a tensor, so that it stays between 0 and 1 while it is learned; the
    published layer clamps it. It starts from 1/2, and is one number a channel or in all, where
    the published one has one for each place of an output of known size.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function.
        num_features: number of channels C, for one β a channel; ``None`` for one in all.
        device, dtype: of ``logit``.

    Attributes:
        logit: log(β / (1 − β)), of shape [1, C, 1, 1] or [1, 1, 1, 1].

    Example:
        >>> pool = AdaPool2d(kernel_size=2, num_features=16)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    parameter_name = "logit"
    shown = ("num_features",)
    logit: Tensor

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
    def parameter(self) -> Tensor:
        """β, of the shape of ``logit``."""
        return self.logit.sigmoid()

    def initial_value(self) -> float:
        return 0.0

    def forward(self, input: Tensor) -> Tensor:
        return ada_pool2d(
            input, self.parameter, *self.window, self.count_include_pad, axes=self.axes
        )


class GFGPAdaPool2d(GuidedPool2d):
    """AdaPool whose β a GFGP head predicts per sample and channel.

    β is the sigmoid of the head's output. See :class:`gfgp_cupy.poolings.GuidedPool2d` for the
    arguments and :func:`ada_pool2d` for the pooling.

    Example:
        >>> pool = GFGPAdaPool2d(64, kernel_size=3, stride=2, padding=1)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    activation = nn.Sigmoid
    function = ADA


ada_pool1d, ada_pool3d = for_lines_and_volumes(ada_pool2d)
edscw_pool1d, edscw_pool3d = for_lines_and_volumes(edscw_pool2d)


class EDSCWPool1d(EDSCWPool2d, axes=1): ...


class EDSCWPool3d(EDSCWPool2d, axes=3): ...


class AdaPool1d(AdaPool2d, axes=1): ...


class AdaPool3d(AdaPool2d, axes=3): ...


class GFGPAdaPool1d(GFGPAdaPool2d, axes=1): ...


class GFGPAdaPool3d(GFGPAdaPool2d, axes=3): ...
