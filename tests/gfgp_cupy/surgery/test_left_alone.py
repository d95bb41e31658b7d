"""What stays as it was, and the row that says so."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import replace_pooling
from gfgp_cupy.surgery import Left, Replacement, Replacements

IMAGES = (2, 3, 32, 32)
ADAPTIVE = "adaptive: its windows depend on the map's size"


def replace(model, **options):
    return replace_pooling(model, sample_shape=IMAGES, **options)


class Beside(nn.Module):
    """A pooling, and others that the forward need not call to be listed."""

    def __init__(self, *others):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.others = nn.ModuleList(others)

    def forward(self, x):
        return self.pool(x)


def test_other_kinds_are_listed():
    model = Beside(
        nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d((1, 1)), nn.AdaptiveAvgPool2d((7, None)),
        nn.LPPool2d(2, 3, 2), nn.FractionalMaxPool2d(3, output_ratio=0.5),
        nn.AdaptiveMaxPool1d(2), nn.LPPool3d(2, 2), nn.AdaptiveAvgPool3d(1),
        nn.FractionalMaxPool3d(2, output_ratio=0.5),
    )  # fmt: skip
    changes = replace(model)
    assert [change.path for change in changes] == ["pool"]
    assert changes.left == [
        Left("others.0", "AdaptiveAvgPool2d(1)", "global"),
        Left("others.1", "AdaptiveMaxPool2d(1)", "global"),
        Left("others.2", "AdaptiveAvgPool2d(7xNone)", ADAPTIVE),
        Left("others.3", "LPPool2d(3/2)", "LP: a norm of each window, no mean"),
        Left("others.4", "FractionalMaxPool2d(3)", "fractional: its windows are drawn"),
        Left("others.5", "AdaptiveMaxPool1d(2)", ADAPTIVE),
        Left("others.6", "LPPool3d(2)", "LP: a norm of each window, no mean"),
        Left("others.7", "AdaptiveAvgPool3d(1)", "global"),
        Left("others.8", "FractionalMaxPool3d(2)", "fractional: its windows are drawn"),
    ]  # fmt: skip


def test_a_pooling_that_is_not_called_is_left():
    changes = replace(Beside(nn.MaxPool2d(2)))
    assert [change.path for change in changes] == ["pool"]
    why = "the network's forward does not call it"
    assert changes.left == [Left("others.0", "MaxPool2d(2/2)", why)]


def test_a_pooling_that_is_not_called_beside_a_loss_that_wants_targets_is_left():
    class WithLoss(Beside):
        def forward(self, x, targets=None):
            y = super().forward(x).flatten(1)
            return F.cross_entropy(y, targets) if self.training else y

    model = WithLoss(nn.MaxPool2d(2))
    changes = replace(model)
    assert [change.path for change in changes] == ["pool"]
    (row,) = changes.left
    assert (row.path, row.was) == ("others.0", "MaxPool2d(2/2)")
    assert "does not call it in evaluation, and in training is not seen: " in row.reason
    assert "(TypeError: " in row.reason
    model(torch.randn(IMAGES), torch.zeros(2, dtype=torch.long)).backward()


class OwnCall(nn.Module):
    """Strides by its convolution's weight, of which it makes another; the module is not called."""

    def __init__(self, call):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.called = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.call = call

    def forward(self, x):
        return self.called(self.call(self.conv, x))


OWN_CALLS = {
    "F.conv2d": lambda conv, x: F.conv2d(x, 2 * conv.weight, None, conv.stride, conv.padding),
    "_conv_forward": lambda conv, x: conv._conv_forward(x, 2 * conv.weight, None),
}


@pytest.mark.parametrize("call", OWN_CALLS.values(), ids=OWN_CALLS)
def test_a_strided_convolution_that_is_not_called_is_left(call):
    model = OwnCall(call)
    size = model(torch.randn(IMAGES)).shape
    changes = replace(model, strided_convs=True)
    assert [change.path for change in changes] == ["called"]
    why = "the network's forward does not call it"
    assert changes.left == [Left("conv", "Conv2d(3/2/1)", why)]
    assert model(torch.randn(IMAGES)).shape == size


def test_a_strided_convolution_behind_code_that_needs_data_is_replaced():
    class Values(nn.Module):
        def forward(self, x):
            assert x.isfinite().all()
            return x

    model = nn.Sequential(nn.MaxPool2d(2), Values(), nn.Conv2d(3, 4, 3, 2, 1))
    assert [change.path for change in replace(model, strided_convs=True)] == ["0", "2"]


def test_scores_without_channels_are_left():
    class Detector(nn.Module):
        """Suppresses what is not the largest score around, as detectors of points do."""

        def __init__(self):
            super().__init__()
            self.largest = nn.MaxPool2d(3, 1, 1)

        def forward(self, x):
            scores = x.mean(1)  # [N, H, W], which would be read as [C, H, W]
            return torch.where(scores == F.max_pool2d(scores, 3, 1, 1), self.largest(scores), 0)

    model = nn.Sequential(nn.MaxPool2d(2), Detector())
    changes = replace(model, functional=True, stride_one=True)
    assert [change.path for change in changes] == ["0"]
    reason = "maps of three dimensions, of which none is sure to be the channels"
    assert changes.left == [
        Left("1", "F.max_pool2d(3/1/1)", reason),
        Left("1.largest", "MaxPool2d(3/1/1)", reason),
    ]


def test_rows_alike_are_one_in_the_table():
    changes = replace(Beside(*(nn.AdaptiveAvgPool2d(1) for _ in range(3)), nn.AdaptiveMaxPool1d(2)))
    assert str(changes).splitlines() == [
        "path  channels  was             is",
        "pool  3         MaxPool2d(2/2)  GFGPMaxEntPool2d(2/2)",
        "",
        "path                 left                  why",
        "others.0 and 2 more  AdaptiveAvgPool2d(1)  global",
        f"others.3             AdaptiveMaxPool1d(2)  {ADAPTIVE}",
    ]
    assert len(changes.left) == 4


@pytest.mark.parametrize("pool", [nn.MaxPool2d(1, 2), nn.AvgPool2d(1, 2), nn.MaxPool2d(1)])
def test_windows_of_one_element_stay(pool):
    model = nn.Sequential(nn.MaxPool2d(2), pool)
    changes = replace(model, stride_one=True)
    assert [change.path for change in changes] == ["0"]
    assert [(row.path, row.reason) for row in changes.left] == [
        ("1", "windows of one element, which leave nothing to learn")
    ]
    assert model[1] is pool


def test_stride_one_stays_unless_asked_for():
    def make():
        return nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d((2, 2), (1, 2)))

    model = make()
    changes = replace(model)
    assert [change.path for change in changes] == ["0", "2"]
    assert changes.left == [Left("1", "MaxPool2d(3/1/1)", "stride 1 (stride_one=True replaces it)")]
    model = make()
    assert len(replace(model, stride_one=True)) == 3
    assert model(torch.randn(IMAGES)).shape == make()(torch.randn(IMAGES)).shape


def test_min_channels():
    model = nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 3, 2, 1), nn.MaxPool2d(2)
    )
    changes = replace(model, min_channels=5, strided_convs=True)
    assert [change.path for change in changes] == ["1"]
    assert [(row.path, row.reason) for row in changes.left] == [
        ("0", "3 channels, fewer than min_channels=5"),
        ("2", "4 channels, fewer than min_channels=5"),
        ("3", "4 channels, fewer than min_channels=5"),
    ]


def test_what_where_leaves_out_needs_no_row():
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2))
    assert replace(model, where=lambda path, module: path == "0").left == []


def test_nothing_is_refused_that_would_stay_anyway():
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1, dilation=2), nn.MaxPool2d(2))
    model[1].padding = 2
    model[1].kernel_size = 4
    changes = replace(model)
    assert [change.path for change in changes] == ["0", "2"]
    assert [row.reason for row in changes.left] == ["stride 1 (stride_one=True replaces it)"]


def test_a_warning_that_nothing_changed_says_why():
    with pytest.warns(UserWarning, match=r"nothing in Sequential.*stride 1 \(stride_one=True"):
        replace(nn.Sequential(nn.MaxPool2d(3, 1, 1)))


def test_the_network_itself_has_a_name_in_both_tables():
    changed = Replacement(path="", num_features=8, was="F.max_pool2d", is_now="SoftPool2d")
    left = Left(path="", was="F.lp_pool2d", reason="LP")
    rows = str(Replacements([changed], [left])).splitlines()
    assert [row.split()[0] for row in rows if row] == ["path", "(model)", "path", "(model)"]
