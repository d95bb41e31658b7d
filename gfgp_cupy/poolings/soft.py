"""SoftPool: Max-Ent pooling at λ = 1."""

from __future__ import annotations

from torch import Tensor

from ..axes import for_lines_and_volumes
from ..functional import max_ent_pool2d
from ..geometry import Sizes
from ..overrides import overridable
from ..pool2d import Pool2d

__all__ = [
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "soft_pool1d",
    "soft_pool2d",
    "soft_pool3d",
]


@overridable
def soft_pool2d(
    input: Tensor, kernel_size: int | Sizes, stride: int | Sizes | None = None,
    padding: int | Sizes | str = 0, ceil_mode: bool = False,
    count_include_pad: bool = False, *, axes: int = 2,
) -> Tensor:  # fmt: skip
    r"""SoftPool: the mean of each window with weights :math:`e^{x_i}`.

    .. math:: y = \sum_i e^{x_i} x_i / \sum_j e^{x_j}

    This is :func:`gfgp_cupy.functional.max_ent_pool2d` with λ = 1, which see for shapes and
    errors.

    Source: A. Stergiou, R. Poppe, G. Kalliatakis, "Refining Activation Downsampling with
    SoftPool", ICCV 2021.

    Example:
        >>> soft_pool2d(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), kernel_size=2)
        tensor([[[2.4927]]])
    """
    return max_ent_pool2d(
        input, 1.0, kernel_size, stride, padding, ceil_mode, count_include_pad, axes=axes
    )


class SoftPool2d(Pool2d):
    """SoftPool as a layer; see :func:`soft_pool2d`.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in that
            function. The kernel is 2 by default, as in the published layer.

    Example:
        >>> pool = SoftPool2d(kernel_size=2)
        >>> pool(torch.randn(8, 16, 32, 32)).shape
        torch.Size([8, 16, 16, 16])
    """

    def __init__(
        self, kernel_size: int | Sizes = 2, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        count_include_pad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        return soft_pool2d(
            input, *self.window, count_include_pad=self.count_include_pad, axes=self.axes
        )


soft_pool1d, soft_pool3d = for_lines_and_volumes(soft_pool2d)


class SoftPool1d(SoftPool2d, axes=1): ...


class SoftPool3d(SoftPool2d, axes=3): ...
