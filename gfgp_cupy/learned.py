"""The base of the poolings that learn a parameter of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.types import Device

from .arguments import check_first_value, check_width
from .geometry import Sizes
from .pool2d import Pool2d

__all__ = ["LearnedLambdaPool2d", "LearnedPool2d"]


class LearnedPool2d(Pool2d):
    """Base of the poolings with a parameter θ of their own, one a channel or one in all.

    A subclass names θ, calls :meth:`add_parameter` when it is made, and says what θ starts from and
    what ``forward`` does with it.

    Attributes:
        parameter_name: what θ is called as an attribute and in the state dict.
        num_features: number of channels C for one θ a channel, None for one in all.
        learnable: whether θ is a parameter; otherwise it is a buffer.

    Example:
        >>> class ScaledMaxPool2d(LearnedPool2d):
        ...     parameter_name = "scale"
        ...     shown = ("num_features", "learnable")
        ...
        ...     def __init__(self, kernel_size, num_features=None, learnable=True):
        ...         super().__init__(kernel_size)
        ...         self.add_parameter(num_features, learnable)
        ...         self.reset_parameters()
        ...
        ...     def initial_value(self):
        ...         return 2.0
        ...
        ...     def forward(self, input):
        ...         return self.scale * torch.nn.functional.max_pool2d(input, self.kernel_size)
        >>> ScaledMaxPool2d(2)(torch.ones(1, 1, 2, 2)).item()
        2.0
    """

    parameter_name: str

    def add_parameter(
        self,
        num_features: int | None,
        learnable: bool,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Registers an uninitialised θ, 1 by ``num_features`` (or 1) by ``parameter_size``.

        Raises:
            TypeError, ValueError: ``num_features`` is no int, or below 1.
        """
        if num_features is not None:
            check_width("num_features", num_features)
        self.num_features = num_features
        self.learnable = learnable
        shape = (1, num_features or 1, *self.parameter_size)
        tensor = torch.empty(shape, device=device, dtype=dtype)
        if learnable:
            self.register_parameter(self.parameter_name, nn.Parameter(tensor))
        else:
            self.register_buffer(self.parameter_name, tensor)

    @property
    def parameter_size(self) -> Sizes:
        """θ's size on each axis: by default it is one number for a whole plane."""
        return (1,) * self.axes

    @property
    def parameter(self) -> Tensor:
        """What the layer pools with: by default θ itself."""
        return getattr(self, self.parameter_name)

    def initial_value(self) -> float:
        """What every element of θ starts from."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Sets θ back to what it started from."""
        nn.init.constant_(getattr(self, self.parameter_name), float(self.initial_value()))


class LearnedLambdaPool2d(LearnedPool2d):
    """Base of the poolings with a λ of their own, ``lam``, which starts from ``init_lambda``."""

    parameter_name = "lam"
    shown = ("num_features", "init_lambda", "learnable")
    lam: Tensor

    def __init__(
        self, kernel_size: int | Sizes, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        num_features: int | None = None, init_lambda: float = 1.0, learnable: bool = True,
        count_include_pad: bool = False, device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        check_first_value("init_lambda", init_lambda, dtype)
        self.init_lambda = init_lambda
        self.add_parameter(num_features, learnable, device, dtype)
        self.reset_parameters()

    def initial_value(self) -> float:
        return self.init_lambda
