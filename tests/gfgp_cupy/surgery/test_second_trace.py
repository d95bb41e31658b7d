"""A network's forward that does something else with its new poolings is told."""

import functools
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling
from gfgp_cupy.poolings import SoftPool2d

IMAGES = (2, 3, 16, 16)


def replace(model, **options):
    return replace_pooling(model, **({"sample_shape": IMAGES} | options))


def told(model, **options):
    """What the one warning says before its advice; None without any."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(replace(model, **options)) > 0
    if not caught:
        return None
    (warning,) = caught
    assert warning.category is UserWarning and warning.filename == __file__
    start, _, rest = str(warning.message).partition("with the new poolings the network's forward ")
    said, _, advice = rest.partition(": it may ask for isinstance(…, nn.MaxPool2d)")
    assert (start, bool(advice)) == ("", True)
    return said


class Network(nn.Module):
    """A convolution and a pooling, and what is done with them."""

    def __init__(self, run=None, pool=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = pool or nn.MaxPool2d(2)
        self.other = nn.ReLU()
        self.run = run or (lambda self, x: self.other(self.pool(self.conv(x))))

    def forward(self, x):
        return self.run(self, x)


class Stages(nn.Module):
    """Collects what each pooling is given, as encoders do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2),
            nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2),
        )  # fmt: skip

    def forward(self, x):
        stages = []
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                stages.append(x)
            x = layer(x)
        return {"stages": stages, "last": x}


class UNet(Stages):
    """Adds them to maps of the same sizes, which it has without them as well."""

    def __init__(self):
        super().__init__()
        self.up = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)])

    def forward(self, x):
        stages, x = super().forward(x).values()
        for conv in self.up:
            x = F.interpolate(conv(x), scale_factor=2)
            x = x + stages.pop() if stages else x
        return x


def ask_for_class(self, x):
    """Runs one module for a maximum, and none for what it does not know."""
    y = self.pool(self.conv(x))
    return self.other(y) if isinstance(self.pool, nn.MaxPool2d) else y


def test_outputs_that_depend_on_the_class():
    assert told(Stages()) == (
        "returns tensors of [2, 8, 4, 4], and returned tensors of [2, 4, 16, 16], [2, 8, 8, 8], "
        "[2, 8, 4, 4]"
    )


def test_functions_that_are_called_no_longer():
    assert told(UNet()) == "calls add 0 times, and called it 2 times"


def test_modules_that_are_called_no_longer():
    assert told(Network(ask_for_class)) == "no longer calls 'other'"


def test_a_pooling_that_is_called_no_longer():
    def run(self, x):
        return self.pool(self.conv(x)) if isinstance(self.pool, nn.MaxPool2d) else x[..., ::2, ::2]

    said = told(Network(run, nn.MaxPool2d(2)))
    assert said == "returns tensors of [2, 3, 8, 8], and returned tensors of [2, 4, 8, 8]"


def test_a_module_that_is_called_more_often():
    def run(self, x):
        y = self.other(self.pool(self.conv(x)))
        return y if isinstance(self.pool, nn.MaxPool2d) else self.other(y)

    assert told(Network(run)) == "calls 'other' 2 times, and called it 1 time"


ATTRIBUTES = {
    "kernel_size": lambda self, x: self.pool(self.conv(x)) / (16 // self.pool.kernel_size),
    "return_indices": lambda self, x: x if self.pool.return_indices else self.pool(self.conv(x)),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_forward_that_reads_an_attribute(name):
    model = Network(ATTRIBUTES[name])
    model(torch.randn(IMAGES))
    said = told(model)
    assert said.startswith("raises TypeError (" if name == "kernel_size" else "raises Attr")
    assert isinstance(model.pool, GFGPMaxEntPool2d)  # which can be mended


def test_a_part_that_fails_is_named_and_the_mode():
    def run(self, x):
        return self.other(self.pool(x)) / (16 // self.pool.stride if self.training else 1)

    assert told(nn.Sequential(Network(run))).startswith("raises TypeError in '0' (unsupported")
    assert told(nn.Sequential(Network(run))).endswith("), in training")


def test_a_convolution_whose_weight_is_used_besides():
    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2, 1, bias=False)

        def forward(self, x):
            sums = self.conv.weight.sum((2, 3), keepdim=True)
            return self.conv(x) - F.conv2d(x, sums, None, self.conv.stride)

    assert told(Difference(), strided_convs=True).startswith("raises RuntimeError (")


def plain(self, x):
    return self.other(self.pool(self.conv(x)))


def skip_layers(self, x):
    """As stochastic depth does, by random states that are not PyTorch's."""
    x = plain(self, x)
    for draw in (random.random, np.random.random):
        for _ in range(8):
            x = self.other(x) if draw() < 0.5 else x
    return x


def want_targets(self, x):
    y = plain(self, x)
    return F.mse_loss(y, self.targets) if self.training else y


def want_data(self, x):
    y = plain(self, x)
    return y if y.sum() > 0 else y * isinstance(self.pool, nn.MaxPool2d)


ALIKE = {
    "plain": plain,
    "layers skipped at random": skip_layers,
    "targets in training": want_targets,
    "code that wants data": want_data,
    "tuples": lambda self, x: F.interpolate(plain(self, x), scale_factor=self.pool.stride),
}


@pytest.mark.parametrize("run", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("training", [False, True])
def test_a_forward_that_does_the_same_is_silent(run, training):
    model = Network(run).train(training)
    assert told(model) is None
    assert model.training == training


def test_a_loss_in_training_and_a_class_in_evaluation():
    def run(self, x):
        y = ask_for_class(self, x)
        return F.mse_loss(y, self.targets) if self.training else y

    assert told(Network(run)) == "no longer calls 'other'"


def test_random_states_and_the_network_stay():
    model = Network(skip_layers)
    model.other = nn.BatchNorm2d(4)
    states = random.getstate(), np.random.get_state()[1].tolist()
    replace(model, pool=SoftPool2d)
    assert states == (random.getstate(), np.random.get_state()[1].tolist())
    assert model.other.num_batches_tracked == 0


@functools.lru_cache
def cached_columns(width):
    return torch.linspace(-1, 1, width)


@pytest.mark.parametrize("targets", [False, True])
def test_what_the_code_keeps_is_no_change(targets):
    def run(self, x):
        return (want_targets if targets else plain)(self, x + cached_columns(x.shape[-1]))

    cached_columns.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        replace(Network(run))
    cached_columns.cache_clear()
    assert ["keeps tensors" in str(warning.message) for warning in caught] == [True] * (not targets)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"functional": True, "stride_one": True},
        {"strided_convs": True},
        {"strides": "after_blocks", "unsupported": "skip"},
        {"start": "as_was"},
        {"where": lambda path, module: path != "pools.0"},
        {"sample_shape": (1, 3, 16, 16)},  # on which a head's norm refuses to be trained
        {"pool": nn.AvgPool2d},
        {"pool": lambda c, k, s, p, ceil, device, dtype: Values(k, s, p)},
    ],
    ids=lambda options: " ".join(options) or "none",
)
def test_every_kind_of_replacement_is_silent(options):
    pool = nn.MaxPool2d(2)
    model = Everything(pool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(replace(model, **options)) > 0


class Values(nn.MaxPool2d):
    """A pooling of a caller's own that asks for data."""

    def forward(self, x):
        return super().forward(x) * (1 if x.sum() > 0 else 2)


class Everything(nn.Module):
    """What can be replaced, in one network; a pooling in two attributes, called with two widths."""

    def __init__(self, pool):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.pools = nn.ModuleList([pool, pool])
        self.last = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, 1, 1)
        x = self.pools[1](self.last(self.pools[0](x)))
        return x, F.avg_pool2d(x, 2)


def test_no_backend_is_loaded():
    program = (
        "import sys; from torch import nn; from gfgp_cupy import replace_pooling\n"
        "net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))\n"
        "replace_pooling(net, sample_shape=(2, 3, 16, 16))\n"
        "print({'numba', 'cupy'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout.strip(), run.returncode) == ("set()", 0), run.stderr
