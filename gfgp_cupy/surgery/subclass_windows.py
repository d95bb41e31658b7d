"""The window of a pooling with a forward of its own, found by what it does."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hooks import no_hooks
from ..padding import SAME, SameGeometry
from .window import Window, window_of

__all__ = ["window_by_trial"]

# Never square: what differs between two paddings or ceil modes shows in one direction or another.
SIZES = ((11, 14), (16, 13), (22, 25))


def window_by_trial(module: nn.MaxPool2d | nn.AvgPool2d) -> Window | None:
    """The window that ``module`` pools by, or None if it does anything else.

    Libraries have subclasses that pad their maps before they pool, for instance timm's
    ``AvgPool2dSame`` and transformers' ``BitMaxPool2d``. What a copy of one computes of random
    maps, in evaluation and in training, is held against what its attributes can mean. What has
    tensors of its own learns or counts, and is none of these. PyTorch's random state stays.
    """
    if module.state_dict():
        return None
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, *size, generator=generator, device="cpu") - 1 for size in SIZES]
    results = []
    try:
        with torch.random.fork_rng(devices=()), torch.no_grad():
            for training in (False, True):
                copy = deepcopy(module, no_hooks(module)).cpu().train(training)
                results += [copy.forward(input) for input in maps]
    except Exception:  # its code can refuse in any way what it was not made for
        return None
    for window in _meanings(module):
        expected = [_pooled(module, window, input) for input in maps] * 2
        if all(map(_agree, results, expected)):
            return window
    return None


def _meanings(module: nn.MaxPool2d | nn.AvgPool2d) -> list[Window]:
    counts = getattr(module, "count_include_pad", False)
    kernel_size, stride = module.kernel_size, module.stride
    return [
        window_of(kernel_size, stride, module.padding, module.ceil_mode, counts),
        window_of(kernel_size, stride, SAME),
        window_of(kernel_size, stride, SAME, count_include_pad=True),
    ]


def _pooled(module: nn.MaxPool2d | nn.AvgPool2d, window: Window, input: Tensor) -> Tensor:
    kernel_size, stride, padding = window.kernel_size, window.stride, window.padding
    maximum = isinstance(module, nn.MaxPool2d)
    if isinstance(padding, str):
        margins = _margins(window, input)
        nothing = -torch.inf if maximum and not window.count_include_pad else 0.0
        padded = F.pad(input, margins, value=nothing)
        if maximum:
            return F.max_pool2d(padded, kernel_size, stride)
        mean = F.avg_pool2d(padded, kernel_size, stride)
        if window.count_include_pad:
            return mean
        return mean / F.avg_pool2d(F.pad(torch.ones_like(input), margins), kernel_size, stride)
    if maximum:
        return F.max_pool2d(input, kernel_size, stride, padding, ceil_mode=window.ceil_mode)
    return F.avg_pool2d(
        input, kernel_size, stride, padding, window.ceil_mode, window.count_include_pad
    )


def _margins(window: Window, input: Tensor) -> list[int]:
    """The padding as ``F.pad`` takes it: left, right, above, below."""
    same = SameGeometry(window.kernel_size, window.stride)
    margins: list[int] = []
    for axis in (1, 0):
        length = input.shape[axis - 2]
        before = same.before(length, axis)
        margins += [before, same.total(length, axis) - before]
    return margins


def _agree(result: object, expected: Tensor) -> bool:
    return (
        isinstance(result, Tensor)
        and result.shape == expected.shape
        and torch.allclose(result, expected, rtol=1e-4, atol=1e-5)
    )
