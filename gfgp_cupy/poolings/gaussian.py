"""Gaussian pooling layers: the mean of each window and a multiple of its standard deviation."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.types import Device

from ..arguments import check_first_value
from ..autocast import mean_dtype
from ..autograd import mean_of_planes
from ..bins import Bins
from ..functional import gaussian_pool1d, gaussian_pool2d, gaussian_pool3d
from ..gaussian import GAUSSIAN, LEAST_VARIANCE
from ..geometry import Sizes
from ..guided import HeadPool2d
from ..head import PointConv2d, hidden_width, mean_as_published, outside_autocast
from ..learned import LearnedPool2d
from ..norms import make_norm
from ..padding import place_windows
from ..published_names import GAUSSIAN_NAMES, takes_published_names
from ..window_function import check_eps
from ..window_pooling import pool_guided, pool_windows

__all__ = [
    "GFGPGaussianPool1d",
    "GFGPGaussianPool2d",
    "GFGPGaussianPool3d",
    "GaussianHead",
    "GaussianPool1d",
    "GaussianPool2d",
    "GaussianPool3d",
    "gaussian_pool1d",
    "gaussian_pool2d",
    "gaussian_pool3d",
]

STOCHASTICITIES = ("HWCN", "CN", None)


class GaussianPool2d(LearnedPool2d):
    """Gaussian pooling with a weight of its own; see :func:`gfgp_cupy.functional.gaussian_pool2d`.

    The weight may become negative while it is learned: then the result is below the mean.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function.
        num_features: number of channels C, for one weight a channel; ``None`` for one in all.
        init_weight: the value that the weight starts from; by default softplus(0), as a guided
            layer's does.
        learnable: whether the weight is a parameter; otherwise it is a buffer.
        eps: the least variance, above 0.
        device, dtype: of the weight.

    Attributes:
        weight: w, of shape [1, C, 1, 1] or [1, 1, 1, 1].

    Example:
        >>> pool = GaussianPool2d(kernel_size=2, num_features=16)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    parameter_name = "weight"
    shown = ("num_features", "init_weight", "learnable", "eps")
    weight: Tensor

    def __init__(
        self, kernel_size: int | Sizes, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        num_features: int | None = None, init_weight: float = math.log(2), learnable: bool = True,
        count_include_pad: bool = False, eps: float = LEAST_VARIANCE, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        check_eps(eps)
        check_first_value("init_weight", init_weight, dtype)
        self.init_weight = init_weight
        self.eps = float(eps)
        self.add_parameter(num_features, learnable, device, dtype)
        self.reset_parameters()

    def initial_value(self) -> float:
        return self.init_weight

    def forward(self, input: Tensor) -> Tensor:
        return gaussian_pool2d(
            input, self.weight, *self.window, self.count_include_pad, self.eps, axes=self.axes
        )


class GaussianHead(nn.Module):
    r"""What predicts w from the mean of the whole feature map, by a mean M and a deviation S.

    .. math:: w = \mathrm{softplus}(M + S\,\epsilon), \qquad M = \mathrm{BN}(W_M h), \qquad
              S = \mathrm{sigmoid}(\mathrm{BN}(W_S h)), \qquad
              h = \mathrm{relu}(\mathrm{BN}(W_1\, \mathrm{mean}_{hw}(x)))

    Args:
        num_features: number of channels C.
        hidden_features: width of h.
        norm_layer: makes a norm of so many features in BN's place.
        device, dtype: of the tensors.

    Shape:
        - input: the mean [N, C, 1, 1], and in training the noise's size: (1, 1) for one ε a sample
          and channel, (oH, oW) for one a window.
        - output: [N, C, 1, 1], or [N, C] and the noise's size.

    Raises:
        TypeError: a ``norm_layer`` that makes no module.

    Example:
        >>> GaussianHead(num_features=8, hidden_features=4)(torch.randn(2, 8, 1, 1)).shape
        torch.Size([2, 8, 1, 1])
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

    def forward(self, mean: Tensor, noise_size: Sizes | None = None) -> Tensor:
        """w [N, C, 1, 1] of the map's ``mean`` of that shape, or [N, C, *noise_size] with ε for
        each element of it; ``None``: ε = 0, and S is not computed."""
        hidden = self.relu(self.norm1(self.conv1(mean)))
        logit = self.mean(hidden)
        if noise_size is not None:
            shape = (*logit.shape[:2], *noise_size)
            noise = torch.randn(shape, dtype=logit.dtype, device=logit.device)
            own = (*logit.shape[:2], *(1,) * len(noise_size))
            logit = logit.view(own) + self.deviation(hidden).view(own) * noise
        return F.softplus(logit)


class GFGPGaussianPool2d(HeadPool2d):
    r"""Gaussian pooling (iSP) whose weight a small head predicts from the whole feature map.

    .. math:: w = \mathrm{softplus}(M + S\,\epsilon)

    with standard normal :math:`\epsilon` from PyTorch's generator in training, and with
    :math:`\epsilon = 0` in evaluation; :class:`GaussianHead` predicts M and S. With one w per
    sample and channel the backward pass is fused, see
    :func:`gfgp_cupy.functional.guided_max_ent_pool2d`. The state dict loads the published
    implementation's tensor names too (``ToHidden.1.weight`` …). Source: T. Kobayashi,
    "Gaussian-Based Pooling for Convolutional Neural Networks", NeurIPS 2019.

    Args:
        num_features: number of channels C.
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel; or ``"same"``.
        ceil_mode: round the output size up instead of down.
        hidden_features: width of the head's hidden layer. Default: half of ``num_features``.
        stochasticity: one ε per sample and channel (``"CN"``), or per window (``"HWCN"``), or
            none (``None``). Without any, S is not computed and its weights, which the state
            dict has nevertheless, get no gradient: ``DistributedDataParallel`` then takes
            ``find_unused_parameters=True``.
        count_include_pad, eps: as in :func:`gfgp_cupy.functional.gaussian_pool2d`.
        norm_layer: makes a norm of so many features in place of the head's BN; see
            :class:`gfgp_cupy.GFGPMaxEntPool2d`.
        device, dtype: of the head's tensors.

    Shape:
        - input: [N, C, H, W], or [C, H, W] in evaluation mode.
        - output: [N, C, oH, oW] or [C, oH, oW], sized as by ``max_pool2d``, or as
          ``"same"`` has it.

    Raises:
        TypeError: an input that :func:`gfgp_cupy.functional.gaussian_pool2d` does not take.
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
        self, num_features: int, kernel_size: int | Sizes,
        stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
        ceil_mode: bool = False, hidden_features: int | None = None,
        stochasticity: str | None = "CN", count_include_pad: bool = False,
        eps: float = LEAST_VARIANCE, norm_layer: Callable[[int], nn.Module] | None = None,
        device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        if stochasticity not in STOCHASTICITIES:
            raise ValueError(f"stochasticity must be 'HWCN', 'CN' or None, got {stochasticity!r}")
        check_eps(eps)
        self.num_features = num_features
        self.hidden_features = hidden_width(num_features, hidden_features)
        self.stochasticity = stochasticity
        self.eps = float(eps)
        self.head = GaussianHead(num_features, self.hidden_features, norm_layer, device, dtype)
        takes_published_names(self)

    @property
    def ToHidden(self) -> nn.Sequential:
        """The head up to its hidden layer under the published name; its own modules, no copies."""
        return nn.Sequential(
            mean_as_published(self.axes), self.head.conv1, self.head.norm1, self.head.relu
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
        function = GAUSSIAN.with_constant(self.eps)
        window = (*self.window, self.count_include_pad)
        head = outside_autocast(self.head, input.device)
        stochasticity = self.stochasticity if self.training else None
        if stochasticity != "HWCN":
            noise_size = None if stochasticity is None else (1, 1)
            return pool_guided(
                function, input, lambda mean: head(mean, noise_size), *window, axes=self.axes
            )
        # The fused path is for one parameter a plane.
        batched = input if input.dim() == self.axes + 2 else input.unsqueeze(0)
        planes = batched.unsqueeze(2) if self.axes == 1 else batched
        if isinstance(self.kernel_size, Bins):
            size = self.kernel_size.output_size(*batched.shape[2:])
        else:
            size = place_windows(batched, *window, axes=self.axes).output_size()
        weight = head(mean_of_planes(planes, mean_dtype(batched)), size)
        output = pool_windows(function, batched, weight, *window, axes=self.axes)
        return output if batched is input else output.squeeze(0)


class GaussianPool1d(GaussianPool2d, axes=1): ...


class GaussianPool3d(GaussianPool2d, axes=3): ...


class GFGPGaussianPool1d(GFGPGaussianPool2d, axes=1): ...


class GFGPGaussianPool3d(GFGPGaussianPool2d, axes=3): ...
