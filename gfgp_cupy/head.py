"""The GFGP head: what predicts a pooling's parameter from the global mean of its input."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .arguments import check_width
from .functional import autocasts

__all__ = ["check_head_input", "gfgp_head", "outside_autocast", "reset_head"]


def gfgp_head(
    num_features: int,
    activation: nn.Module,
    hidden_features: int | None = None,
    device=None,
    dtype=None,
) -> nn.Sequential:
    r"""act(BN(W₂ relu(BN(W₁ mean)))): means [N, C, 1, 1] to one parameter per sample and channel.

    Source: T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019.

    Args:
        num_features: number of channels C.
        activation: brings the parameter into its range.
        hidden_features: width of the hidden layer. Default: half of ``num_features``.
        device, dtype: of the tensors.

    Raises:
        TypeError: a width that is no int.
        ValueError: a width below 1.
    """
    check_width("num_features", num_features)
    if hidden_features is None:
        hidden_features = max(1, num_features // 2)
    check_width("hidden_features", hidden_features)
    options = {"device": device, "dtype": dtype}
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(num_features, hidden_features, kernel_size=1, **options),
        norm1=nn.BatchNorm2d(hidden_features, **options),
        relu=nn.ReLU(),
        conv2=nn.Conv2d(hidden_features, num_features, kernel_size=1, **options),
        norm2=nn.BatchNorm2d(num_features, **options),
        activation=activation,
    ))


def reset_head(head: nn.Sequential) -> None:
    """Draws the head's weights anew, as PyTorch's own layers do."""
    for module in head:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def outside_autocast(
    head: nn.Sequential, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """``head`` to be called with a mean on ``device``, always computed in the head's own type.

    It is too small to gain from half precision, and its parameter shapes every window.
    """
    if not autocasts(device):
        return head

    def in_own_type(mean: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            return head(mean.to(next(head.parameters()).dtype))

    return in_own_type


def check_head_input(head: nn.Sequential, num_features: int, input: Tensor) -> None:
    """Checks a guided layer's input before the head's statistics see it.

    Raises:
        TypeError: ``input`` is no tensor.
        ValueError: not [N, C, H, W] or [C, H, W] with C = ``num_features``, or one sample in
            training: the BatchNorms have one value a channel and sample.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor, got {type(input).__name__}")
    if input.dim() not in (3, 4) or input.shape[-3] != num_features:
        raise ValueError(
            f"input must be [N, C, H, W] or [C, H, W] with C = num_features = "
            f"{num_features}, got shape {tuple(input.shape)}"
        )
    # SyncBatchNorm gathers its statistics over processes and is no BatchNorm2d.
    alone = input.dim() == 3 or input.shape[0] == 1
    if alone and any(
        isinstance(module, nn.BatchNorm2d) and module.training for module in head
    ):
        raise ValueError(
            "a GFGP head cannot train on a batch of one sample: its BatchNorm sees one "
            "value a channel and sample. Use at least 2 samples a process, SyncBatchNorm, or "
            f"eval() mode; got input of shape {tuple(input.shape)}"
        )
