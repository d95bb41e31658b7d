"""Generalised-mean pooling (GeM, Lp): from average (p = 1) to max pooling (p → ∞)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.types import Device

from ..arguments import check_first_value
from ..autograd import register
from ..axes import for_lines_and_volumes
from ..geometry import PoolGeometry, Sizes
from ..guided import GuidedPool2d
from ..learned import LearnedPool2d
from ..overrides import overridable
from ..window_function import WindowFunction, check_eps
from ..window_pooling import pool_windows
from .log_sum_exp import log_mean_exp

__all__ = [
    "GFGPGeneralizedMeanPool1d",
    "GFGPGeneralizedMeanPool2d",
    "GFGPGeneralizedMeanPool3d",
    "GeneralizedMeanPool1d",
    "GeneralizedMeanPool2d",
    "GeneralizedMeanPool3d",
    "generalized_mean_pool1d",
    "generalized_mean_pool2d",
    "generalized_mean_pool3d",
]


@overridable
def generalized_mean_pool2d(
    input: Tensor, p: Tensor | float, kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, eps: float = 1e-6, count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""Generalised-mean pooling: the power mean of each window.

    .. math:: y = \Bigl(\frac{1}{n} \sum_i \max(x_i, \epsilon)^p\Bigr)^{1/p}

    p = 1 is average pooling, :math:`p \to \infty` max pooling; p = 0 is the geometric mean, −1 the
    harmonic one, :math:`p \to -\infty` min pooling. It is made for inputs that are not negative,
    such as a ReLU's: smaller elements count as ``eps`` and get no gradient. Where
    powers might overflow it is computed as exp(log-sum-exp pooling of log x). A NaN or an infinite
    element makes it NaN. A p that is infinite, or so large that twice p is, may make it and its
    gradients NaN.

    ``torch.nn.LPPool2d`` is :math:`n^{1/p}` times this, for a fixed p and without padding.

    Sources: F. Radenović, G. Tolias, O. Chum, "Fine-tuning CNN Image Retrieval with No Human
    Annotation", TPAMI 41(7), 2019 (GeM, learned p); P. Sermanet, S. Chintala, Y. LeCun,
    "Convolutional Neural Networks Applied to House Numbers Digit Classification", ICPR 2012 (Lp).

    Args:
        input: [N, C, H, W] or [C, H, W], of a floating-point type.
        p: the exponent, a floating-point tensor that broadcasts to the output [N, C, oH, oW], or
            a number.
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in
            :func:`gfgp_cupy.functional.max_ent_pool2d`.
        eps: the smallest value of an element, above 0 in float32.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format. Half types are
        computed in float32.

    Raises:
        TypeError, ValueError: as :func:`gfgp_cupy.functional.max_ent_pool2d`; ValueError where
            ``eps`` is not above 0 or not finite.

    Example:
        >>> x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> [round(generalized_mean_pool2d(x, p, 2).item(), 4) for p in (1.0, 3.0, 1000.0)]
        [2.5, 2.924, 3.9945]
    """
    check_eps(eps)
    return pool_windows(
        GENERALIZED_MEAN.with_constant(eps), input, p, kernel_size, stride, padding, ceil_mode,
        count_include_pad, axes,
    )  # fmt: skip


def _composition(input: Tensor, p: Tensor, geometry: PoolGeometry, eps: float) -> Tensor:
    x = input.to(p.dtype)
    finite = x - x == 0
    logarithm = torch.where(finite & (x >= eps), x, eps).log()
    # NaN otherwise, and so the gradient of such an element, if a window has it: a logarithm's would
    # be NaN everywhere.
    logarithm = torch.where(finite, logarithm, x + (x - x).detach())
    # No result of exp(), which its derivative is made of: what follows may change it in place.
    return log_mean_exp(logarithm, p, geometry).exp().clone().to(input.dtype)


GENERALIZED_MEAN = register(
    WindowFunction(
        name="generalized_mean",
        parameter="p",
        composition=_composition,
        cuda="generalized_mean.cu",
        cpu="gfgp_cupy.backends.numba.functions.generalized_mean",
        constant=1e-6,
    )
)


class GeneralizedMeanPool2d(LearnedPool2d):
    """Generalised-mean pooling with a p of its own; see :func:`generalized_mean_pool2d`.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function.
        num_features: number of channels C, for one p a channel; ``None`` for one p in all.
        init_p: the value p starts from.
        learnable: whether p is a parameter; otherwise it is a buffer.
        eps: the smallest value of an element, above 0.
        device, dtype: of p.

    Attributes:
        p: the exponent, of shape [1, C, 1, 1] or [1, 1, 1, 1].

    Example:
        >>> pool = GeneralizedMeanPool2d(kernel_size=2, num_features=16)
        >>> pool(torch.rand(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    parameter_name = "p"
    shown = ("num_features", "init_p", "learnable", "eps")
    p: Tensor

    def __init__(
        self, kernel_size: int | Sizes, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        num_features: int | None = None, init_p: float = 3.0, learnable: bool = True,
        eps: float = 1e-6, count_include_pad: bool = False, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        check_eps(eps)
        check_first_value("init_p", init_p, dtype)
        self.init_p = init_p
        self.eps = float(eps)
        self.add_parameter(num_features, learnable, device, dtype)
        self.reset_parameters()

    def initial_value(self) -> float:
        return self.init_p

    def forward(self, input: Tensor) -> Tensor:
        return generalized_mean_pool2d(
            input, self.p, *self.window, self.eps, self.count_include_pad, axes=self.axes
        )


class GFGPGeneralizedMeanPool2d(GuidedPool2d):
    """Generalised-mean pooling whose p > 1 a GFGP head predicts per sample and channel.

    p is 1 plus the softplus of the head's output. See :class:`gfgp_cupy.poolings.GuidedPool2d`
    for the arguments and :func:`generalized_mean_pool2d` for the pooling.

    Example:
        >>> GFGPGeneralizedMeanPool2d(8, kernel_size=2)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 8, 2, 2])
    """

    activation = nn.Softplus
    function = GENERALIZED_MEAN

    def parameter_of(self, predicted: Tensor) -> Tensor:
        return 1 + predicted


generalized_mean_pool1d, generalized_mean_pool3d = for_lines_and_volumes(generalized_mean_pool2d)


class GeneralizedMeanPool1d(GeneralizedMeanPool2d, axes=1): ...


class GeneralizedMeanPool3d(GeneralizedMeanPool2d, axes=3): ...


class GFGPGeneralizedMeanPool1d(GFGPGeneralizedMeanPool2d, axes=1): ...


class GFGPGeneralizedMeanPool3d(GFGPGeneralizedMeanPool2d, axes=3): ...
