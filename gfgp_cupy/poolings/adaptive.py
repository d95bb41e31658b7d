"""Generalised-mean pooling to an output of a given size: of whole planes, for retrieval."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.types import Device

from ..adaptive import Adaptive, Size
from ..axes import for_lines_and_volumes
from ..bins import adaptive_windows
from .generalized_mean import (
    GeneralizedMeanPool2d,
    GFGPGeneralizedMeanPool2d,
    generalized_mean_pool2d,
)

__all__ = [
    "AdaptiveGeneralizedMeanPool1d",
    "AdaptiveGeneralizedMeanPool2d",
    "AdaptiveGeneralizedMeanPool3d",
    "GFGPAdaptiveGeneralizedMeanPool1d",
    "GFGPAdaptiveGeneralizedMeanPool2d",
    "GFGPAdaptiveGeneralizedMeanPool3d",
    "GFGPGlobalGeneralizedMeanPool1d",
    "GFGPGlobalGeneralizedMeanPool2d",
    "GFGPGlobalGeneralizedMeanPool3d",
    "GlobalGeneralizedMeanPool1d",
    "GlobalGeneralizedMeanPool2d",
    "GlobalGeneralizedMeanPool3d",
    "adaptive_generalized_mean_pool1d",
    "adaptive_generalized_mean_pool2d",
    "adaptive_generalized_mean_pool3d",
]


def adaptive_generalized_mean_pool2d(
    input: Tensor, p: Tensor | float, output_size: Size, eps: float = 1e-6, *, axes: int = 2
) -> Tensor:
    """:func:`generalized_mean_pool2d` with ``torch.nn.functional.adaptive_avg_pool2d``'s windows.

    Args:
        input, p, eps: as in :func:`generalized_mean_pool2d`.
        output_size: height and width of the output, an int or a pair; ``None`` for that of the
            input. 1 pools whole planes.
        axes: as in :func:`gfgp_cupy.functional.max_ent_pool2d`.

    Raises:
        TypeError, ValueError: as :func:`generalized_mean_pool2d` and
            :func:`gfgp_cupy.functional.adaptive_windows`.

    Example:
        >>> x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> adaptive_generalized_mean_pool2d(x, 1.0, output_size=1)
        tensor([[[2.5000]]])
    """
    return generalized_mean_pool2d(input, p, adaptive_windows(output_size), eps=eps, axes=axes)


class AdaptiveGeneralizedMeanPool2d(Adaptive, GeneralizedMeanPool2d):
    """Generalised-mean pooling to an output of ``output_size``, with a p of its own.

    Its windows are those of ``torch.nn.AdaptiveAvgPool2d``. See :func:`generalized_mean_pool2d`
    for the formula.

    Args:
        output_size: height and width of the output, an int or a pair; ``None`` for that of the
            input.
        num_features, init_p, learnable, eps, device, dtype: as in :class:`GeneralizedMeanPool2d`.

    Example:
        >>> AdaptiveGeneralizedMeanPool2d((2, 3), num_features=4)(torch.rand(2, 4, 7, 9)).shape
        torch.Size([2, 4, 2, 3])
    """

    def __init__(
        self, output_size: Size, num_features: int | None = None, init_p: float = 3.0,
        learnable: bool = True, eps: float = 1e-6, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            adaptive_windows(output_size), num_features=num_features, init_p=init_p,
            learnable=learnable, eps=eps, device=device, dtype=dtype,
        )  # fmt: skip


class GlobalGeneralizedMeanPool2d(AdaptiveGeneralizedMeanPool2d):
    """Generalised-mean pooling of whole planes, "GeM", as image retrieval describes images by.

    :class:`AdaptiveGeneralizedMeanPool2d` with ``output_size=1``. Source: F. Radenović, G. Tolias,
    O. Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019.

    Example:
        >>> GlobalGeneralizedMeanPool2d()(torch.rand(8, 16, 7, 7)).shape
        torch.Size([8, 16, 1, 1])
    """

    shown_of_window = ()

    def __init__(
        self, num_features: int | None = None, init_p: float = 3.0, learnable: bool = True,
        eps: float = 1e-6, device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(1, num_features, init_p, learnable, eps, device, dtype)


class GFGPAdaptiveGeneralizedMeanPool2d(Adaptive, GFGPGeneralizedMeanPool2d):
    """Generalised-mean pooling to an output of ``output_size``, whose p > 1 a GFGP head predicts.

    Args:
        num_features: number of channels C.
        output_size: as in :class:`AdaptiveGeneralizedMeanPool2d`.
        hidden_features, norm_layer, device, dtype: as in :class:`gfgp_cupy.poolings.GuidedPool2d`.

    Shape:
        - input: [N, C, H, W], or [C, H, W] in evaluation mode.
        - output: [N, C, oH, oW] or [C, oH, oW], of ``output_size``.

    Raises:
        TypeError, ValueError: ``output_size`` is no size, or a width is no int or below 1; in a
            call also as :func:`gfgp_cupy.functional.guided_max_ent_pool2d`, and where a head's
            BatchNorm would train on a single sample.

    Example:
        >>> GFGPAdaptiveGeneralizedMeanPool2d(8, output_size=2)(torch.rand(2, 8, 5, 4)).shape
        torch.Size([2, 8, 2, 2])
    """

    def __init__(
        self, num_features: int, output_size: Size, hidden_features: int | None = None,
        norm_layer: Callable[[int], nn.Module] | None = None, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, adaptive_windows(output_size), hidden_features=hidden_features,
            norm_layer=norm_layer, device=device, dtype=dtype,
        )  # fmt: skip


class GFGPGlobalGeneralizedMeanPool2d(GFGPAdaptiveGeneralizedMeanPool2d):
    """Generalised-mean pooling of whole planes, whose p > 1 a GFGP head predicts.

    :class:`GFGPAdaptiveGeneralizedMeanPool2d` with ``output_size=1``.

    Example:
        >>> GFGPGlobalGeneralizedMeanPool2d(8)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 8, 1, 1])
    """

    shown_of_window = ()

    def __init__(
        self, num_features: int, hidden_features: int | None = None,
        norm_layer: Callable[[int], nn.Module] | None = None, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(num_features, 1, hidden_features, norm_layer, device, dtype)


adaptive_generalized_mean_pool1d, adaptive_generalized_mean_pool3d = for_lines_and_volumes(
    adaptive_generalized_mean_pool2d
)


class AdaptiveGeneralizedMeanPool1d(AdaptiveGeneralizedMeanPool2d, axes=1): ...


class AdaptiveGeneralizedMeanPool3d(AdaptiveGeneralizedMeanPool2d, axes=3): ...


class GlobalGeneralizedMeanPool1d(GlobalGeneralizedMeanPool2d, axes=1): ...


class GlobalGeneralizedMeanPool3d(GlobalGeneralizedMeanPool2d, axes=3): ...


class GFGPAdaptiveGeneralizedMeanPool1d(GFGPAdaptiveGeneralizedMeanPool2d, axes=1): ...


class GFGPAdaptiveGeneralizedMeanPool3d(GFGPAdaptiveGeneralizedMeanPool2d, axes=3): ...


class GFGPGlobalGeneralizedMeanPool1d(GFGPGlobalGeneralizedMeanPool2d, axes=1): ...


class GFGPGlobalGeneralizedMeanPool3d(GFGPGlobalGeneralizedMeanPool2d, axes=3): ...
