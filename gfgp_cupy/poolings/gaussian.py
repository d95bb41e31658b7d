"""Gaussian pooling: the mean of each window and a multiple of its standard deviation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.types import Device

from ..arguments import check_input
from ..autocast import mean_dtype
from ..autograd import register
from ..geometry import PoolGeometry
from ..guided import HeadPool2d
from ..head import PointConv2d, hidden_width, outside_autocast
from ..norms import make_norm
from ..overrides import overridable
from ..padding import window_geometry
from ..published_names import GAUSSIAN_NAMES, takes_published_names
from ..reference import average_of_windows, windows
from ..window_function import WindowFunction
from ..window_pooling import pool_windows

__all__ = ["GFGPGaussianPool2d", "GaussianHead", "gaussian_pool2d"]

LEAST_VARIANCE = 1e-6
STOCHASTICITIES = ("HWCN", "CN", None)


@overridable
def gaussian_pool2d(
    input: Tensor, weight: Tensor | float, kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None, padding: int | tuple[int, int] | str = 0,
    ceil_mode: bool = False, count_include_pad: bool = False, eps: float = LEAST_VARIANCE,
) -> Tensor:  # fmt: skip
    r"""Gaussian pooling: a window's mean and ``weight`` times its standard deviation.

    .. math:: y = \mu + w\,\sigma, \qquad \mu = \frac{1}{n} \sum_i x_i, \qquad
              \sigma = \sqrt{\max\Bigl(\frac{1}{n} \sum_i (x_i - \mu)^2, \varepsilon\Bigr)}

    w = 0 is average pooling. Where the variance is below ε, σ is a constant without a gradient.

    Source: T. Kobayashi, "Gaussian-Based Pooling for Convolutional Neural Networks", NeurIPS 2019.

    Args:
        input: [N, C, H, W] or [C, H, W], of a floating-point type.
        weight: w, a floating-point tensor that broadcasts to the output [N, C, oH, oW], or a
            number.
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in
            :func:`gfgp_cupy.functional.max_ent_pool2d`.
        eps: ε, the least variance.

    Returns:
        [N, C, oH, oW] or [C, oH, oW], of the input's type and memory format. Half types are
        computed in float32.

    Raises:
        TypeError, ValueError: as :func:`gfgp_cupy.functional.max_ent_pool2d`, ``weight`` in λ's
            place.

    Example:
        >>> x = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> gaussian_pool2d(x, 1.0, kernel_size=2)
        tensor([[[2.6180]]])
    """
    return pool_windows(
        GAUSSIAN.with_constant(eps), input, weight, kernel_size, stride, padding, ceil_mode,
        count_include_pad,
    )  # fmt: skip


def _composition(input: Tensor, weight: Tensor, geometry: PoolGeometry, eps: float) -> Tensor:
    mean, variance = _moments(input.to(weight.dtype), geometry)
    return (mean + weight * variance.clamp(min=eps).sqrt()).to(input.dtype)


GAUSSIAN = register(
    WindowFunction(
        name="gaussian", parameter="weight", composition=_composition, constant=LEAST_VARIANCE
    )
)


def _moments(input: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor]:
    """Mean and variance of the elements that each window has inside 4-D ``input``."""
    elements, inside = windows(input, geometry)
    mean = average_of_windows(input, geometry)
    deviations = torch.where(inside, elements - mean, 0)
    return mean, deviations.square().sum(0) / inside.sum(0)


class GaussianHead(nn.Module):
    r"""What predicts w from the mean of the whole feature map, as a mean M and a deviation S.

    .. math:: h = \mathrm{relu}(\mathrm{BN}(W_1\, \mathrm{mean}_{hw}(x))), \qquad
              M = \mathrm{BN}(W_M h), \qquad S = \mathrm{sigmoid}(\mathrm{BN}(W_S h))

    Args:
        num_features: number of channels C.
        hidden_features: width of h.
        norm_layer: makes a norm of so many features in BN's place.
        device, dtype: of the tensors.
    """

    def __init__(
        self, num_features: int, hidden_features: int,
        norm_layer: Callable[[int], nn.Module] | None = None, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        linear = partial(PointConv2d, kernel_size=1, device=device, dtype=dtype)
        norm = partial(make_norm, norm_layer, device=device, dtype=dtype)
        self.conv1 = linear(num_features, hidden_features)
        self.norm1 = norm(hidden_features)
        self.relu = nn.ReLU()
        self.mean = nn.Sequential(
            OrderedDict(conv=linear(hidden_features, num_features), norm=norm(num_features))
        )
        self.deviation = nn.Sequential(
            OrderedDict(
                conv=linear(hidden_features, num_features),
                norm=norm(num_features),
                sigmoid=nn.Sigmoid(),
            )
        )

    def forward(self, mean: Tensor, with_deviation: bool = True) -> tuple[Tensor, Tensor | None]:
        """M and S, both [N, C, 1, 1], of the map's ``mean`` of that shape; S None if not asked."""
        hidden = self.relu(self.norm1(self.conv1(mean)))
        return self.mean(hidden), self.deviation(hidden) if with_deviation else None


class GFGPGaussianPool2d(HeadPool2d):
    r"""Gaussian pooling (iSP) whose weight a small head predicts from the whole feature map.

    .. math:: w = \mathrm{softplus}(M + S\,\epsilon)

    with standard normal :math:`\epsilon` from PyTorch's generator in training, and with
    :math:`\epsilon = 0` in evaluation; :class:`GaussianHead` predicts M and S. It is composed of
    PyTorch operators. The state dict loads the published implementation's tensor names too
    (``ToHidden.1.weight`` …). Source: T. Kobayashi, "Gaussian-Based Pooling for Convolutional
    Neural Networks", NeurIPS 2019.

    Args:
        num_features: number of channels C.
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel; or ``"same"``.
        ceil_mode: round the output size up instead of down.
        hidden_features: width of the head's hidden layer. Default: half of ``num_features``.
        stochasticity: one ε per sample and channel (``"CN"``), or per window (``"HWCN"``), or
            none (``None``).
        count_include_pad, eps: as in :func:`gaussian_pool2d`.
        norm_layer: makes a norm of so many features in place of the head's BN; see
            :class:`gfgp_cupy.GFGPMaxEntPool2d`.
        device, dtype: of the head's tensors.

    Shape:
        - input: [N, C, H, W], or [C, H, W] in evaluation mode.
        - output: [N, C, oH, oW] or [C, oH, oW], sized as by ``max_pool2d``, or as
          ``"same"`` has it.

    Raises:
        TypeError: an input that :func:`gaussian_pool2d` does not take.
        ValueError: an argument out of range, an input whose channels are not ``num_features``, or
            a training batch of one sample (the head's BatchNorm has one value a channel and
            sample, so it needs at least two samples a process).

    Attributes:
        head: the :class:`GaussianHead`.

    Example:
        >>> pool = GFGPGaussianPool2d(64, kernel_size=3, stride=2, padding=1)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    shown = ("hidden_features", "stochasticity", "eps")
    published_names = GAUSSIAN_NAMES
    head: GaussianHead

    def __init__(
        self, num_features: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None, padding: int | tuple[int, int] | str = 0,
        ceil_mode: bool = False, hidden_features: int | None = None,
        stochasticity: str | None = "CN", count_include_pad: bool = False,
        eps: float = LEAST_VARIANCE, norm_layer: Callable[[int], nn.Module] | None = None,
        device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        if stochasticity not in STOCHASTICITIES:
            raise ValueError(f"stochasticity must be 'HWCN', 'CN' or None, got {stochasticity!r}")
        self.num_features = num_features
        self.hidden_features = hidden_width(num_features, hidden_features)
        self.stochasticity = stochasticity
        self.eps = eps
        self.head = GaussianHead(num_features, self.hidden_features, norm_layer, device, dtype)
        takes_published_names(self)

    @property
    def ToHidden(self) -> nn.Sequential:
        """The head up to its hidden layer under the published name; its own modules, no copies."""
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), self.head.conv1, self.head.norm1, self.head.relu
        )

    @property
    def ToMean(self) -> nn.Sequential:
        """The head's ``mean`` under the published name."""
        return nn.Sequential(*self.head.mean)

    @property
    def ToSigma(self) -> nn.Sequential:
        """The head's ``deviation`` under the published name."""
        return nn.Sequential(*self.head.deviation)

    def pool_guided(self, input: Tensor) -> Tensor:
        geometry = window_geometry(*self.window)
        batched, _ = check_input(input, geometry)
        head = outside_autocast(self.head, input.device)
        mean, deviation = head(
            batched.mean((2, 3), keepdim=True, dtype=mean_dtype(batched)),
            self.training and self.stochasticity is not None,
        )
        if deviation is not None:
            shape = mean.shape
            if self.stochasticity == "HWCN":
                shape = (*shape[:2], *geometry.output_size(*batched.shape[2:]))
            mean = mean + deviation * torch.randn(shape, dtype=mean.dtype, device=mean.device)
        output = gaussian_pool2d(
            batched, F.softplus(mean), *self.window, self.count_include_pad, self.eps
        )
        return output if input.dim() == 4 else output.squeeze(0)
