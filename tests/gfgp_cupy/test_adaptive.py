"""Pooling to an output of a given size: PyTorch's adaptive windows, for every window function."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode

from gfgp_cupy import (
    AdaptiveGeneralizedMeanPool2d,
    AdaptiveMaxEntPool2d,
    GFGPAdaptiveMaxEntPool2d,
    GFGPGlobalGeneralizedMeanPool2d,
    GFGPGlobalMaxEntPool2d,
    GlobalGeneralizedMeanPool2d,
    GlobalMaxEntPool2d,
    use_backend,
)
from gfgp_cupy.bins import taken
from gfgp_cupy.functional import (
    adaptive_max_ent_pool2d,
    adaptive_windows,
    gaussian_pool2d,
    guided_max_ent_pool2d,
    max_ent_pool2d,
)
from gfgp_cupy.poolings import (
    adaptive_generalized_mean_pool2d,
    create_pooling,
    generalized_mean_pool2d,
    log_sum_exp_pool2d,
    mixed_pool2d,
)
from tests.support.random_numbers import random_numbers
from tests.support.small_networks import small_resnet

EVEN, UNEVEN = ((8, 6), (2, 3)), ((7, 9), (3, 4))
CASES = {
    "even": EVEN,
    "uneven": UNEVEN,
    "one axis uneven": ((6, 5), (3, 2)),
    "more than the input has": ((3, 4), (5, 4)),
    "as the input": ((4, 7), (None, 2)),
    "one row": ((1, 4), (7, 2)),
    "whole planes": ((5, 6), 1),
}
each_size = pytest.mark.parametrize(("plane", "output_size"), CASES.values(), ids=CASES)

FUNCTIONS = {
    "max_ent": max_ent_pool2d,
    "gaussian": gaussian_pool2d,
    "gem": generalized_mean_pool2d,
    "lse": log_sum_exp_pool2d,
    "mixed": mixed_pool2d,
}


def numbers(shape, seed=0, dtype=torch.float64):
    return random_numbers(shape, dtype, seed)


def by_loops(pool, input, parameter, output_size):
    """Each of PyTorch's adaptive windows cut out and pooled by itself."""
    down, across = adaptive_windows(output_size).of_axes(2).output_size(*input.shape[2:])
    height, width = input.shape[2:]
    parameter = parameter.expand(*input.shape[:2], down, across)
    rows = []
    for i in range(down):
        top, bottom = math.floor(i * height / down), math.ceil((i + 1) * height / down)
        row = []
        for j in range(across):
            left, right = math.floor(j * width / across), math.ceil((j + 1) * width / across)
            window = input[:, :, top:bottom, left:right]
            at = parameter[:, :, i : i + 1, j : j + 1]
            row.append(pool(window.contiguous(), at, (bottom - top, right - left)))
        rows.append(torch.cat(row, 3))
    return torch.cat(rows, 2)


@each_size
@pytest.mark.parametrize("pool", FUNCTIONS.values(), ids=FUNCTIONS)
def test_windows_are_those_of_pytorch(pool, plane, output_size):
    input = numbers((2, 3, *plane)).abs() + 0.1
    parameter = numbers((1, 3, 1, 1), seed=1).abs() + 0.5
    with use_backend("torch"):
        output = pool(input, parameter, adaptive_windows(output_size))
        expected = by_loops(pool, input, parameter, output_size)
    torch.testing.assert_close(output, expected)
    assert output.shape == F.adaptive_avg_pool2d(input, output_size).shape


@each_size
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_limits_are_pytorchs_adaptive_poolings(layout, backend, plane, output_size):
    input = numbers((2, 8, *plane), dtype=torch.float32).contiguous(memory_format=layout)
    with use_backend(backend):
        mean = adaptive_max_ent_pool2d(input, 0.0, output_size)
        most = adaptive_max_ent_pool2d(input, 1e7, output_size)
    torch.testing.assert_close(mean, F.adaptive_avg_pool2d(input, output_size))
    torch.testing.assert_close(most, F.adaptive_max_pool2d(input, output_size))
    if mean.shape[2:] != (1, 1):
        assert mean.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("guided", [False, True], ids=["lam", "guided"])
def test_the_gradient_of_windows_of_several_lengths_keeps_the_memory_format(guided):
    input = numbers((2, 8, 9, 7)).contiguous(memory_format=torch.channels_last).requires_grad_()
    size = adaptive_windows((4, 3))
    if guided:
        output = guided_max_ent_pool2d(input, torch.sigmoid, size)
    else:
        output = max_ent_pool2d(input, 1.0, size)
    (gradient,) = torch.autograd.grad(output.sum(), input)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@each_size
def test_one_image_and_a_lam_a_window(plane, output_size):
    image = numbers((3, *plane))
    shape = F.adaptive_avg_pool2d(image, output_size).shape
    lam = numbers((1, *shape), seed=1)
    output = adaptive_max_ent_pool2d(image, lam, output_size)
    assert output.shape == shape
    expected = by_loops(max_ent_pool2d, image[None], lam, output_size)
    torch.testing.assert_close(output[None], expected)


@pytest.mark.parametrize(("plane", "output_size"), [EVEN, UNEVEN, ((4, 3), 1)])
def test_gradients_are_right_to_second_order(plane, output_size):
    input = numbers((1, 2, *plane)).requires_grad_()
    lam = numbers((1, 2, 1, 1), seed=1).requires_grad_()

    def pool(input, lam):
        return adaptive_max_ent_pool2d(input, lam, output_size)

    with use_backend("torch"):
        assert torch.autograd.gradcheck(pool, (input, lam))
        assert torch.autograd.gradgradcheck(pool, (input, lam))


def test_huge_elements_do_not_overflow_and_no_number_is_kept():
    input = torch.tensor([3e38, -3e38, 3e38, 3e38]).view(1, 1, 2, 2)
    for backend in ("torch", "numba"):
        with use_backend(backend):
            assert torch.isnan(adaptive_max_ent_pool2d(input, 0.0, 1)).all()  # as of any window
            small = adaptive_max_ent_pool2d(input / 2, 0.0, 1)
            torch.testing.assert_close(small, input.div(2).mean().view(1, 1, 1, 1))
            for number in (math.nan, math.inf, -math.inf):
                hostile = torch.zeros(1, 1, 3, 3)
                hostile[0, 0, 1, 1] = number
                assert torch.isnan(adaptive_max_ent_pool2d(hostile, 1.0, 1)).all()


LAYERS = {
    "adaptive": lambda: AdaptiveMaxEntPool2d((2, 1), num_features=4),
    "global": lambda: GlobalMaxEntPool2d(num_features=4),
    "guided": lambda: GFGPGlobalMaxEntPool2d(4).eval(),
    "gem": lambda: GlobalGeneralizedMeanPool2d(),
    "adaptive gem": lambda: AdaptiveGeneralizedMeanPool2d(3),
    "guided gem": lambda: GFGPGlobalGeneralizedMeanPool2d(4).eval(),
}


@pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)
def test_layers_say_their_output_size_and_load_their_states(create):
    layer, other = create(), create()
    height, width = layer.output_size
    assert layer(torch.rand(2, 4, 9, 6)).shape == (2, 4, height, width)
    is_global = "Global" in type(layer).__name__  # which takes no such argument
    assert (f"output_size={layer.output_size}" in repr(layer)) is not is_global
    assert "kernel_size" not in repr(layer).partition("\n")[0]
    with torch.no_grad():
        for tensor in layer.parameters():
            tensor.add_(0.5)
    other.load_state_dict(layer.state_dict())
    input = torch.rand(2, 4, 6, 6)
    assert torch.equal(layer(input), other(input))


def test_gem_and_any_pooling_by_name():
    input = numbers((2, 4, 6, 7)).abs()
    with use_backend("torch"):  # Numba would compile each of them
        torch.testing.assert_close(
            adaptive_generalized_mean_pool2d(input, 3.0, 1),
            input.pow(3).mean((2, 3), keepdim=True).pow(1 / 3),
        )
        for name in ("soft", "max_ent", "gem", "lse", "mixed"):
            pool = create_pooling(name, 4, kernel_size=adaptive_windows(2)).double().eval()
            assert pool(input).shape == (2, 4, 2, 2)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize(
    "create", [LAYERS["global"], LAYERS["guided"], LAYERS["gem"]], ids=["global", "guided", "gem"]
)
def test_an_exported_program_pools_planes_of_any_size(create, backend):
    layer = create()
    with use_backend(backend), torch.no_grad():
        program = torch.export.export(
            layer, (torch.rand(3, 4, 8, 6),), dynamic_shapes=({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
        )
        for shape in ((3, 4, 9, 13), (3, 4, 5, 2)):
            input = torch.rand(shape)
            torch.testing.assert_close(program.module()(input), layer(input))


TWO_LENGTHS = pytest.param(
    (3, 2),
    marks=pytest.mark.skipif(
        torch.__version__ < (2, 7), reason="PyTorch 2.6 with dynamic=True refuses two lengths"
    ),
)


@pytest.mark.parametrize("output_size", [1, TWO_LENGTHS])
def test_compiled_for_planes_of_any_size(output_size):
    layer = AdaptiveMaxEntPool2d(output_size, num_features=4)
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=True)
    with torch.compiler.set_stance("default"):
        for shape in ((2, 4, 8, 6), (2, 4, 9, 13), (2, 4, 7, 7)):
            input = torch.rand(shape)
            torch.testing.assert_close(compiled(input), layer(input))


def test_a_jit_trace_pools_planes_of_any_size():
    layer = GlobalMaxEntPool2d(num_features=4)
    traced = torch.jit.trace(layer, (torch.rand(2, 4, 6, 6),))
    input = torch.rand(2, 4, 9, 5)
    torch.testing.assert_close(traced(input), layer(input))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated")
def test_a_jit_trace_of_windows_of_two_lengths_warns_of_nothing():
    layer = AdaptiveMaxEntPool2d((3, 2), num_features=4)
    input = torch.rand(2, 4, 8, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(layer, (input,))
    torch.testing.assert_close(traced(input), layer(input))


@pytest.mark.parametrize("output_size", [1, (4, 3)])
def test_transforms_take_adaptive_windows(output_size):
    input, lam = numbers((3, 2, 6, 4)), torch.tensor(1.5, dtype=torch.float64)

    def pool(x):
        return adaptive_max_ent_pool2d(x, lam, output_size)

    torch.testing.assert_close(torch.vmap(pool)(input), pool(input))
    _, tangent = torch.func.jvp(pool, (input,), (torch.ones_like(input),))
    torch.testing.assert_close(tangent, torch.ones_like(tangent))
    symbolic = torch.fx.symbolic_trace(nn.Sequential(GlobalMaxEntPool2d()))
    assert symbolic(input.float()).shape == (3, 2, 1, 1)


def test_the_last_pooling_of_a_network():
    network = small_resnet()
    channels = network.fc.in_features
    average = network(torch.rand(4, 3, 32, 32)).shape
    network.avgpool = GFGPGlobalMaxEntPool2d(channels)
    logits = network(torch.rand(8, 3, 32, 32))
    assert logits.shape[1:] == average[1:]
    logits.sum().backward()
    assert network.avgpool.head.conv1.weight.grad is not None


def test_what_takes_no_adaptive_windows_says_so():
    with pytest.raises(TypeError, match=r"must be sizes, got .*output_size=\(2, None\)"):
        create_pooling("gated", 4, adaptive_windows((2, None)))
    with pytest.raises(TypeError, match="kernel_size must be sizes"):
        create_pooling("gfgp_gated", 4, adaptive_windows(2))
    for name, other in (("max", "AdaptiveMaxPool2d"), ("avg", "AdaptiveAvgPool2d")):
        with pytest.raises(ValueError, match=rf"take torch\.nn\.{other}"):
            create_pooling(name, 4, adaptive_windows(3))
        assert hasattr(nn, other)


def test_output_size_changes_as_that_of_pytorchs_layers():
    for pool in (AdaptiveMaxEntPool2d(3), nn.AdaptiveAvgPool2d(3)):
        pool.output_size = (np.int64(2), None)
        assert pool(torch.rand(1, 1, 6, 5)).shape == (1, 1, 2, 5)
    assert repr(AdaptiveMaxEntPool2d(np.int32(2))) == repr(AdaptiveMaxEntPool2d((2, 2)))
    pool = AdaptiveMaxEntPool2d(3)
    with pytest.raises(TypeError, match="output_size must be an int, None, or a pair"):
        pool.output_size = (1, 2, 3)


@pytest.mark.parametrize("wrong", ["2", 1.5, (1, 2, 3), (1.0, 2), True])
def test_output_size_of_a_wrong_type(wrong):
    with pytest.raises(TypeError, match="output_size must be an int, None, or a pair"):
        AdaptiveMaxEntPool2d(wrong)


def test_export_for_any_size_whose_windows_depend_on_it():
    layer, free = AdaptiveMaxEntPool2d((3, 2)), ({2: Dim.DYNAMIC},)
    with pytest.raises(Exception, match=r"a constant \(8\)"):
        torch.export.export(layer, (torch.rand(2, 4, 8, 6),), dynamic_shapes=free, strict=False)


def test_output_size_that_an_export_leaves_open():
    class Halves(nn.Module):
        def forward(self, x):
            return adaptive_max_ent_pool2d(x, 1.0, (1, x.shape[3] // 2))

    free = ({3: torch.export.Dim.DYNAMIC},)
    with pytest.raises(TypeError, match=r"must be numbers, got .*, which an export leaves open"):
        torch.export.export(Halves(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=free, strict=False)
    image = torch.rand(2, 3, 8, 8)
    program = torch.export.export(Halves(), (image,), strict=False)
    torch.testing.assert_close(program.module()(image), Halves()(image))


def test_other_errors_are_those_of_pooling():
    with pytest.raises(ValueError, match="output_size must be at least 1"):
        adaptive_windows((0, 1))
    with pytest.raises(TypeError, match=r"input must be a torch\.Tensor"):
        adaptive_max_ent_pool2d([1.0], 1.0, 2)
    with pytest.raises(ValueError, match="2 dimensions"):
        adaptive_max_ent_pool2d(torch.rand(2, 2), 1.0, 2)
    with pytest.raises(ValueError, match="may be empty in its batch dimension only"):
        adaptive_max_ent_pool2d(torch.rand(1, 2, 0, 3), 1.0, 2)
    with pytest.raises(ValueError, match=r"lam of shape .* does not broadcast"):
        adaptive_max_ent_pool2d(torch.rand(1, 2, 5, 5), torch.rand(3, 1, 1), 2)
    assert adaptive_max_ent_pool2d(torch.rand(0, 2, 5, 5), 1.0, 2).shape == (0, 2, 2, 2)
    assert adaptive_max_ent_pool2d(torch.rand(0, 8, 5, 5), 1.0, 1).shape == (0, 8, 1, 1)
    with pytest.raises(ValueError, match="make the layer with num_features=8"):
        GFGPGlobalMaxEntPool2d(4)(torch.rand(2, 8, 3, 3))


def test_contiguous_planes_give_the_bits_of_channels_last_ones():
    """Where backend numba pools them, which lays channels side by side."""
    x = numbers((2, 16, 7, 6), dtype=torch.float32)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        input = x.clone(memory_format=layout).requires_grad_()
        lam = torch.full((1, 16, 1, 1), 0.7, requires_grad=True)
        with use_backend("numba"):
            output = adaptive_max_ent_pool2d(input, lam, 1)
        output.square().sum().backward()
        assert output.is_contiguous()
        assert input.grad.is_contiguous(memory_format=layout)
        results.append((output, input.grad, lam.grad))
    for of_planes, of_pixels in zip(*results, strict=True):
        assert torch.equal(of_planes, of_pixels)


NUMBERS = {
    "all": [0, 1, 2, 3, 4],
    "ends": [0, 1, 3, 4],
    "overlapping": [0, 1, 2, 2, 3, 4],
    "repeated": [0, 0, 0, 1, 1, 2, 2, 2, 2, 4],
    "backwards": [4, 3, 2, 1, 0],
    "interleaved": [0, 3, 1, 4, 2],
    "one": [2],
}


@pytest.mark.parametrize("which", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("axis", [2, 3])
def test_slices_are_those_of_an_index(which, axis):
    tensor = numbers((2, 3, 5, 5)).requires_grad_()
    indexed = tensor.index_select(axis, torch.tensor(which))
    cut = taken(tensor, axis, which)
    assert torch.equal(cut, indexed)
    weight = numbers(cut.shape, seed=1)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), tensor)[0] for y in (cut, indexed))
    torch.testing.assert_close(ours, theirs, rtol=1e-15, atol=1e-15)


class Operators(TorchDispatchMode):
    """Names those that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.add(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [(3, 2), (9, 17)], ids=["fewer", "more"])
@pytest.mark.parametrize("guided", [False, True])
def test_no_index_is_copied_to_a_gpu_and_adds_up_in_any_order(size, guided):
    kind = GFGPAdaptiveMaxEntPool2d if guided else AdaptiveMaxEntPool2d
    layer = kind(num_features=3, output_size=size)
    input = numbers((8, 3, 4, 5), dtype=torch.float32).requires_grad_()
    layer(input)  # what is done once is done
    with Operators() as called:
        layer(input).sum().backward()
    assert "split_with_sizes" in called.names
    assert not called.names & {"lift_fresh", "index_select", "index", "index_add", "_to_copy"}
