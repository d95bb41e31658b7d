"""Log-sum-exp pooling: a smooth maximum, from average (λ → 0) to max pooling (λ → ∞)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..autograd import register
from ..axes import for_lines_and_volumes
from ..geometry import PoolGeometry, Sizes
from ..guided import GuidedPool2d
from ..learned import LearnedLambdaPool2d
from ..overrides import overridable
from ..reference import largest_of_windows, windows
from ..torchscript import is_tracing
from ..window_function import WindowFunction
from ..window_pooling import pool_windows

__all__ = [
    "GFGPLogSumExpPool1d",
    "GFGPLogSumExpPool2d",
    "GFGPLogSumExpPool3d",
    "LogSumExpPool1d",
    "LogSumExpPool2d",
    "LogSumExpPool3d",
    "log_mean_exp",
    "log_sum_exp_pool1d",
    "log_sum_exp_pool2d",
    "log_sum_exp_pool3d",
]


@overridable
def log_sum_exp_pool2d(
    input: Tensor, lam: Tensor | float, kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""Log-sum-exp pooling: the logarithm of the mean exponential of each window.

    .. math:: y = \frac{1}{\lambda} \log \frac{1}{n} \sum_i e^{\lambda x_i}

    :math:`\lambda \to 0` is average pooling, computed as such at 0, :math:`\lambda \to \infty`
    max pooling, :math:`\lambda \to -\infty` min pooling. y is the mean of what Max-Ent pooling
    gives for λ between 0 and this λ, and its gradient is that pooling's weights. A NaN or an
    infinite element makes it NaN. A λ that is infinite, or so large that twice λ is, may make it
    and its gradients NaN.

    Source: P. O. Pinheiro, R. Collobert, "From Image-Level to Pixel-Level Labeling with
    Convolutional Networks", CVPR 2015.

    Arguments, shapes, types and errors are those of :func:`gfgp_cupy.functional.max_ent_pool2d`.

    Example:
        >>> x = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> [round(log_sum_exp_pool2d(x, lam, 2).item(), 4) for lam in (0.0, 1.0, 1000.0)]
        [1.5, 2.0539, 2.9986]
    """
    return pool_windows(
        LOG_SUM_EXP, input, lam, kernel_size, stride, padding, ceil_mode, count_include_pad, axes
    )


def _composition(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    return log_mean_exp(input.to(lam.dtype), lam, geometry).to(input.dtype)


LOG_SUM_EXP = register(
    WindowFunction(
        name="log_sum_exp",
        parameter="lam",
        composition=_composition,
        cuda="log_sum_exp.cu",
        cpu="gfgp_cupy.backends.numba.functions.log_sum_exp",
        spread="root",
    )
)


def log_mean_exp(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """(1/λ) log mean exp(λ x) of each window of 4-D ``input``, of ``lam``'s type.

    It is taken relative to an element r of the window, its maximum (its minimum where λ < 0), so
    that no exponent is positive. What comes of that, c, has the rounding errors of numbers of r's
    size; taken again relative to c, a constant, the logarithm is near 0 and exact.
    """
    elements, inside = windows(input, geometry)
    reference = _extreme_element(input.detach(), lam, geometry)
    centre = reference + _relative_to(reference, elements.detach(), inside, lam.detach())
    # The centre first: the sum takes its memory format, which is the input's.
    return centre + _relative_to(centre, elements, inside, lam)


def _relative_to(origin: Tensor, elements: Tensor, inside: Tensor, lam: Tensor) -> Tensor:
    """(1/λ) log mean exp(λ (x − origin)).

    Where all exponents are small the quotient of small numbers gives way to its series in the
    cumulants κ of the window: κ₁ + λ κ₂/2 + λ² κ₃/6 + λ³ κ₄/24.
    """
    deviation = torch.where(inside, elements - origin, 0)
    exponent = lam * deviation
    count = inside.sum(0)

    # Here the series and the quotient both keep about three quarters of the digits in λ's gradient.
    small = exponent.detach().abs().amax(0) < torch.finfo(lam.dtype).eps ** (1 / 4)
    quotient = torch.log1p(_expm1(exponent).sum(0) / count) / torch.where(small, 1, lam)
    # Zeros where the quotient is taken: a power that overflows would make its gradient NaN.
    series = _cumulant_series(torch.where(small, deviation, 0), lam, count)
    return torch.where(small, series, quotient)


def _expm1(exponent: Tensor) -> Tensor:
    if is_tracing() and torch.onnx.is_in_onnx_export():
        # ONNX has no such operator; this form is as exact.
        return torch.tanh(exponent / 2) * (exponent.exp() + 1)
    # PyTorch derives expm1 as its result + 1, which is 0 where the exponential is small.
    return torch.where(exponent < -1, exponent.exp() - 1, torch.expm1(exponent))


def _extreme_element(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    largest, smallest = (sign * largest_of_windows(sign * input, geometry) for sign in (1, -1))
    # NaN where one is infinite: an exponential that is 0 would show in nothing.
    return torch.where(lam < 0, smallest, largest) + ((smallest - smallest) + (largest - largest))


def _cumulant_series(deviation: Tensor, lam: Tensor, count: Tensor) -> Tensor:
    # Moments of the deviations d times powers of the small λ d: no power of d or λ, which could
    # overflow, and be infinite times 0.
    exponent, power, moments = lam * deviation, deviation, []
    for _ in range(4):
        moments.append(power.sum(0) / count)
        power = power * exponent
    mean, second, third, fourth = moments  # E d, λ E d², λ² E d³, λ³ E d⁴
    small, of_second, of_third = lam * mean, lam * second, lam * third
    variance = second - mean * small
    third_cumulant = third - mean * (3 * of_second - 2 * small**2)
    fourth_cumulant = (
        fourth
        - 3 * second * of_second
        - mean * (4 * of_third - 12 * small * of_second + 6 * small**3)
    )
    return mean + variance / 2 + third_cumulant / 6 + fourth_cumulant / 24


class LogSumExpPool2d(LearnedLambdaPool2d):
    """Log-sum-exp pooling with a λ of its own; see :func:`log_sum_exp_pool2d`.

    The arguments and the attribute ``lam`` are those of :class:`gfgp_cupy.MaxEntPool2d`.

    Example:
        >>> pool = LogSumExpPool2d(kernel_size=2, num_features=16)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        return log_sum_exp_pool2d(
            input, self.lam, *self.window, self.count_include_pad, axes=self.axes
        )


class GFGPLogSumExpPool2d(GuidedPool2d):
    """Log-sum-exp pooling whose λ > 0 a GFGP head predicts per sample and channel.

    λ is the softplus of the head's output. See :class:`gfgp_cupy.poolings.GuidedPool2d` for the
    arguments and :func:`log_sum_exp_pool2d` for the pooling.

    Example:
        >>> pool = GFGPLogSumExpPool2d(64, kernel_size=3, stride=2, padding=1)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    activation = nn.Softplus
    function = LOG_SUM_EXP


log_sum_exp_pool1d, log_sum_exp_pool3d = for_lines_and_volumes(log_sum_exp_pool2d)


class LogSumExpPool1d(LogSumExpPool2d, axes=1): ...


class LogSumExpPool3d(LogSumExpPool2d, axes=3): ...


class GFGPLogSumExpPool1d(GFGPLogSumExpPool2d, axes=1): ...


class GFGPLogSumExpPool3d(GFGPLogSumExpPool2d, axes=3): ...
