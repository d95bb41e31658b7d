"""Mixed max-average pooling: a learned proportion of each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.types import Device

from ..arguments import check_number
from ..autograd import register
from ..axes import for_lines_and_volumes
from ..geometry import PoolGeometry, Sizes
from ..guided import GuidedPool2d
from ..learned import LearnedPool2d
from ..overrides import overridable
from ..reference import average_of_windows, windows
from ..window_function import WindowFunction
from ..window_pooling import pool_windows

__all__ = [
    "GFGPMixedPool1d",
    "GFGPMixedPool2d",
    "GFGPMixedPool3d",
    "MixedPool1d",
    "MixedPool2d",
    "MixedPool3d",
    "mix_of_max_and_average",
    "mixed_pool1d",
    "mixed_pool2d",
    "mixed_pool3d",
]


@overridable
def mixed_pool2d(
    input: Tensor, proportion: Tensor | float, kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""Mixed max-average pooling.

    .. math:: y = a \max_i x_i + (1 - a) \frac{1}{n} \sum_i x_i

    a = 0 is average pooling, a = 1 max pooling. Elements that share the maximum share its gradient
    evenly, as in :func:`torch.amax`.

    Source: C.-Y. Lee, P. W. Gallagher, Z. Tu, "Generalizing Pooling Functions in Convolutional
    Neural Networks: Mixed, Gated, and Tree", AISTATS 2016.

    Args:
        input: [N, C, H, W] or [C, H, W], of a floating-point type.
        proportion: a, from 0 to 1 (which is not checked), a floating-point tensor that broadcasts
            to the output [N, C, oH, oW], or a number.
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in
            :func:`gfgp_cupy.functional.max_ent_pool2d`.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format. Half types are
        computed in float32.

    Raises:
        TypeError, ValueError: as :func:`gfgp_cupy.functional.max_ent_pool2d`.

    Example:
        >>> x = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> mixed_pool2d(x, 0.5, kernel_size=2)
        tensor([[[2.2500]]])
    """
    return pool_windows(
        MIXED, input, proportion, kernel_size, stride, padding, ceil_mode, count_include_pad, axes
    )


def mix_of_max_and_average(
    largest: Tensor, input: Tensor, proportion: Tensor, geometry: PoolGeometry
) -> Tensor:
    """The ``largest`` element and the average of each window of [N, C, H, W] ``input``, mixed."""
    dtype = proportion.dtype
    average = average_of_windows(input, geometry).to(dtype)
    # 1, or NaN where an element is infinite, also if that is below all others. As a factor it makes
    # the gradients NaN, too.
    finite = 1 + (average - average).detach()
    return torch.lerp(average, largest.to(dtype), proportion) * finite


def _composition(input: Tensor, proportion: Tensor, geometry: PoolGeometry) -> Tensor:
    computed = input.to(proportion.dtype)
    elements, inside = windows(computed, geometry)
    largest = elements.masked_fill(~inside, -math.inf).amax(0)
    return mix_of_max_and_average(largest, computed, proportion, geometry).to(input.dtype)


MIXED = register(
    WindowFunction(
        name="mixed",
        parameter="proportion",
        composition=_composition,
        cuda="mixed.cu",
        cpu="gfgp_cupy.backends.numba.functions.mixed",
    )
)


class MixedPool2d(LearnedPool2d):
    """Mixed max-average pooling with a proportion of its own; see :func:`mixed_pool2d`.

    The proportion is the sigmoid of a tensor, so that it stays between 0 and 1 while it is
    learned.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function.
        num_features: number of channels C, for one proportion a channel; ``None`` for one in all.
        init_proportion: what the proportion starts from, between 0 and 1; 0 (average pooling) and
            1 (max pooling) only where it is not learned.
        learnable: whether the proportion is learned; otherwise it is a buffer.
        device, dtype: of ``logit``.

    Attributes:
        logit: log(a / (1 − a)), of shape [1, C, 1, 1] or [1, 1, 1, 1].

    Example:
        >>> pool = MixedPool2d(kernel_size=2, num_features=16)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    parameter_name = "logit"
    shown = ("num_features", "init_proportion", "learnable")
    logit: Tensor

    def __init__(
        self, kernel_size: int | Sizes, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        num_features: int | None = None, init_proportion: float = 0.5, learnable: bool = True,
        count_include_pad: bool = False, device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        check_number("init_proportion", init_proportion)
        if not 0 <= init_proportion <= 1:
            raise ValueError(f"init_proportion must be from 0 to 1, got {init_proportion}")
        if learnable and init_proportion in (0, 1):
            raise ValueError(
                f"init_proportion must be between 0 and 1 to be learned, got {init_proportion}: "
                "start inside, or pass learnable=False"
            )
        self.init_proportion = init_proportion
        self.add_parameter(num_features, learnable, device, dtype)
        self.reset_parameters()

    @property
    def proportion(self) -> Tensor:
        """The proportion a of max pooling, of the shape of ``logit``."""
        return self.logit.sigmoid()

    @property
    def parameter(self) -> Tensor:
        return self.proportion

    def initial_value(self) -> float:
        # On the CPU even inside `with torch.device("meta")`, which holds no numbers.
        proportion = torch.tensor(self.init_proportion, dtype=torch.float64, device="cpu")
        return torch.logit(proportion).item()

    def forward(self, input: Tensor) -> Tensor:
        return mixed_pool2d(
            input, self.proportion, *self.window, self.count_include_pad, axes=self.axes
        )


class GFGPMixedPool2d(GuidedPool2d):
    """Mixed max-average pooling whose proportion a GFGP head predicts per sample and channel.

    The proportion is the sigmoid of the head's output. See
    :class:`gfgp_cupy.poolings.GuidedPool2d` for the arguments and :func:`mixed_pool2d` for the
    pooling.

    Example:
        >>> pool = GFGPMixedPool2d(64, kernel_size=3, stride=2, padding=1)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    activation = nn.Sigmoid
    function = MIXED


mixed_pool1d, mixed_pool3d = for_lines_and_volumes(mixed_pool2d)


class MixedPool1d(MixedPool2d, axes=1): ...


class MixedPool3d(MixedPool2d, axes=3): ...


class GFGPMixedPool1d(GFGPMixedPool2d, axes=1): ...


class GFGPMixedPool3d(GFGPMixedPool2d, axes=3): ...
