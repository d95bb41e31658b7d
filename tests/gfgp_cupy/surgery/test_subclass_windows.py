"""Subclasses of other libraries, by what they compute."""

import threading

import pytest
import timm.layers.pool2d_same
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import MaxEntPool2d, replace_pooling
from gfgp_cupy.surgery.equivalents import equivalent_window
from gfgp_cupy.surgery.subclass_windows import window_by_trial
from gfgp_cupy.surgery.window import window_of

AvgPool2dSame = timm.layers.pool2d_same.AvgPool2dSame
MaxPool2dSame = timm.layers.pool2d_same.MaxPool2dSame


class ZeroPadded(nn.MaxPool2d):
    """transformers' ``BitMaxPool2d``: zeros for TensorFlow's padding, which the maximum sees."""

    def forward(self, x):
        margins = []
        for size in reversed(x.shape[-2:]):
            total = max((-(-size // self.stride) - 1) * self.stride + self.kernel_size - size, 0)
            margins += [total // 2, total - total // 2]
        return F.max_pool2d(F.pad(x, margins), self.kernel_size, self.stride)


class Locked:
    """Cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()

    def hook(self, module, args):
        raise AssertionError("called")


class Plain(nn.AvgPool2d):
    def extra_repr(self):
        return "plain"


class Rewritten(nn.MaxPool2d):
    def forward(self, input):
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding)


class OfTraining(nn.MaxPool2d):
    def forward(self, input):
        return super().forward(-input if self.training else input)


class OtherWindow(nn.MaxPool2d):
    def forward(self, input):
        return F.max_pool2d(input, self.kernel_size, self.stride, 0)


class Learned(nn.AvgPool2d):
    def __init__(self, *args):
        super().__init__(*args)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, input):
        return self.weight * super().forward(input)


class Drawn(nn.AvgPool2d):
    def forward(self, input):
        return super().forward(input + torch.rand_like(input))


@pytest.mark.parametrize(
    ("pool", "window"),
    [
        (AvgPool2dSame(3, 2), window_of(3, 2, "same", count_include_pad=True)),
        (AvgPool2dSame((3, 2), (2, 1)), window_of((3, 2), (2, 1), "same", count_include_pad=True)),
        (AvgPool2dSame(2, 2, count_include_pad=False), None),
        (MaxPool2dSame(3, 2), window_of(3, 2, "same")),
        (MaxPool2dSame(2, 3), window_of(2, 3, "same")),
        (ZeroPadded(3, 2), window_of(3, 2, "same", count_include_pad=True)),
        (Plain(3, 2, 1), window_of(3, 2, 1, count_include_pad=True)),
        (Rewritten(3, 2, 1), window_of(3, 2, 1)),
    ],
)
def test_windows_that_are_plain(pool, window):
    if window is None:  # timm's padding counts, whatever the option says
        window = window_of(2, 2, "same", count_include_pad=True)
    assert equivalent_window(pool) == window


@pytest.mark.parametrize(
    "pool",
    [OfTraining(2), OtherWindow(3, 2, 1), Learned(2), Drawn(2), MaxPool2dSame(3, 2, dilation=2)],
)
def test_whatever_else_a_forward_does_is_refused(pool):
    state = torch.get_rng_state()
    assert isinstance(equivalent_window(pool), str)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_trial_finds_what_the_attributes_say():
    for arguments in ((3, 2, 1), (3, 2), (2, 2), ((3, 2), (2, 1), (1, 0))):
        for pool in (nn.AvgPool2d(*arguments), nn.AvgPool2d(*arguments, ceil_mode=True)):
            expected = window_of(
                pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad
            )
            assert window_by_trial(pool) == expected


@pytest.mark.parametrize("size", [(9, 12), (10, 7)])
@pytest.mark.parametrize(
    ("old", "lam"),
    [
        (AvgPool2dSame(3, 2), 0.0),
        (MaxPool2dSame(3, 2), 1e4),
        (ZeroPadded(3, 2), 1e4),
        (nn.AvgPool2d(3, 2, 1), 0.0),
        (nn.AvgPool2d(3, 2, 1, ceil_mode=True), 0.0),
        (Plain(3, 2, 1), 0.0),
    ],
)
def test_same_windows_as_before(old, lam, size):
    """At λ = 0 and λ → ∞ the new pooling is the old one."""

    def pool(num_features, kernel_size, stride, padding, ceil_mode, device, dtype, **counts):
        return MaxEntPool2d(
            kernel_size, stride, padding, ceil_mode, init_lambda=lam, learnable=False, **counts
        )

    model = nn.Sequential(old)
    x = torch.randn(2, 4, *size)
    replace_pooling(model, pool, sample_shape=x.shape)
    assert isinstance(model[0], MaxEntPool2d)
    torch.testing.assert_close(model(x), old(x), rtol=1e-4, atol=1e-4)


def test_hooks_are_left_alone():
    pool = AvgPool2dSame(2, 2)
    pool.register_forward_pre_hook(Locked().hook)
    assert window_by_trial(pool) == window_by_trial(AvgPool2dSame(2, 2)) is not None
