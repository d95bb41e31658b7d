"""``pool`` as a class or another callable, and the check of what it makes."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import (
    AdaptiveMaxEntPool2d,
    GFGPMaxEntPool2d,
    GlobalMaxEntPool2d,
    MaxEntPool2d,
    MaxEntPoolingCuda2d,
    compile_kernels,
    replace_pooling,
)
from gfgp_cupy.poolings import GatedPool2d, GFGPMixedPool2d, MixedPool2d, SoftPool2d

IMAGES = (2, 3, 17, 16)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1, ceil_mode=True))


def replace(model, pool, **options):
    return replace_pooling(model, pool, sample_shape=IMAGES, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "pool",
    [GFGPMaxEntPool2d, MaxEntPoolingCuda2d, MaxEntPool2d, MixedPool2d, GFGPMixedPool2d,
     GatedPool2d, SoftPool2d, nn.AvgPool2d],
)  # fmt: skip
def test_classes(pool, dtype):
    model = network().to(dtype)
    x = torch.randn(IMAGES, dtype=dtype)
    shape = model(x).shape
    replace(model, pool)
    new = model[1]
    assert type(new) is pool
    pairs = (3, 2, 1) if pool is nn.AvgPool2d else ((3, 3), (2, 2), (1, 1))
    assert (new.kernel_size, new.stride, new.padding) in (pairs, ((3, 3), (2, 2), (1, 1)))
    assert new.ceil_mode is True
    assert model(x).shape == shape
    assert all(parameter.dtype == dtype for parameter in new.parameters())


def test_a_pooling_of_another_library_may_need_data():
    class OfNumpy(nn.MaxPool2d):
        def forward(self, x):
            return super().forward(torch.from_numpy(x.detach().numpy().copy()))

    model = network()
    x = torch.randn(IMAGES)
    before = model(x)
    replace(
        model, lambda num_features, *window, device, dtype: OfNumpy(*window[:3], 1, False, True)
    )
    assert isinstance(model[1], OfNumpy) and torch.equal(model(x), before)


@pytest.mark.parametrize(
    ("pool", "shown"),
    [
        (partial(MaxEntPool2d, learnable=False), {"learnable": False}),
        (partial(MaxEntPool2d, init_lambda=5.0), {"init_lambda": 5.0, "num_features": 4}),
        (partial(MaxEntPool2d, num_features=None), {"num_features": None}),
        (partial(GFGPMaxEntPool2d, activation="softplus"), {"activation": "softplus"}),
        (partial(SoftPool2d), {}),
        (partial(nn.AvgPool2d, count_include_pad=False), {"count_include_pad": False}),
    ],
)
def test_a_partial_class_has_what_it_sets_and_the_places_window(pool, shown):
    model = network()
    shape = model(torch.zeros(IMAGES)).shape
    replace(model, pool)
    new = model[1]
    assert type(new) is pool.func
    assert new.ceil_mode is True
    assert model(torch.zeros(IMAGES)).shape == shape
    for name, value in shown.items():
        assert getattr(new, name) == value


@pytest.mark.parametrize(
    "pool",
    [
        partial(MaxEntPool2d, kernel_size=3),
        partial(MaxEntPool2d, 3),
        partial(SoftPool2d, stride=1),
        partial(nn.AvgPool2d, padding=1),
        partial(GFGPMaxEntPool2d, 4, ceil_mode=True),
    ],
)
def test_a_partial_class_with_a_window_is_refused(pool):
    with pytest.raises(ValueError, match=r"pool sets \w+=\w+, and .*: leave it out"):
        replace(network(), pool)


@pytest.mark.parametrize("counts", [True, False])
def test_a_partial_class_has_the_last_word_on_padding_and_type(counts):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=not counts))
    pool = partial(GFGPMaxEntPool2d, count_include_pad=counts, dtype=torch.float32)
    (change,) = replace(model.double(), pool)
    assert model[1].count_include_pad is counts
    assert ("count_include_pad" in change.is_now) is counts
    assert {parameter.dtype for parameter in model[1].parameters()} == {torch.float32}


def test_a_pooling_of_a_given_output_has_no_place():
    for pool in (AdaptiveMaxEntPool2d, partial(GlobalMaxEntPool2d, init_lambda=2.0)):
        with pytest.raises(TypeError, match=r"pool=\w+ has windows .*: pass MaxEntPool2d"):
            replace(network(), pool)
    replace(network(), MaxEntPool2d)


@pytest.mark.parametrize("options", [{}, {"functional": True}])
def test_windows_of_numpys_ints(options):
    two = np.int64(2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(two), Calls(two), nn.AvgPool2d(3, two))
    changes = replace_pooling(model, SoftPool2d, sample_shape=(1, 3, 26, 26), **options)
    called = ["F.avg_pool2d(2/2)"] if options else []
    found = [change.was for change in changes]
    assert sorted(found) == ["AvgPool2d(3/2)", *called, "MaxPool2d(2/2)"]
    assert model(torch.zeros(1, 3, 26, 26)).shape == (1, 4, 2, 2)


class Calls(nn.Module):
    def __init__(self, kernel_size):
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, input):
        return F.avg_pool2d(input, self.kernel_size, (self.kernel_size, 2))


def test_a_misspelt_argument_of_a_partial_class_is_told_by_python():
    with pytest.raises(TypeError, match="unexpected keyword argument 'activaton'"):
        replace(network(), partial(GFGPMaxEntPool2d, activaton="softplus"))


@pytest.mark.parametrize(
    ("shape", "said"),
    [(32, "got 32"), (torch.zeros(IMAGES), r"pass its \.shape"), ((2, 3.5), "3.5")],
)
def test_shapes_of_samples_are_ints(shape, said):
    for name, call in (("sample_shape", call_replace), ("sample_shapes", compile_kernels)):
        with pytest.raises(TypeError, match=rf"{name} must be ints \[N, C, H, W\].*{said}"):
            call(network(), shape)


def call_replace(model, shape):
    replace_pooling(model, sample_shape=shape)


def test_what_a_class_learns_is_one_a_channel():
    model = network()
    replace(model, MaxEntPool2d)
    assert model[1].lam.shape == (1, 4, 1, 1)


class WithoutCeilMode(nn.Module):
    def __init__(self, kernel_size, stride, padding):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size, stride, padding)

    def forward(self, x):
        return self.pool(x)


WRONG = {
    "identity": (lambda *_, **__: nn.Identity(), ValueError, "a Identity, which makes"),
    "no module": (lambda *_, **__: 3, TypeError, "pool must return a torch.nn.Module, got int"),
    "size": (WithoutCeilMode, ValueError, "a WithoutCeilMode, which makes"),
    "channels": (lambda *_, **__: nn.Conv2d(4, 5, 3, 2, 1), ValueError, "Conv2d, which makes"),
    "fails": (lambda *_, **__: nn.Linear(3, 3), ValueError, "Linear, which fails"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_callable_returns_is_checked(case):
    pool, error, words = WRONG[case]
    model = network()
    with pytest.raises(error, match=words) as raised:
        replace(model, pool)
    assert error is TypeError or "'1'" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert isinstance(model[1], nn.MaxPool2d)


def test_a_callable_must_make_a_new_one_each_time():
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2))
    one = SoftPool2d(2)
    with pytest.raises(ValueError, match="one module for several places"):
        replace(model, lambda *_, **__: one)


def test_padding_that_counts_is_asked_for_only_where_it_does():
    asked = []

    def pool(num_features, kernel_size, stride, padding, ceil_mode, **options):
        asked.append(options.pop("count_include_pad", None))
        counts = {"count_include_pad": True} if asked[-1] else {}
        return MaxEntPool2d(kernel_size, stride, padding, ceil_mode, num_features, **counts)

    model = nn.Sequential(
        nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    )
    replace(model, pool)
    assert asked == [True, None, None]
    with pytest.raises(ValueError, match="WithoutCeilMode takes no count_include_pad"):
        replace(nn.Sequential(nn.AvgPool2d(3, 2, 1)), WithoutCeilMode)


@pytest.mark.parametrize("pool", ["max", nn.MaxPool2d])
def test_a_maximum_cannot_count_the_padding(pool):
    def network():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AvgPool2d(3, 2, 1), nn.MaxPool2d(2))

    with pytest.raises(ValueError, match=r"'1' \(AvgPool2d\(3/2/1, .*: pool=.*MaxPool2d") as caught:
        replace(network(), pool)
    assert "where=lambda path, module: path != '1'" in str(caught.value)
    changes = replace(network(), pool, unsupported="skip")
    assert [change.path for change in changes] == ["2"]
    assert [left.path for left in changes.left] == ["1"]
