"""Maximum-entropy and Gaussian pooling as functions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .axes import for_lines_and_volumes
from .bins import adaptive_windows
from .gaussian import GAUSSIAN, LEAST_VARIANCE
from .geometry import Sizes
from .max_ent import MAX_ENT
from .overrides import overridable
from .window_function import check_eps
from .window_pooling import pool_guided, pool_windows

__all__ = [
    "adaptive_max_ent_pool1d",
    "adaptive_max_ent_pool2d",
    "adaptive_max_ent_pool3d",
    "adaptive_windows",
    "gaussian_pool1d",
    "gaussian_pool2d",
    "gaussian_pool3d",
    "guided_max_ent_pool1d",
    "guided_max_ent_pool2d",
    "guided_max_ent_pool3d",
    "max_ent_pool1d",
    "max_ent_pool2d",
    "max_ent_pool3d",
]


@overridable
def max_ent_pool2d(
    input: Tensor, lam: Tensor | float, kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""Maximum-entropy pooling: the softmax-weighted mean of each window.

    .. math:: y = \sum_i p_i x_i, \qquad p_i = e^{\lambda x_i} / \sum_j e^{\lambda x_j}

    :math:`\lambda = 0` is average pooling, :math:`\lambda \to \infty` max
    pooling, :math:`\lambda \to -\infty` min pooling. The result always lies between the smallest
    and the largest element of its window. It is NaN where an element or :math:`\lambda` is NaN or
    infinite, or so large that the difference of two elements, or twice :math:`\lambda`, is.

    Source: T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019.

    Args:
        input: [N, C, H, W] or [C, H, W]; float16, bfloat16, float32 or float64. The result keeps
            its type and memory format. Half types are computed in float32.
        lam: :math:`\lambda`, a floating-point tensor that broadcasts to the output
            [N, C, oH, oW] (for [C, H, W] input to [1, C, oH, oW]), or a number. Used in float32
            (float64 for float64 input) whatever its own type; its gradient has its shape and type.
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel; or ``"same"``,
            TensorFlow's: ceil(size / stride) windows, for which
            max((oH − 1) · stride + kernel − H, 0) rows of padding are needed, the smaller half of
            them above; columns likewise.
        ceil_mode: round the output size up instead of down. Changes nothing with ``"same"``.
        count_include_pad: whether the padding takes part, as zeros, as in ``avg_pool2d`` by
            default. What of a window reaches beyond the padding never does.
        axes: that windows have. ``max_ent_pool1d`` and ``max_ent_pool3d`` are this function with
            1 and 3: of [N, C, L] and [N, C, D, H, W].

    Returns:
        [N, C, oH, oW] or [C, oH, oW], sized as by ``torch.nn.functional.max_pool2d``, or as
        ``"same"`` has it.

    Raises:
        TypeError: an argument is of another type or dtype than those named above.
        ValueError: wrong rank, sizes out of range, an empty output, ``lam`` that does not
            broadcast or is a number beyond the range of the type that it is used in, or tensors on
            different devices.

    Example:
        >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> max_ent_pool2d(x, 0.0, kernel_size=2)
        tensor([[[[ 2.5000,  4.5000],
                  [10.5000, 12.5000]]]])
        >>> max_ent_pool2d(x, 100.0, kernel_size=2)
        tensor([[[[ 5.,  7.],
                  [13., 15.]]]])
    """
    return pool_windows(
        MAX_ENT, input, lam, kernel_size, stride, padding, ceil_mode, count_include_pad, axes
    )


@overridable
def adaptive_max_ent_pool2d(
    input: Tensor, lam: Tensor | float, output_size: int | tuple[int | None, ...] | None, *,
    axes: int = 2,
) -> Tensor:  # fmt: skip
    """:func:`max_ent_pool2d` with the windows of ``torch.nn.functional.adaptive_avg_pool2d``.

    Args:
        input, lam: as in :func:`max_ent_pool2d`.
        output_size: height and width of the output, an int or a pair; ``None`` for that of the
            input. 1 pools whole planes.
        axes: as in :func:`max_ent_pool2d`.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format.

    Raises:
        TypeError, ValueError: as :func:`max_ent_pool2d` and :func:`adaptive_windows`.

    Example:
        >>> x = torch.arange(6.0).reshape(1, 1, 2, 3)
        >>> adaptive_max_ent_pool2d(x, 0.0, output_size=(1, 2))
        tensor([[[[2., 3.]]]])
    """
    return pool_windows(MAX_ENT, input, lam, adaptive_windows(output_size), axes=axes)


@overridable
def guided_max_ent_pool2d(
    input: Tensor, head: Callable[[Tensor], Tensor], kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""Maximum-entropy pooling whose λ is made of the input's global mean.

    The same as ``max_ent_pool2d(input, head(input.mean((2, 3), keepdim=True)), …)``, but its
    backward pass writes the input's gradient once, where the composition writes it three times.
    It falls back to the composition where autograd cannot be told so: without gradients of the
    input, in a backward pass that is differentiated again, under ``torch.compile``, under
    ``torch.func`` transforms and in forward mode; and where padding counts. The mean is that of
    the input without padding.

    Source: T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019.

    Args:
        input: [N, C, H, W] or [C, H, W]; float16, bfloat16, float32 or float64.
        head: maps the mean, [N, C, 1, 1] of the input's type (N = 1 for [C, H, W] input), to λ,
            of any shape that broadcasts to [N, C, 1, 1]; so it is of lines and of volumes, too.
            Under autocast the mean of a half type is float32: what differs between samples may be
            less than its rounding.
        kernel_size, stride, padding, ceil_mode, count_include_pad: as in :func:`max_ent_pool2d`.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format.

    Raises:
        TypeError, ValueError: as :func:`max_ent_pool2d`; λ that varies inside a plane does not
            broadcast.

    Example:
        >>> x = torch.randn(2, 3, 8, 8, requires_grad=True)
        >>> guided_max_ent_pool2d(x, torch.sigmoid, kernel_size=2).shape
        torch.Size([2, 3, 4, 4])
    """
    return pool_guided(
        MAX_ENT, input, head, kernel_size, stride, padding, ceil_mode, count_include_pad, axes
    )


@overridable
def gaussian_pool2d(
    input: Tensor, weight: Tensor | float, kernel_size: int | Sizes,
    stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
    ceil_mode: bool = False, count_include_pad: bool = False, eps: float = LEAST_VARIANCE, *,
    axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""Gaussian pooling: a window's mean and ``weight`` times its standard deviation.

    .. math:: y = \mu + w\,\sigma, \qquad \mu = \frac{1}{n} \sum_i x_i, \qquad
              \sigma = \sqrt{\max\Bigl(\frac{1}{n} \sum_i (x_i - \mu)^2, \varepsilon\Bigr)}

    w = 0 is average pooling. Where the variance is below ε, σ is a constant without a gradient. The
    result is NaN where an element is NaN or infinite, and infinite or NaN where the square of an
    element's distance to μ overflows.

    Source: T. Kobayashi, "Gaussian-Based Pooling for Convolutional Neural Networks", NeurIPS 2019.

    Args:
        input: [N, C, H, W] or [C, H, W], of a floating-point type.
        weight: w, a floating-point tensor that broadcasts to the output [N, C, oH, oW], or a
            number.
        kernel_size, stride, padding, ceil_mode, count_include_pad: as in :func:`max_ent_pool2d`.
        eps: ε, the least variance, above 0 in float32.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format. Half types are
        computed in float32.

    Raises:
        TypeError, ValueError: as :func:`max_ent_pool2d`, ``weight`` in λ's place; ``eps`` that is
            not above 0.

    Example:
        >>> x = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> gaussian_pool2d(x, 1.0, kernel_size=2)
        tensor([[[2.6180]]])
    """
    check_eps(eps)
    return pool_windows(
        GAUSSIAN.with_constant(eps), input, weight, kernel_size, stride, padding, ceil_mode,
        count_include_pad, axes,
    )  # fmt: skip


max_ent_pool1d, max_ent_pool3d = for_lines_and_volumes(max_ent_pool2d)
adaptive_max_ent_pool1d, adaptive_max_ent_pool3d = for_lines_and_volumes(adaptive_max_ent_pool2d)
guided_max_ent_pool1d, guided_max_ent_pool3d = for_lines_and_volumes(guided_max_ent_pool2d)
gaussian_pool1d, gaussian_pool3d = for_lines_and_volumes(gaussian_pool2d)
