"""Pooling to an output of a given size, whatever the number of axes: of lines and volumes, too."""

import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

import gfgp_cupy
from gfgp_cupy import functional, poolings, use_backend
from gfgp_cupy.functional import adaptive_windows
from gfgp_cupy.padding import place_windows
from tests.support.random_numbers import random_numbers

CASES = {
    "even line": ((8,), 4),
    "uneven line": ((7,), (3,)),
    "whole line": ((9,), 1),
    "as the line": ((5,), None),
    "even volume": ((4, 8, 6), (2, 4, 3)),
    "uneven volume": ((5, 4, 7), (3, 2, 4)),
    "more than the volume has": ((2, 3, 4), (3, None, 5)),
    "whole volume": ((3, 4, 5), 1),
    "whole planes of a volume": ((3, 4, 5), (None, 1, 1)),
}
each_case = pytest.mark.parametrize(("size", "output_size"), CASES.values(), ids=CASES)
each_axes = pytest.mark.parametrize("axes", [1, 3])


def numbers(size, seed=0, dtype=torch.float64, channels=3):
    return random_numbers((2, channels, *size), dtype, seed)


def of_axes(name, axes):
    return getattr(functional, f"{name}_pool{axes}d", None) or getattr(
        poolings, f"{name}_pool{axes}d"
    )


def sizes_of_output(size, output_size):
    given = output_size if isinstance(output_size, tuple) else (output_size,) * len(size)
    return tuple(each or length for each, length in zip(given, size, strict=True))


def by_loops(pool, input, parameter, counts):
    """Each of PyTorch's adaptive windows cut out and pooled by itself."""
    size = input.shape[2:]
    output = torch.zeros(*input.shape[:2], *counts, dtype=input.dtype)
    parameter = parameter.expand(output.shape)
    for place in itertools.product(*map(range, counts)):
        ranges = [
            slice(math.floor(i * length / count), math.ceil((i + 1) * length / count))
            for i, length, count in zip(place, size, counts, strict=True)
        ]
        window = input[(..., *ranges)].contiguous()
        at = (..., *(slice(i, i + 1) for i in place))
        output[at] = pool(window, parameter[at], tuple(window.shape[2:]))
    return output


@each_case
@pytest.mark.parametrize("name", ["max_ent", "gaussian", "generalized_mean", "mixed"])
def test_windows_are_those_of_pytorch(name, size, output_size):
    input = numbers(size).abs() + 0.1
    counts = sizes_of_output(size, output_size)
    pool = of_axes(name, len(size))
    for of_parameter in ((1,) * len(size), counts):
        parameter = numbers(of_parameter, 1).abs() + 0.5
        with use_backend("torch"):
            output = pool(input, parameter, adaptive_windows(output_size))
            expected = by_loops(pool, input, parameter, counts)
        torch.testing.assert_close(output, expected)


@each_case
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_limits_are_pytorchs_adaptive_poolings(last, backend, size, output_size):
    axes, input = len(size), numbers(size, dtype=torch.float32, channels=9)
    if last and axes == 3:
        input = input.to(memory_format=torch.channels_last_3d)
    pool = of_axes("adaptive_max_ent", axes)
    with use_backend(backend):
        mean, most = pool(input, 0.0, output_size), pool(input, 1e7, output_size)
        torch.testing.assert_close(pool(input[0], 0.0, output_size), mean[0])
    average, largest = (getattr(F, f"adaptive_{kind}_pool{axes}d") for kind in ("avg", "max"))
    counts = sizes_of_output(size, output_size)  # of lines PyTorch takes no None
    torch.testing.assert_close(mean, average(input, counts))
    torch.testing.assert_close(most, largest(input, counts))
    if last and axes == 3:
        assert mean.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("size", "output_size"), [((5,), 2), ((3, 2, 4), (2, 1, 2))])
def test_gradients_are_right_to_second_order(size, output_size):
    input = numbers(size, channels=2).requires_grad_()
    lam = numbers((1,) * len(size), seed=1, channels=2).requires_grad_()
    pool = of_axes("adaptive_max_ent", len(size))
    with use_backend("torch"):
        assert torch.autograd.gradcheck(lambda *x: pool(*x, output_size), (input, lam))
        assert torch.autograd.gradgradcheck(lambda *x: pool(*x, output_size), (input, lam))


@pytest.mark.parametrize(
    ("size", "output_size"),
    [
        ((6,), 2), ((7,), 3), ((8, 6), (2, 3)), ((7, 9), (3, 4)), ((5, 7), 1), ((4, 4, 2), 2),
        ((3, 4, 5), 1), ((3, 5, 4), 2),
    ],
)  # fmt: skip
def test_guided_layer_is_its_head_and_the_function(size, output_size):
    axes = len(size)
    layer = getattr(gfgp_cupy, f"GFGPAdaptiveMaxEntPool{axes}d")(4, output_size).double()
    pool = of_axes("adaptive_max_ent", axes)
    inputs = [random_numbers((8, 4, *size), torch.float64, 0).requires_grad_() for _ in range(2)]
    results = []
    for input, apart in zip(inputs, (False, True), strict=True):
        layer.zero_grad()
        if apart:
            lam = layer.head(input.flatten(2).mean(2)[..., None, None])
            output = pool(input, lam.view(8, 4, *(1,) * axes), output_size)
        else:
            output = layer(input)
        output.square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in layer.parameters()]
        results.append((output, input.grad, *gradients))
    for fused, composed in zip(*results, strict=True):
        torch.testing.assert_close(fused, composed)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("counted", [False, True])
def test_a_whole_volume_is_pooled_as_a_plane_of_its_rows(layout, counted):
    """Whose kernels share its elements among threads; without a copy."""
    input = numbers((3, 4, 5)).to(memory_format=layout)
    windows = place_windows(input, (3, 4, 5), count_include_pad=counted, axes=3)
    assert windows.input.shape == (2, 3, 12, 5)
    assert windows.input.data_ptr() == input.data_ptr()
    assert windows.output_size() == (1, 1, 1)
    output = functional.max_ent_pool3d(input, 1.5, (3, 4, 5), count_include_pad=counted)
    expected = functional.max_ent_pool2d(input.flatten(2, 3), 1.5, (12, 5))
    assert torch.equal(output, expected.unsqueeze(2))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_every_other_plane_of_a_volume_keeps_the_memory_format(backend):
    input = numbers((6, 4, 5), channels=8, dtype=torch.float32)
    input = input.to(memory_format=torch.channels_last_3d)[:, :, ::2]
    like = torch.nn.functional.max_pool3d(input, (3, 4, 5))
    with use_backend(backend):
        output = functional.max_ent_pool3d(input, 1.5, (3, 4, 5))
    assert output.stride() == like.contiguous(memory_format=torch.channels_last_3d).stride()


@each_axes
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_an_empty_batch_of_whole_ones(axes, backend):
    input = torch.zeros(0, 8, *(5,) * axes, requires_grad=True)
    with use_backend(backend):
        output = of_axes("adaptive_max_ent", axes)(input, 1.0, 1)
    assert output.shape == (0, 8, *(1,) * axes)
    output.sum().backward()
    assert input.grad.shape == input.shape


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("window", [2, 4, adaptive_windows(1), adaptive_windows(3)], ids=str)
def test_gaussian_noise_is_one_number_a_window(axes, window):
    layer = getattr(gfgp_cupy, f"GFGPGaussianPool{axes}d")(4, window, stochasticity="HWCN")
    input = torch.rand(8, 4, *(4,) * axes)
    with use_backend("torch"):
        output = layer(input)
    length = {2: 2, 4: 1, adaptive_windows(1): 1, adaptive_windows(3): 3}[window]
    assert output.shape == (8, 4, *(length,) * axes)
    output.sum().backward()


def test_a_trace_of_volumes_warns_of_nothing():
    layer, input = gfgp_cupy.GlobalMaxEntPool3d(), torch.rand(2, 4, 3, 4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(layer, (input,))
    for shape in ((2, 4, 3, 4, 5), (3, 4, 2, 6, 3)):
        input = torch.rand(shape)
        torch.testing.assert_close(traced(input), layer(input))


@each_axes
@pytest.mark.parametrize(
    "name",
    [
        "AdaptiveMaxEntPool", "GlobalMaxEntPool", "AdaptiveGeneralizedMeanPool",
        "GlobalGeneralizedMeanPool", "GFGPAdaptiveMaxEntPool", "GFGPGlobalMaxEntPool",
        "GFGPAdaptiveGeneralizedMeanPool", "GFGPGlobalGeneralizedMeanPool",
    ],
)  # fmt: skip
def test_layers_say_their_output_size_and_load_their_states(name, axes):
    arguments = {"num_features": 4}
    if "Adaptive" in name:
        arguments["output_size"] = 2
    layer, other = (getattr(gfgp_cupy, f"{name}{axes}d")(**arguments).eval() for _ in range(2))
    sizes = (2 if "Adaptive" in name else 1,) * axes
    assert layer.output_size == sizes
    assert (f"output_size={sizes}" in repr(layer)) is ("Adaptive" in name)
    with torch.no_grad():
        for tensor in layer.parameters():
            tensor.add_(0.5)
    other.load_state_dict(layer.state_dict())
    for length in (4, 5):
        input = torch.rand(2, 4, *(length,) * axes)
        assert layer(input).shape == (2, 4, *sizes)
        assert torch.equal(layer(input), other(input))


@each_axes
def test_exported_and_compiled_for_any_size(axes):
    layer = getattr(gfgp_cupy, f"GFGPGlobalMaxEntPool{axes}d")(4).eval()
    dynamic = dict.fromkeys(range(2, 2 + axes), Dim.DYNAMIC)
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        program = torch.export.export(
            layer, (torch.rand(3, 4, *(8, 6, 5)[:axes]),), dynamic_shapes=(dynamic,)
        )
        for size in ((9, 13, 4), (5, 2, 7)):
            input = torch.rand(3, 4, *size[:axes])
            torch.testing.assert_close(program.module()(input), layer(input))
            torch.testing.assert_close(compiled(input), layer(input))


def test_errors_name_the_axes():
    with pytest.raises(TypeError, match=r"None, or a triple of these, got \(1, 2\)"):
        gfgp_cupy.AdaptiveMaxEntPool3d((1, 2))
    with pytest.raises(TypeError, match=r"None, or a tuple of one of these, got \(1, None\)"):
        functional.adaptive_max_ent_pool1d(torch.rand(2, 3, 4), 1.0, (1, None))
    with pytest.raises(ValueError, match="2 dimensions"):
        functional.adaptive_max_ent_pool3d(torch.rand(2, 2), 1.0, 2)
