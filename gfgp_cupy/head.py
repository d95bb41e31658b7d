"""The GFGP head: what predicts a pooling's parameter from the global mean of its input."""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor  # no public name, but documented
from torch.types import Device

from .arguments import check_width
from .autocast import autocasts
from .geometry import NAMES_OF_AXES
from .norms import make_norm
from .torchscript import is_tracing, sizes_of

__all__ = [
    "PointConv2d",
    "check_head_input",
    "gfgp_head",
    "mean_as_published",
    "outside_autocast",
    "reset_head",
]

FEW_SAMPLES = 8


class PointConv2d(nn.Conv2d):
    """A 1×1 convolution of maps of one point each, as the matrix product that it is.

    cuDNN's convolutions round float32 to TF32's ten bits unless told otherwise, which moves λ by
    2.5e-3; matrix products do so only where the caller asked for it
    (``torch.set_float32_matmul_precision``, ``torch.backends.cuda.matmul``).

    Args:
        in_channels, out_channels, kernel_size, …: as for ``nn.Conv2d``, for kernels of one point.

    Shape:
        - input: [N, C, 1, 1].
        - output: [N, out_channels, 1, 1].

    Raises:
        ValueError: an input of another shape.

    Example:
        >>> PointConv2d(8, 4, kernel_size=1)(torch.ones(2, 8, 1, 1)).shape
        torch.Size([2, 4, 1, 1])
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4 or sizes_of(input)[2:] != (1, 1):
            raise ValueError(
                "input must be [N, C, 1, 1], one mean a sample and channel, got shape "
                f"{tuple(sizes_of(input))}: take the mean over height and width first"
            )
        # Views whose backward gives the gradient the weight's own strides: DDP warns of others.
        channels_last = self.weight.stride(3) > 1
        weight = self.weight.permute(0, 2, 3, 1) if channels_last else self.weight
        output = F.linear(input.view(input.shape[:2]), weight.flatten(1), self.bias)
        # One view, for which autograd has one node: of [:, :, None, None] it has two.
        return output.view(*output.shape, 1, 1)


def gfgp_head(
    num_features: int,
    activation: nn.Module,
    hidden_features: int | None = None,
    norm_layer: Callable[[int], nn.Module] | None = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    r"""act(BN(W₂ relu(BN(W₁ mean)))): means [N, C, 1, 1] to one parameter per sample and channel.

    Source: T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019.

    Args:
        num_features: number of channels C.
        activation: brings the parameter into its range.
        hidden_features: width of the hidden layer. Default: half of ``num_features``.
        norm_layer: makes a norm of so many features in BN's place.
        device, dtype: of the tensors.

    Raises:
        TypeError: a width that is no int, or a ``norm_layer`` that makes no module.
        ValueError: a width below 1.
    """
    hidden_features = hidden_width(num_features, hidden_features)
    linear = partial(PointConv2d, kernel_size=1, device=device, dtype=dtype)
    norm = partial(make_norm, norm_layer, device=device, dtype=dtype)
    return nn.Sequential(
        OrderedDict(
            conv1=linear(num_features, hidden_features),
            norm1=norm(hidden_features),
            relu=nn.ReLU(),
            conv2=linear(hidden_features, num_features),
            norm2=norm(num_features),
            activation=activation,
        )
    )


def hidden_width(num_features: int, hidden_features: int | None) -> int:
    """The width of a head's hidden layer, by default half of ``num_features``.

    Raises:
        TypeError: a width that is no int.
        ValueError: a width below 1.
    """
    check_width("num_features", num_features)
    if hidden_features is None:
        return max(1, num_features // 2)
    check_width("hidden_features", hidden_features)
    return hidden_features


def reset_head(head: nn.Module) -> None:
    """Draws the head's weights anew, as PyTorch's own layers do."""
    for module in head.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()


def outside_autocast(head: nn.Module, device: torch.device) -> Callable[..., Any]:
    """``head`` to be called with a mean on ``device``, always computed in the head's own type.

    It is too small to gain from half precision, and its parameter shapes every window. What else
    it takes is passed on.
    """
    if not autocasts(device):
        return head

    def in_own_type(mean: Tensor, *others: object) -> Any:
        with torch.autocast(device.type, enabled=False):
            return head(mean.to(_dtype_of(head, mean)), *others)

    return in_own_type


def _dtype_of(head: nn.Module, mean: Tensor) -> torch.dtype:
    """That of the head's parameters; of one without any, that of ``mean``."""
    for module in head.modules():
        # Where DataParallel's replicas have theirs.
        replicated: dict[str, Tensor] = getattr(module, "_former_parameters", {})
        for parameter in (*module.parameters(recurse=False), *replicated.values()):
            return parameter.dtype
    return mean.dtype


def mean_as_published(axes: int) -> nn.Module:
    """The published layers' first step, from input with so many axes to its mean [N, C, 1, 1]."""
    if axes == 1:
        return nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Unflatten(2, (1, 1)))
    if axes == 3:
        return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(3))
    return nn.AdaptiveAvgPool2d(1)


def check_head_input(
    head: nn.Module,
    num_features: int,
    input: Tensor,
    advice: Callable[[int], str],
    axes: int = 2,
) -> None:
    """Checks a guided layer's input before the head's statistics see it.

    Args:
        head, num_features: of the layer.
        input: of the layer.
        advice: what to do where the input's number of channels, which it is given, does not fit.
        axes: that the layer's windows have.

    Raises:
        TypeError: ``input`` is no tensor.
        ValueError: not [N, C, H, W] or [C, H, W] with C = ``num_features``, or one sample in
            training: BatchNorms have one value a channel and sample.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor, got {type(input).__name__}")
    channel, dimensions = -1 - axes, input.dim()
    # No tuple to look into: PyTorch 2.6 compiles "in" wrongly where ``axes`` is dynamic.
    fits = axes < dimensions <= axes + 2
    if not fits or sizes_of(input)[channel] != num_features:
        shape, names = tuple(sizes_of(input)), NAMES_OF_AXES[axes]
        way_out = f": {advice(shape[channel])}" if fits else ""
        if 1 < axes == dimensions - 1 and shape[1] == num_features:
            fewer = NAMES_OF_AXES[axes - 1]
            way_out += f"; if it is [N, C, {fewer}], that takes a layer of {axes - 1}-d windows"
        raise ValueError(
            f"input must be [N, C, {names}] or [C, {names}] with C = num_features = "
            f"{num_features}, got shape {shape}{way_out}"
        )
    samples = sizes_of(input)[0] if dimensions == axes + 2 else 1
    if samples == 1:
        if _trains_batch_norm(head):
            raise ValueError(
                "a GFGP head cannot train on a batch of one sample: its BatchNorm sees one "
                "value a channel and sample. Use at least 2 samples a process (a DataLoader with "
                "drop_last=True has no smaller last batch), norm_layer=gfgp_cupy.norms."
                "LayerNorm2d, eval() mode or, where several processes train, SyncBatchNorm; got "
                f"input of shape {tuple(sizes_of(input))}"
            )
    # What is compiled is compiled for any number of samples: they are not to be compared there. A
    # network that is run without data trains on nothing.
    elif (
        head.training
        and not (torch.compiler.is_compiling() or is_tracing())
        and samples < FEW_SAMPLES
        and _trains_batch_norm(head)
        and not isinstance(input, FakeTensor)
    ):
        warn_of_few_samples(axes)


def _trains_batch_norm(head: nn.Module) -> bool:
    # SyncBatchNorm gathers its statistics over processes and is no BatchNorm2d.
    return any(isinstance(module, nn.BatchNorm2d) and module.training for module in head.modules())


@functools.cache  # once a process: Python would tell it again whenever its filters have changed
def warn_of_few_samples(axes: int) -> None:
    """Warns that a head's BatchNorm, in a layer of so many axes, has too few samples."""
    warnings.warn(
        f"a GFGP head's BatchNorm trains on fewer than {FEW_SAMPLES} samples a process, and its "
        "statistics are chance (of 2 samples, one gets a high and one a low parameter): train on "
        "more samples at a time, pass norm_layer=gfgp_cupy.norms.LayerNorm2d to the pooling "
        f"(replace_pooling takes a class with it, such as functools.partial(GFGPMaxEntPool{axes}d, "
        "norm_layer=LayerNorm2d)) or, where several processes train, convert to SyncBatchNorm",
        stacklevel=2,
    )
