"""The base of the poolings whose parameter a GFGP head predicts from the whole feature map."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.types import Device

from .autocast import mean_dtype
from .autograd import mean_of_planes
from .bins import Bins
from .fx import leaf_call
from .geometry import Sizes
from .head import (
    check_head_input,
    gfgp_head,
    hidden_width,
    mean_as_published,
    outside_autocast,
    reset_head,
)
from .ops import OPERATORS
from .padding import place_windows
from .pool2d import Pool2d
from .window_function import WindowFunction
from .window_pooling import pool_guided, pool_windows

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GuidedPool2d", "HeadPool2d", "activation_by_name", "activation_of"]

LARGEST_USUAL_KERNEL = 16
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "softplus": nn.Softplus}


def activation_by_name(name: str) -> nn.Module:
    """A head's last step.

    Raises:
        ValueError: ``name`` is not ``"sigmoid"`` or ``"softplus"``.
    """
    if name not in list(ACTIVATIONS):  # which takes what has no hash, too
        raise ValueError(f"activation must be 'sigmoid' or 'softplus', got {name!r}")
    return ACTIVATIONS[name]()


def activation_of(head: nn.Module) -> str | None:
    """The name of a head's last step; None where it is one that has none."""
    last_step = type(getattr(head, "activation", None))
    return next((name for name, kind in ACTIVATIONS.items() if kind is last_step), None)


class HeadPool2d(Pool2d):
    """Base of the layers with a head: checks what both it and the pooling are given.

    ``torch.fx`` records a layer as one call, whatever ``pool_guided`` does.

    Attributes:
        num_features: number of channels C.
        head: what is computed from the input's global mean.
    """

    num_features: int
    head: nn.Module

    def reset_parameters(self) -> None:
        """Draws the head's weights anew, as PyTorch's own layers do."""
        reset_head(self.head)

    def pool_guided(self, input: Tensor) -> Tensor:
        """Pools [N, C, H, W] or [C, H, W] ``input`` as its own mean tells."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy):
            return leaf_call(self, input)
        check_head_input(self.head, self.num_features, input, self._for_channels, self.axes)
        return self.pool_guided(input)

    def extra_repr(self) -> str:
        return f"{self.num_features}, {super().extra_repr()}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self.axes != 3:
            return super()._apply(fn, recurse)

        # The head's weights have 4 axes. `to(memory_format=torch.channels_last_3d)` asks tensors of
        # 4 and of 5 for it, and can be had of 5 alone.
        def of_four_or_five_axes(tensor: Tensor) -> Tensor:
            try:
                return fn(tensor)
            except RuntimeError as error:
                if tensor.dim() != 4 or "channels_last_3d" not in str(error):
                    raise
                return fn(tensor.unsqueeze(-1)).squeeze(-1)

        return super()._apply(of_four_or_five_axes, recurse)

    def _for_channels(self, channels: int) -> str:
        """How to make the layer for so many ``channels``, where it was made for others."""
        if self.num_features > LARGEST_USUAL_KERNEL or isinstance(self.kernel_size, Bins):
            return f"make the layer with num_features={channels}"
        # GFGPMaxEntPool2d(3, 2, 1) was meant as MaxPool2d(3, 2, 1), each a place further left.
        meant = [channels, self.num_features, _as_written(self.kernel_size)]
        if self.stride != self.kernel_size:
            meant.append(_as_written(self.stride))
        return (
            f"make the layer with num_features={channels}; if {self.num_features} was meant as "
            f"kernel_size, num_features comes first: {type(self).__name__}"
            f"({', '.join(map(str, meant))})"
        )


def _as_written(sizes: Sizes) -> int | Sizes:
    return sizes[0] if len(set(sizes)) == 1 else sizes


class GuidedPool2d(HeadPool2d):
    r"""Base of the guided poolings: any pooling with one parameter per sample and channel.

    .. math:: \theta = \mathrm{act}(\mathrm{BN}(W_2\, \mathrm{relu}(\mathrm{BN}(W_1\,
              \mathrm{mean}_{hw}(x)))))

    A subclass says what ``activation`` brings θ into its range, and what is done with it: either by
    which window ``function``, whose backward pass is then fused (see
    :func:`gfgp_cupy.functional.guided_max_ent_pool2d`), or by its method ``pool``.
    Source: T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019, whose pooling is
    :class:`gfgp_cupy.GFGPMaxEntPool2d`.

    Args:
        num_features: number of channels C.
        kernel_size, stride, padding, ceil_mode, count_include_pad: the window, as in
            :func:`gfgp_cupy.functional.max_ent_pool2d`. The head's mean is that of the input
            without padding.
        hidden_features: width of the head's hidden layer. Default: half of ``num_features``.
        norm_layer: makes a norm of so many features in place of the head's BN, for batches of few
            samples a process; see :class:`gfgp_cupy.GFGPMaxEntPool2d`.
        device, dtype: of the tensors.

    Shape:
        - input: [N, C, H, W], or [C, H, W] in evaluation mode.
        - output: [N, C, oH, oW] or [C, oH, oW], sized as by ``max_pool2d``, or as
          ``"same"`` has it.

    Raises:
        TypeError: an input that is no tensor, or not of a floating-point type.
        ValueError: an argument out of range, an input whose channels are not ``num_features`` or
            that no window fits in, or a training batch of one sample (the head's BatchNorm has
            one value a channel and sample, so it needs at least two samples a process).

    Attributes:
        head: [N, C, 1, 1] means to θ of that shape.

    Example:
        >>> class GuidedScaledMaxPool2d(GuidedPool2d):
        ...     activation = torch.nn.Sigmoid
        ...
        ...     def pool(self, input, parameter):
        ...         return parameter * torch.nn.functional.max_pool2d(input, self.kernel_size)
        >>> pool = GuidedScaledMaxPool2d(64, kernel_size=2)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    shown = ("hidden_features",)
    head: nn.Sequential

    activation: type[nn.Module] | str
    """What brings θ into its range, by its class or as ``"sigmoid"`` or ``"softplus"``.

    Where it is an argument, as of :class:`gfgp_cupy.GFGPMaxEntPool2d`, that counts."""

    function: WindowFunction | None = None
    """By which the layer pools, if it does by one; registered."""

    function_name: str | None = None
    """That function's, set where the class is made."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "pool" in vars(cls) and "function" not in vars(cls):
            cls.function = None  # the class above pools by one, and this one does not
        cls.function_name = None if cls.function is None else cls.function.name

    def __init__(
        self, num_features: int, kernel_size: int | Sizes,
        stride: int | Sizes | None = None, padding: int | Sizes | str = 0,
        ceil_mode: bool = False, hidden_features: int | None = None,
        count_include_pad: bool = False, norm_layer: Callable[[int], nn.Module] | None = None,
        device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.num_features = num_features
        self.hidden_features = hidden_width(num_features, hidden_features)
        activation = self.activation
        last_step = activation_by_name(activation) if isinstance(activation, str) else activation()
        self.head = gfgp_head(
            num_features, last_step, self.hidden_features, norm_layer, device, dtype
        )
        self.add_tensors(device, dtype)

    @property
    def window(self) -> tuple[Sizes, Sizes, Sizes | str, bool]:
        """Kernel, stride, padding and ceil mode for ``pool``, in whose input padding that counts
        is there already."""
        padding = (0,) * self.axes if self.count_include_pad else self.padding
        return self.kernel_size, self.stride, padding, self.ceil_mode

    @property
    def ToParam(self) -> nn.Sequential:
        """The head as the published layer has it, from its input to θ before its activation.

        ``ToParam[1]``, ``[2]``, ``[4]`` and ``[5]`` are the head's own convolutions and norms, no
        copies; the state dict has them under ``head`` alone.
        """
        return nn.Sequential(mean_as_published(self.axes), *list(self.head)[:-1])

    def add_tensors(self, device: Device, dtype: torch.dtype | None) -> None:
        """Registers what a subclass learns beside its head; called when a layer is made."""

    def pool(self, input: Tensor, parameter: Tensor) -> Tensor:
        """Pools [N, C, H, W] ``input``, windows as ``window`` has them, with θ [N, C, 1, 1].

        With other ``axes`` both have as many behind N and C.
        """
        function = self._function()
        if function is None:
            raise NotImplementedError
        return pool_windows(
            function, input, self.parameter_of(parameter), *self.window, axes=self.axes
        )

    def parameter_of(self, predicted: Tensor) -> Tensor:
        """The parameter of ``function``, of what the head predicts: by default that itself."""
        return predicted

    def _function(self) -> WindowFunction | None:
        # PyTorch 2.6 exports no attribute of a class but numbers, strings and functions.
        return None if self.function_name is None else OPERATORS[self.function_name, 2].function

    def pool_guided(self, input: Tensor) -> Tensor:
        function = self._function()
        if function is not None:
            head = outside_autocast(self.head, input.device)
            return pool_guided(
                function, input, lambda mean: self.parameter_of(head(mean)), self.kernel_size,
                self.stride, self.padding, self.ceil_mode, self.count_include_pad, axes=self.axes,
            )  # fmt: skip
        windows = place_windows(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.axes,
        )  # fmt: skip
        head = outside_autocast(self.head, input.device)
        parameter = head(mean_of_planes(windows.input, mean_dtype(windows.input)))
        if self.axes != 2:
            parameter = parameter.view(*parameter.shape[:2], *(1,) * self.axes)
        output = self.pool(windows.padded_as_given(input), parameter)
        return output if input.dim() == self.axes + 2 else output.squeeze(0)
