"""Maximum-entropy pooling layers: λ as a parameter, or predicted from the feature map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from .functional import max_ent_pool2d
from .geometry import Sizes
from .guided import GuidedPool2d, activation_by_name, activation_of
from .learned import LearnedLambdaPool2d
from .max_ent import MAX_ENT
from .published_names import MAX_ENT_NAMES, takes_published_names

__all__ = [
    "GFGPMaxEntPool1d",
    "GFGPMaxEntPool2d",
    "GFGPMaxEntPool3d",
    "MaxEntPool1d",
    "MaxEntPool2d",
    "MaxEntPool3d",
]


class MaxEntPool2d(LearnedLambdaPool2d):
    r"""Maximum-entropy pooling with a λ of its own, from average (0) to max pooling (∞).

    See :func:`gfgp_cupy.functional.max_ent_pool2d` for the formula, the shapes and the errors.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function.
        num_features: number of channels C, for one λ a channel; ``None`` for one λ in all.
        init_lambda: the value λ starts from, finite in its type.
        learnable: whether λ is a parameter; otherwise it is a buffer.
        device, dtype: of λ.

    Attributes:
        lam: λ, of shape [1, C, 1, 1] or [1, 1, 1, 1].

    Example:
        >>> pool = MaxEntPool2d(kernel_size=2, num_features=16)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        return max_ent_pool2d(input, self.lam, *self.window, self.count_include_pad, axes=self.axes)


class GFGPMaxEntPool2d(GuidedPool2d):
    r"""Maximum-entropy pooling whose λ a small head predicts from the whole feature map.

    .. math:: \lambda = \mathrm{act}(\mathrm{BN}(W_2\, \mathrm{relu}(\mathrm{BN}(W_1\,
              \mathrm{mean}_{hw}(x)))))

    one λ per sample and channel. Source: T. Kobayashi, "Global Feature Guided Local Pooling",
    ICCV 2019. The backward pass is fused, see
    :func:`gfgp_cupy.functional.guided_max_ent_pool2d`. Under autocast the pooling runs in its
    input's type, the head in that of its weights. The state dict loads the published
    implementation's tensor names too (``ToParam.1.weight`` …).

    Args:
        num_features: number of channels C.
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel; or ``"same"``.
        ceil_mode: round the output size up instead of down.
        activation: ``"sigmoid"`` (λ in (0, 1)) or ``"softplus"`` (λ > 0).
        hidden_features: width of the head's hidden layer. Default: half of ``num_features``.
        count_include_pad: whether the padding takes part, as zeros; not in the head's mean.
        norm_layer: makes a norm of so many features in place of the head's BN, as in torchvision's
            networks. Default: ``nn.BatchNorm2d``, which needs samples: 8 or more a process. For
            fewer, as in detection and segmentation: :class:`gfgp_cupy.norms.LayerNorm2d`, which
            normalises each sample over its channels, or ``nn.SyncBatchNorm``.
        device, dtype: of the head's tensors.

    Shape:
        - input: [N, C, H, W], or [C, H, W] in evaluation mode.
        - output: [N, C, oH, oW] or [C, oH, oW], sized as by ``max_pool2d``, or as
          ``"same"`` has it.

    Raises:
        TypeError: an input that :func:`gfgp_cupy.functional.max_ent_pool2d` does not take.
        ValueError: an argument out of range, an input whose channels are not ``num_features``, or
            a training batch of one sample (the head's BatchNorm has one value a channel and
            sample, so it needs at least two samples a process).

    Example:
        >>> pool = GFGPMaxEntPool2d(64, kernel_size=3, stride=2, padding=1)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    activation = "sigmoid"
    function = MAX_ENT
    shown = ("activation", "hidden_features")
    published_names = MAX_ENT_NAMES

    def __init__(
        self, num_features: int, kernel_size: int | Sizes,
        stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
        ceil_mode: bool = False, activation: str = "sigmoid", hidden_features: int | None = None,
        count_include_pad: bool = False, norm_layer: Callable[[int], nn.Module] | None = None,
        device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        of_class = type(self).activation
        if of_class not in (GFGPMaxEntPool2d.activation, activation):
            raise ValueError(
                f"activation={activation!r}, the argument, counts, and the class attribute "
                f"{type(self).__name__}.activation is {of_class!r}: pass activation='sigmoid' or "
                "'softplus', and take the attribute away"
            )
        super().__init__(
            num_features, kernel_size, stride, padding, ceil_mode, hidden_features=hidden_features,
            count_include_pad=count_include_pad, norm_layer=norm_layer, device=device, dtype=dtype,
        )  # fmt: skip
        self.activation = activation
        takes_published_names(self)
        self.register_state_dict_post_hook(note_activation)
        self.register_load_state_dict_pre_hook(check_activation)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "activation":
            self.head.activation = activation_by_name(value)
        super().__setattr__(name, value)


def note_activation(layer: Any, _: object, __: object, metadata: dict[str, Any]) -> None:
    """Tells the metadata of a state dict what its tensors do not: which λ they mean."""
    name = activation_of(layer.head)
    if name is not None:
        metadata["activation"] = name


def check_activation(
    layer: Any, _: object, prefix: str, metadata: dict[str, Any],
    __: bool, ___: list[str], ____: list[str], errors: list[str],
) -> None:  # fmt: skip
    """Adds to the errors of ``load_state_dict`` that the tensors mean another λ."""
    own = activation_of(layer.head)
    saved = metadata.get("activation", own)
    if own is not None and saved != own:
        errors.append(
            f"{prefix}head was saved of a layer with activation={saved!r}, and this one has "
            f"{own!r}: make the layer, or call replace_pooling, with the arguments of "
            "then (start='as_was' takes 'softplus' for maxima)"
        )


class MaxEntPool1d(MaxEntPool2d, axes=1): ...


class MaxEntPool3d(MaxEntPool2d, axes=3): ...


class GFGPMaxEntPool1d(GFGPMaxEntPool2d, axes=1): ...


class GFGPMaxEntPool3d(GFGPMaxEntPool2d, axes=3): ...
