"""Padding that counts, TensorFlow's "same" padding, and the spellings of a window."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

import gfgp_cupy
from gfgp_cupy import GFGPMaxEntPool2d, GFGPMaxEntPool3d, MaxEntPool2d, SoftPool2d, use_backend
from gfgp_cupy.functional import guided_max_ent_pool2d, max_ent_pool2d
from gfgp_cupy.geometry import PoolGeometry
from gfgp_cupy.padding import place_windows
from gfgp_cupy.poolings import create_pooling, list_poolings
from gfgp_cupy.poolings.gaussian import GFGPGaussianPool2d, gaussian_pool2d
from tests.support.implementations import each_backend
from tests.support.pooling_cases import each_case
from tests.support.random_numbers import random_numbers

PADDINGS = {
    "3/2/1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "3/2/1 ceil": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    "3x2/1x3/1x0 ceil": {
        "kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0), "ceil_mode": True,
    },
    "2/3/1 ceil": {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
}  # fmt: skip
each_padding = pytest.mark.parametrize("window", PADDINGS.values(), ids=PADDINGS)

SAME = {
    "2/2": {"kernel_size": 2},
    "3/2": {"kernel_size": 3, "stride": 2},
    "2/1": {"kernel_size": 2, "stride": 1},
    "4x3/1x2": {"kernel_size": (4, 3), "stride": (1, 2)},
    "2x5/3x4": {"kernel_size": (2, 5), "stride": (3, 4)},
}
each_same = pytest.mark.parametrize("window", SAME.values(), ids=SAME)

on_torch = pytest.mark.usefixtures("torch_backend")  # it needs no compiling of kernels


@pytest.fixture
def torch_backend():
    with use_backend("torch"):
        yield


def numbers(shape=(2, 3, 7, 6), dtype=torch.float64, seed=0):
    return random_numbers(shape, dtype, seed)


def same_amounts(length, kernel, stride):
    """TensorFlow's rule as it is documented: elements of padding before and behind."""
    windows = -(-length // stride)
    total = max((windows - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def padded_as_same(x, kernel_size, stride=None, value=0.0):
    kernel = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
    stride = kernel if stride is None else stride
    step = (stride,) * 2 if isinstance(stride, int) else stride
    top, bottom = same_amounts(x.shape[-2], kernel[0], step[0])
    left, right = same_amounts(x.shape[-1], kernel[1], step[1])
    return F.pad(x, (left, right, top, bottom), value=value), kernel, step


def inside_mean(x, **window):
    """The mean of the elements that each window has inside the input, as TensorFlow has it."""
    sums, kernel, step = padded_as_same(x, **window)
    counts, _, _ = padded_as_same(torch.ones_like(x), **window)
    return F.avg_pool2d(sums, kernel, step) / F.avg_pool2d(counts, kernel, step)


# ---------------------------------------------------------------- padding that counts


def test_counted_padding_is_that_of_avg_pool2d():
    """Every geometry of one axis, against PyTorch's own average."""
    compared = 0
    with use_backend("torch"):
        for kernel, stride, ceil_mode in itertools.product(range(2, 6), range(1, 6), (False, True)):
            for padding, length in itertools.product(range(1, kernel // 2 + 1), range(1, 10, 2)):
                window = ((kernel, 1), (stride, 2), (padding, 0), ceil_mode)
                x = numbers((1, 1, length, 4))
                try:
                    average = F.avg_pool2d(x, *window, count_include_pad=True)
                except RuntimeError:
                    continue
                ours = max_ent_pool2d(x, 0.0, *window, count_include_pad=True)
                torch.testing.assert_close(ours, average, msg=f"{window}, {length}")
                compared += 1
    assert compared > 200


@each_padding
def test_counted_padding_takes_part_as_zeros(window):
    x, lam = numbers(), numbers((2, 3, 1, 1), seed=1)
    with use_backend("torch"):
        average = max_ent_pool2d(x, 0.0, **window, count_include_pad=True)
        ours = max_ent_pool2d(x, lam, **window, count_include_pad=True)
    torch.testing.assert_close(average, F.avg_pool2d(x, **window))
    assert not torch.equal(average, F.avg_pool2d(x, **window, count_include_pad=False))
    weight = torch.exp(lam * x)
    beyond = {**window, "divisor_override": 1}
    zeros = F.avg_pool2d(torch.ones_like(x), **beyond, count_include_pad=False)
    counted = F.avg_pool2d(torch.ones_like(x), **window)
    elements = F.avg_pool2d(torch.ones_like(x), **beyond) / counted
    total = F.avg_pool2d(weight, **beyond) + (elements - zeros)
    torch.testing.assert_close(ours, F.avg_pool2d(weight * x, **beyond) / total)


@each_case
@each_padding
def test_counted_padding_of_the_other_poolings(case, window):
    x = case.images()
    geometry = PoolGeometry(*place_windows(x, **window).geometry)
    parameters = case.parameters(3, geometry)
    placed = place_windows(x, **window, count_include_pad=True)
    expected = case.by_loops(placed.padded, parameters, placed.geometry)
    first, rest = parameters[:1], parameters[1:]
    extra = {"bias": rest[0]} if rest else {}
    with use_backend("torch"):
        ours = case.function(x, *first, **window, **extra, count_include_pad=True)
    assert ours.shape == F.max_pool2d(x, **window).shape
    torch.testing.assert_close(ours, expected)


@each_padding
def test_gaussian_pooling_counts_as_avg_pool2d(window):
    x = numbers()
    ours = gaussian_pool2d(x, 0.0, **window, count_include_pad=True)
    torch.testing.assert_close(ours, F.avg_pool2d(x, **window))


def test_without_padding_nothing_is_copied():
    x = numbers()
    placed = place_windows(x, 3, 2, ceil_mode=True, count_include_pad=True)
    assert placed.padded is x
    assert place_windows(x, 3, 2, "same").padded is x
    assert place_windows(x[..., :6, :6], 2, 2, "same", count_include_pad=True).padded.shape[2] == 6


# ---------------------------------------------------------------- same padding


def test_same_windows_are_tensorflows():
    """Every geometry of one axis: maximum and mean of what lies inside, and of the zeros too."""
    with use_backend("torch"):
        for kernel, stride, length in itertools.product(range(1, 7), range(1, 6), range(1, 9, 2)):
            x = numbers((1, 1, length, length + 1))
            window = {"kernel_size": (kernel, 2), "stride": (stride, 1)}
            size = (-(-length // stride), length + 1)
            filled, *pair = padded_as_same(x, **window, value=-torch.inf)
            zeros, *_ = padded_as_same(x, **window)
            largest = max_ent_pool2d(x, 1e9, **window, padding="same")
            assert largest.shape[2:] == size
            torch.testing.assert_close(largest, F.max_pool2d(filled, *pair))
            mean = max_ent_pool2d(x, 0.0, **window, padding="same")
            torch.testing.assert_close(mean, inside_mean(x, **window))
            counted = max_ent_pool2d(x, 0.0, **window, padding="same", count_include_pad=True)
            torch.testing.assert_close(counted, F.avg_pool2d(zeros, *pair))


@each_same
def test_same_is_timms(window):
    same = pytest.importorskip("timm.layers.pool2d_same", reason="pip install timm")
    for shape in ((2, 3, 7, 6), (1, 2, 8, 9)):
        x = numbers(shape)
        plain = {"stride": window["kernel_size"], **window}
        with use_backend("torch"):
            largest = max_ent_pool2d(x, 1e9, **window, padding="same")
            counted = max_ent_pool2d(x, 0.0, **window, padding="same", count_include_pad=True)
        torch.testing.assert_close(largest, same.MaxPool2dSame(**plain)(x))
        torch.testing.assert_close(counted, same.AvgPool2dSame(**plain)(x))


@each_backend
@pytest.mark.parametrize("window", [SAME["3/2"], SAME["2/1"]], ids=["3/2", "2/1"])
def test_same_on_each_backend(backend, window):
    """λ of each window, and gradients, against the unfolded input."""
    x = numbers().to(backend.device).requires_grad_()
    lam = numbers(inside_mean(x, **window).shape, seed=1).to(backend.device).requires_grad_()
    with use_backend(backend.name):
        output = max_ent_pool2d(x, lam, **window, padding="same")
        output.backward(torch.ones_like(output))
    _, kernel, step = padded_as_same(x, **window)
    values = F.unfold(padded_as_same(x.detach(), **window)[0], kernel, stride=step)
    ones, _, _ = padded_as_same(torch.ones_like(x.detach()), **window)
    inside = F.unfold(ones, kernel, stride=step)
    shape = (2, 3, kernel[0] * kernel[1], -1)
    values, inside = values.view(shape), inside.view(shape) > 0
    score = (lam.detach().flatten(2)[:, :, None] * values).masked_fill(~inside, -torch.inf)
    p = score.softmax(2)
    y = (p * values).sum(2)
    torch.testing.assert_close(output.detach().flatten(2), y)
    v = (p * (values - y[:, :, None]) ** 2).sum(2)
    torch.testing.assert_close(lam.grad.flatten(2), v)
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("count_include_pad", [False, True])
@each_same
def test_gradients_agree_with_finite_differences(window, count_include_pad):
    x = numbers((1, 1, 5, 4)).requires_grad_()
    lam = numbers((1, 1, 1, 1), seed=1).requires_grad_()
    options = {**window, "padding": "same", "count_include_pad": count_include_pad}
    with use_backend("torch"):
        assert gradcheck(lambda x, lam: max_ent_pool2d(x, lam, **options), (x, lam))
        assert gradcheck(lambda x: guided_max_ent_pool2d(x, torch.sigmoid, **options), (x,))


@on_torch
def test_the_fused_layer_is_the_composition():
    x = numbers()
    for options in ({"padding": "same"}, {"padding": "same", "count_include_pad": True}):
        for window in SAME.values():
            gradients = []
            for pool in (
                lambda x, **o: guided_max_ent_pool2d(x, torch.sigmoid, **o),
                lambda x, **o: max_ent_pool2d(x, x.mean((2, 3), keepdim=True).sigmoid(), **o),
            ):
                leaf = x.clone().requires_grad_()
                pool(leaf, **window, **options).square().sum().backward()
                gradients.append(leaf.grad)
            torch.testing.assert_close(*gradients)


# ---------------------------------------------------------------- layers

OF_THIS_LIBRARY = [name for name in list_poolings() if name not in ("max", "avg")]
OPTIONS = {
    "counted": {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": True},
    "same": {"kernel_size": 3, "stride": 2, "padding": "same"},
    "same, surplus": {"kernel_size": 2, "stride": 1, "padding": "same"},
    "same, counted": {
        "kernel_size": 3, "stride": 2, "padding": "same", "count_include_pad": True,
    },
}  # fmt: skip
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def make(pool, options):
    if pool == "gaussian":
        return GFGPGaussianPool2d(4, **options)
    return create_pooling(pool, 4, **options)


@on_torch
@each_option
@pytest.mark.parametrize("pool", [*OF_THIS_LIBRARY, "gaussian"])
def test_layers(pool, options):
    layer = make(pool, options).eval()
    x = (numbers((2, 4, 7, 6), torch.float32).abs() + 0.1).requires_grad_()
    output = layer(x)
    size = (4, 3) if options["stride"] == 2 else (7, 6)
    assert output.shape == (2, 4, *size)
    torch.testing.assert_close(layer(x[0]), output[0])
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    in_last = layer(last)
    in_last.sum().backward()
    for tensor in (in_last, last.grad):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(in_last, output)
    told = f"padding={options['padding']!r}" if options["padding"] == "same" else "padding=(1, 1)"
    assert told in repr(layer)
    assert ("count_include_pad=True" in repr(layer)) is options.get("count_include_pad", False)


def guided(options):
    torch.manual_seed(0)
    return GFGPMaxEntPool2d(4, **options).eval()


@on_torch
@each_option
def test_the_head_sees_the_mean_without_padding(options):
    layer = guided(options)
    x = numbers((2, 4, 7, 6), torch.float32)
    lam = layer.head(x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(layer(x), max_ent_pool2d(x, lam, **options))
    mixed = create_pooling("gfgp_mixed", 4, **options).eval()
    proportion = mixed.head(x.mean((2, 3), keepdim=True))
    expected = gfgp_cupy.poolings.mixed_pool2d(x, proportion, **options)
    torch.testing.assert_close(mixed(x), expected)


def test_pytorchs_layers_by_name():
    x = numbers()
    for counted in (None, True, False):
        layer = create_pooling("avg", 3, 3, 2, 1, count_include_pad=counted)
        average = F.avg_pool2d(x, 3, 2, 1, count_include_pad=counted is not False)
        torch.testing.assert_close(layer(x), average)
    for pool in ("max", "avg"):
        with pytest.raises(ValueError, match=f"pool='{pool}' is torch.nn.*no padding='same'"):
            create_pooling(pool, 3, 3, 2, padding="same")
    with pytest.raises(ValueError, match=r"pool='max'.*count_include_pad=True"):
        create_pooling("max", 3, 3, 2, 1, count_include_pad=True)


def test_a_layer_that_was_pickled_before_it_had_the_option():
    layer = SoftPool2d(2)
    del layer.__dict__["count_include_pad"]
    x = numbers()
    assert torch.equal(layer(x), SoftPool2d(2)(x))


# ---------------------------------------------------------------- compiled, exported, traced


SIZES = ((8, 9), (7, 6), (6, 6))
"""The first is traced. Odd and even on both axes, and once the same on both."""


@on_torch
@pytest.mark.parametrize(
    ("pool", "option"),
    [
        *(("max_ent", option) for option in OPTIONS),
        *(
            pytest.param("mixed", option, marks=pytest.mark.slow)
            for option in ("same", "same, counted")
        ),
    ],
)
def test_compiled_for_any_size(pool, option):
    torch._dynamo.reset()
    layer = make(pool, OPTIONS[option]).eval()
    compiled = torch.compile(layer, backend="eager", dynamic=True, fullgraph=True)
    for size in SIZES:
        x = numbers((2, 4, *size), torch.float32).abs() + 0.1
        torch.testing.assert_close(compiled(x), layer(x))
        x = x.contiguous(memory_format=torch.channels_last)
        assert compiled(x).is_contiguous(memory_format=torch.channels_last)


@on_torch
@each_option
def test_exported_for_any_size(options):
    layer = guided(options)
    sizes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    x = numbers((2, 4, 8, 9), torch.float32)
    program = torch.export.export(layer, (x,), dynamic_shapes=sizes).module()
    for size in SIZES:
        x = numbers((2, 4, *size), torch.float32)
        torch.testing.assert_close(program(x), layer(x))


@on_torch
@pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="PyTorch 2.6 exports no guards, a pooling of its own neither"
)
def test_same_padding_that_differs_is_not_exported_for_all_sizes_in_silence():
    x = numbers((2, 4, 8, 9), torch.float32)
    sizes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    mixed = create_pooling("mixed", 4, 3, 2, "same").eval()
    torch.testing.assert_close(torch.export.export(mixed, (x,)).module()(x), mixed(x))
    refused = (torch._dynamo.exc.UserError, AssertionError, RuntimeError)
    with pytest.raises(refused, match=r"(?i)guard failed|constraint|size"):
        program = torch.export.export(mixed, (x,), dynamic_shapes=sizes).module()
        program(numbers((2, 4, 7, 6), torch.float32))


@on_torch
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
@each_option
@pytest.mark.parametrize("pool", [*OF_THIS_LIBRARY, "gaussian"])
def test_traced_for_any_size(pool, options):
    layer = make(pool, options).eval()
    x = numbers((2, 4, *SIZES[0]), torch.float32).abs()
    traced = torch.jit.trace(layer, x, check_trace=False)
    for size in SIZES:
        x = numbers((2, 4, *size), torch.float32).abs()
        torch.testing.assert_close(traced(x), layer(x))


# ---------------------------------------------------------------- spellings

SPELLINGS = {
    "list": {"kernel_size": [2, 3]},
    "1-tuple": {"kernel_size": (2,), "stride": (1,), "padding": (1,)},
    "torch.Size": {"kernel_size": torch.Size([2, 3]), "stride": torch.Size([1, 2])},
    "NumPy int": {"kernel_size": np.int64(3), "stride": np.int32(2), "padding": np.int64(1)},
    "NumPy ints": {"kernel_size": (np.int64(3), 2), "padding": [np.int32(1), 0]},
    "stride=None": {"kernel_size": 2, "stride": None},
    "stride=()": {"kernel_size": 2, "stride": ()},
    "stride=[]": {"kernel_size": (3, 2), "stride": []},
    "empty torch.Size": {"kernel_size": 2, "stride": torch.Size([])},
    "ceil_mode": {"kernel_size": 2, "ceil_mode": True},
}
REFUSED = {
    "float": {"kernel_size": 2.0},
    "three": {"kernel_size": (2, 2, 2)},
    "no kernel": {"kernel_size": ()},
    "no padding": {"kernel_size": 2, "padding": ()},
    "padding=None": {"kernel_size": 2, "padding": None},
    "bool": {"kernel_size": True},
    "str": {"kernel_size": "2"},
    "stride 0": {"kernel_size": 2, "stride": 0},
    "ceil_mode str": {"kernel_size": 2, "ceil_mode": "no"},
    "ceil_mode None": {"kernel_size": 2, "ceil_mode": None},
}


@on_torch
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_that_pytorchs_poolings_take(spelling):
    x = numbers((2, 3, 9, 8))
    largest = F.max_pool2d(x, **spelling)
    torch.testing.assert_close(nn.MaxPool2d(**spelling)(x), largest)
    torch.testing.assert_close(max_ent_pool2d(x, 1e9, **spelling), largest)
    layer = MaxEntPool2d(**spelling, init_lambda=1e9)
    torch.testing.assert_close(layer(x), largest)
    torch.testing.assert_close(layer(x[0]), largest[0])
    average = F.avg_pool2d(x, **spelling, count_include_pad=False)
    torch.testing.assert_close(max_ent_pool2d(x, 0.0, **spelling), average)
    for pool in OF_THIS_LIBRARY:
        assert create_pooling(pool, 3, **spelling, dtype=torch.float64)(x).shape == largest.shape


@pytest.mark.parametrize("spelling", REFUSED.values(), ids=REFUSED)
def test_what_pytorchs_poolings_refuse_is_refused(spelling):
    x = numbers((2, 3, 9, 8))
    with pytest.raises((TypeError, RuntimeError)):
        nn.MaxPool2d(**spelling)(x)
    (name,) = spelling if len(spelling) == 1 else set(spelling) - {"kernel_size"}
    with pytest.raises((TypeError, ValueError), match=name):
        MaxEntPool2d(**spelling)
    with pytest.raises((TypeError, ValueError), match=name):
        max_ent_pool2d(x, 1.0, **spelling)


@on_torch
def test_flags_are_bools_as_pytorchs_are():
    x = numbers()
    yes, no = np.bool_(True), np.bool_(False)
    for flags in ((yes, no), (no, yes), (True, False), (False, True)):
        expected = F.avg_pool2d(x, 3, 2, 1, *map(bool, flags))
        torch.testing.assert_close(max_ent_pool2d(x, 0.0, 3, 2, 1, *flags), expected)
    for flag in (1, 0, 1.0, "yes", [True], None):
        with pytest.raises((TypeError, RuntimeError)):
            F.avg_pool2d(x, 3, 2, 1, flag)
        with pytest.raises(TypeError, match=r"ceil_mode must be True or False, got "):
            max_ent_pool2d(x, 1.0, 3, 2, 1, flag)
        with pytest.raises(TypeError, match="count_include_pad must be True or False, got "):
            MaxEntPool2d(2, count_include_pad=flag)
    # As it is called in MaxPool2d(3, 2, 1, 1), whose windows would have no gaps either.
    for create in (MaxEntPool2d, partial(GFGPMaxEntPool2d, 3)):
        with pytest.raises(TypeError, match=r"ceil_mode .*got 1: if it was meant as the dilation"):
            create(3, 2, 1, 1)
    with pytest.raises(ValueError, match=r"padding must be .* or 'same', got 'valid'"):
        MaxEntPool2d(2, padding="valid")


@pytest.mark.parametrize(
    ("create", "meant"),
    [
        (lambda layer: layer(3, 2, 1), "(8, 3, 2, 1)"),
        (lambda layer: layer(3, 2), "(8, 3, 2)"),
        (lambda layer: layer(2, (2, 3), 1), "(8, 2, (2, 3), 1)"),
    ],
)
def test_a_window_in_place_of_num_features_is_explained(create, meant):
    guided_names = [name for name in list_poolings() if name.startswith("gfgp_")]
    layers = [type(create_pooling(name, 4, 2)) for name in guided_names]
    for layer in (*layers, GFGPMaxEntPool2d, GFGPGaussianPool2d):
        with pytest.raises(ValueError, match="num_features comes first: ") as caught:
            create(layer)(numbers((2, 8, 6, 6), torch.float32))
        assert str(caught.value).endswith(f"{layer.__name__}{meant}")


@pytest.mark.parametrize(
    ("layer", "shape", "said"),
    [
        (
            GFGPMaxEntPool2d,
            (2, 8, 6),
            r"num_features=2.*; if it is \[N, C, L\], that takes a layer of 1-d windows$",
        ),
        (
            GFGPMaxEntPool3d,
            (2, 8, 6, 6),
            r"num_features=2.*; if it is \[N, C, H, W\], that takes a layer of 2-d windows$",
        ),
        (GFGPMaxEntPool2d, (8, 2, 6), "make the layer with num_features=8"),
    ],
)
def test_an_input_of_fewer_axes_is_explained(layer, shape, said):
    features = 8 if shape[1] == 8 else 4
    with pytest.raises(ValueError, match=said):
        layer(features, 2)(torch.zeros(shape))


def test_advice_for_other_channels_works():
    with pytest.raises(ValueError, match=r"make the layer with num_features=8$"):
        GFGPMaxEntPool2d(64, 2)(numbers((2, 8, 6, 6), torch.float32))


def test_num_features_in_place_of_the_window_is_explained():
    x = numbers((2, 64, 8, 8), torch.float32)
    with pytest.raises(ValueError, match="first: kernel_size=2, and num_features=64 where"):
        MaxEntPool2d(64, 2)(x)
    with pytest.raises(ValueError, match="first: kernel_size=…, and num_features=64 where"):
        SoftPool2d(64)(x)
    with pytest.raises(ValueError, match=r"padding=\(0, 0\)$"):
        MaxEntPool2d(32)(x)


def test_soft_pooling_has_the_published_kernel():
    x = numbers()
    assert torch.equal(SoftPool2d()(x), SoftPool2d(2)(x))
