"""Poolings of lines and of volumes: windows of one and of three axes."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import gfgp_cupy
from gfgp_cupy import functional, poolings
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.window_pooling import pool_windows
from tests.support.implementations import each_backend
from tests.support.pooling_cases import CASES
from tests.support.random_numbers import random_numbers
from tests.support.window_loops import pooled

SIZES = {1: (11,), 3: (5, 6, 7)}
WINDOWS = {
    1: ((2,), (3, 2, 1), (3, 2, 1, True), (2, 3, 1, True)),
    3: (
        (2,),
        (3, 2, 1),
        ((2, 3, 1), (1, 2, 3), (1, 1, 0), True),
        ((1, 3, 2), (1, 2, 2), (0, 1, 1)),
    ),
}
each_window = pytest.mark.parametrize(
    ("axes", "window"), [(axes, window) for axes in WINDOWS for window in WINDOWS[axes]]
)


def max_ent(x, lam):
    weight = np.exp(lam * (x - x.max(-1, keepdims=True)))
    return (weight * x).sum(-1) / weight.sum(-1)


def of_axes(name: str, axes: int):
    """The function that ``name``, which ends in 2d, is called for windows of other axes."""
    name = name.replace("2d", f"{axes}d")
    return getattr(functional, name, None) or getattr(poolings, name)


def example(axes: int, dtype=torch.float64):
    input = random_numbers((2, 3, *SIZES[axes]), torch.float64, 0).to(dtype)
    ones = (1,) * axes
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    return input, random_numbers((1, 3, *ones), compute, 1)


def in_format(input, memory_format):
    """``input``, of volumes, in a memory format; of lines, with its channels side by side."""
    if memory_format == "contiguous":
        return input
    if input.dim() == 3:
        return input.mT.contiguous().mT
    return input.to(memory_format=torch.channels_last_3d)


@each_window
def test_max_ent_pooling_is_the_formula(axes, window):
    input, lam = example(axes)
    expected = pooled(input, max_ent, pool_geometry(*window, axes=axes), lam)
    function = of_axes("max_ent_pool2d", axes)
    torch.testing.assert_close(function(input, lam, *window), expected)
    torch.testing.assert_close(function(input[0], lam, *window), expected[0])


@pytest.mark.parametrize("name", CASES)
@each_window
def test_other_poolings_are_their_formulas(name, axes, window):
    case, geometry = CASES[name], pool_geometry(*window, axes=axes)
    # Numba takes seconds to compile for float64.
    input = case.images((2, 3, *SIZES[axes])).float()
    parameters = tuple(
        each.float() if case.gates and number == 0 else each.float().reshape(1, 3, *(1,) * axes)
        for number, each in enumerate(case.parameters(3, geometry))
    )
    expected = case.by_loops(input, parameters, geometry)
    of_these = dataclasses.replace(case, function=of_axes(case.function.__name__, axes))
    torch.testing.assert_close(of_these(input, parameters, geometry), expected.float())


@each_window
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_average_and_maximum_are_limits(axes, window, memory_format):
    input = in_format(random_numbers((2, 3, *SIZES[axes]), torch.float64, 0), memory_format)
    geometry = pool_geometry(*window, axes=axes)
    maximum = getattr(F, f"max_pool{axes}d")(input, *geometry[:3], ceil_mode=geometry.ceil_mode)
    average = getattr(F, f"avg_pool{axes}d")(input, *geometry, count_include_pad=False)
    function = of_axes("max_ent_pool2d", axes)
    torch.testing.assert_close(function(input, 0.0, *window), average)
    torch.testing.assert_close(function(input, 1e5, *window), maximum)
    assert function(input, 1e5, *window).stride()[1] == (
        1 if memory_format != "contiguous" else maximum[0, 0].numel()
    )


@pytest.mark.parametrize("axes", [1, 3])
def test_gradients_to_second_order(axes):
    input = random_numbers((1, 1, 4, 3, 3)[: 2 + axes], torch.float64, 0).requires_grad_()
    lam = random_numbers((1, 1, *(1,) * axes), torch.float64, 1).requires_grad_()
    function = of_axes("max_ent_pool2d", axes)
    window = (3, 2, 1)
    assert gradcheck(lambda input, lam: function(input, lam, *window), (input, lam))
    assert gradgradcheck(lambda input, lam: function(input, lam, *window), (input, lam))


@each_backend
@each_window
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_output_can_be_changed_in_place(backend, axes, window, memory_format):
    """As by the ``nn.ReLU(inplace=True)`` that follows it in many networks."""
    input, lam = example(axes, torch.float32)
    input = in_format(input, memory_format).to(backend.device).requires_grad_()
    lam = lam.to(backend.device).requires_grad_()
    with gfgp_cupy.use_backend(backend.name):
        expected = of_axes("max_ent_pool2d", axes)(input, lam, *window).relu()
        output = of_axes("max_ent_pool2d", axes)(input, lam, *window).relu_()
    assert torch.equal(output, expected)
    gradients = (
        torch.autograd.grad(each.square().sum(), (input, lam)) for each in (output, expected)
    )
    for actual, right in zip(*gradients, strict=True):
        assert torch.equal(actual, right)


@pytest.mark.parametrize("axes", [1, 3])
def test_a_head_may_change_the_mean_in_place(axes):
    input = example(axes, torch.float32)[0].requires_grad_()
    pool = of_axes("guided_max_ent_pool2d", axes)
    gradients = [
        torch.autograd.grad(pool(input, head, 2).sum(), input)[0]
        for head in (torch.Tensor.relu_, torch.Tensor.relu)
    ]
    assert torch.equal(*gradients)


@each_backend
@pytest.mark.parametrize("shape", [(1, 3, 4, 6, 5), (2, 1, 4, 6, 5), (2, 3, 4, 6, 5)], ids=str)
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_guided_windows_of_depth_1(backend, shape, memory_format):
    """Of one clip and of one channel, too: each plane has the mean's gradient."""
    input = in_format(random_numbers(shape, torch.float32, 0), memory_format)
    input = input.to(backend.device).requires_grad_()
    exact = input.detach().double().requires_grad_()
    lam = exact.mean((2, 3, 4), keepdim=True).sigmoid()
    expected = functional.max_ent_pool3d(exact, lam, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    with gfgp_cupy.use_backend(backend.name):
        output = functional.guided_max_ent_pool3d(
            input, torch.sigmoid, (1, 3, 3), (1, 2, 2), (0, 1, 1)
        )
        output.square().sum().backward()
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-6)
    expected.square().sum().backward()
    torch.testing.assert_close(input.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [(2,), (3, 2, 1), (2, 1, "same"), (4, 3, "same")])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_a_line_is_a_plane_of_one_row(window, count_include_pad):
    input, lam = example(1)
    kernel, *others = window
    stride = others[0] if others else kernel
    padding = others[1] if len(others) > 1 else 0
    plane = functional.max_ent_pool2d(
        input.unsqueeze(2), lam.unsqueeze(2), (1, kernel), (1, stride),
        padding if padding == "same" else (0, padding), count_include_pad=count_include_pad,
    )  # fmt: skip
    line = functional.max_ent_pool1d(input, lam, *window, count_include_pad=count_include_pad)
    assert torch.equal(line, plane.squeeze(2))


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_same_padding_of_volumes_is_the_padded_pooling(kernel_size):
    input, lam = example(3)
    missing = kernel_size - 1
    margins = (missing // 2, missing - missing // 2) * 3
    expected = functional.max_ent_pool3d(F.pad(input, margins), lam, kernel_size, 1)
    counted = functional.max_ent_pool3d(input, lam, kernel_size, 1, "same", count_include_pad=True)
    torch.testing.assert_close(counted, expected)
    inside = F.pad(torch.ones_like(input), margins)
    elements = F.pad(input, margins).unfold(2, kernel_size, 1).unfold(3, kernel_size, 1)
    elements = elements.unfold(4, kernel_size, 1).flatten(5)
    inside = inside.unfold(2, kernel_size, 1).unfold(3, kernel_size, 1).unfold(4, kernel_size, 1)
    weight = (lam.unsqueeze(5) * elements).exp() * inside.flatten(5)
    expected = (weight * elements).sum(5) / weight.sum(5)
    actual = functional.max_ent_pool3d(input, lam, kernel_size, 1, "same")
    torch.testing.assert_close(actual, expected)


@each_backend
@pytest.mark.parametrize(
    ("axes", "dtype"),
    [(1, torch.float32), (3, torch.float16), (3, torch.bfloat16), (3, torch.float32)],
)
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_backends_agree_with_float64(backend, axes, dtype, memory_format):
    input, lam = (each.to(backend.device) for each in example(axes, dtype))
    input = in_format(input, memory_format).requires_grad_()
    lam.requires_grad_()
    exact = [each.detach().double().requires_grad_() for each in (input, lam)]
    function = of_axes("max_ent_pool2d", axes)
    with gfgp_cupy.use_backend(backend.name):
        output = function(input, lam, 3, 2, 1)
    expected = function(*exact, 3, 2, 1)
    assert output.dtype == dtype
    output.sum().backward()
    expected.sum().backward()
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5}[dtype]
    pairs = (output, expected), (input.grad, exact[0].grad)
    for actual, right in pairs:
        torch.testing.assert_close(actual.double(), right, rtol=tolerance, atol=tolerance)
    assert input.grad.stride() == input.stride()


GUIDED = [
    name.removesuffix("3d")
    for name in poolings.__all__
    if name.startswith("GFGP") and name.endswith("3d")
    if "Adaptive" not in name and "Global" not in name
] + ["GFGPMaxEntPool"]


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("axes", [1, 3])
def test_guided_layers_pool_by_the_mean_of_all_axes(name, axes):
    torch.manual_seed(0)
    layer = getattr(gfgp_cupy, f"{name}{axes}d")(4, kernel_size=2, dtype=torch.float64)
    flat = getattr(gfgp_cupy, f"{name}2d")(4, kernel_size=(1, 2**axes), dtype=torch.float64)
    state = layer.state_dict()  # the same tensors
    if name == "GFGPGatedPool":
        nn.init.normal_(layer.weight)  # [1, 4, 2, …, 2]
        state["weight"] = state["weight"].reshape(flat.weight.shape)
    flat.load_state_dict(state)
    layer.eval(), flat.eval()
    input = torch.rand(8, 4, *(4,) * axes, dtype=torch.float64).requires_grad_()
    # Numba would compile each of the others.
    with gfgp_cupy.use_backend("auto" if name == "GFGPMaxEntPool" else "torch"):
        output = layer(input)
        assert layer(input[0]).shape == output[0].shape
    # Windows of 2 x … x 2 as rows of a plane, each pooled by a window of its own.
    rows = input.detach()
    for axis in range(2, 2 + axes):
        rows = rows.unfold(axis, 2, 2)
    plane = rows.reshape(8, 4, -1, 2**axes).requires_grad_()
    with gfgp_cupy.use_backend("torch"):
        expected = flat(plane)
    torch.testing.assert_close(output.flatten(2), expected.flatten(2))
    output.square().sum().backward()
    expected.square().sum().backward()
    gradient = input.grad
    for axis in range(2, 2 + axes):
        gradient = gradient.unfold(axis, 2, 2)
    torch.testing.assert_close(gradient.reshape(plane.shape), plane.grad)


@pytest.mark.parametrize("axes", [1, 3])
def test_guided_backward_is_fused_and_differentiated_twice(axes):
    torch.manual_seed(0)
    layer = getattr(gfgp_cupy, f"GFGPMaxEntPool{axes}d")(1, 2, dtype=torch.float64).eval()
    input = random_numbers((2, 1, *(2,) * axes), torch.float64, 0).requires_grad_()
    assert gradcheck(layer, (input,))
    assert gradgradcheck(layer, (input,))


@pytest.mark.parametrize("axes", [1, 3])
def test_learned_parameters_have_as_many_dimensions(axes):
    layer = getattr(gfgp_cupy, f"MaxEntPool{axes}d")(2, num_features=3)
    input = torch.rand(2, 3, *(4,) * axes)
    assert layer.lam.shape == (1, 3, *(1,) * axes)
    with gfgp_cupy.record_parameters(nn.Sequential(layer)) as record:
        layer(input)
    assert record["0"].shape == (2, 3)
    assert repr(layer).startswith(f"MaxEntPool{axes}d(kernel_size={(2,) * axes}")


def test_errors_name_the_axes():
    with pytest.raises(ValueError, match=r"\[N, C, D, H, W\] or \[C, D, H, W\], got 3 dim"):
        functional.max_ent_pool3d(torch.ones(2, 3, 4), 1.0, 2)
    with pytest.raises(TypeError, match="kernel_size must be an int or a triple of ints"):
        gfgp_cupy.MaxEntPool3d((2, 2))
    with pytest.raises(ValueError, match="the output would be empty"):
        functional.max_ent_pool1d(torch.ones(2, 3, 4), 1.0, 5)
    with pytest.raises(ValueError, match=r"\[N, C, L\] or \[C, L\] with C = num_features = 4"):
        gfgp_cupy.GFGPMaxEntPool1d(4, 2)(torch.ones(2, 3, 8))


@pytest.mark.parametrize("axes", [1, 3])
def test_compiled_and_exported_for_any_size(axes):
    layer = getattr(gfgp_cupy, f"GFGPMaxEntPool{axes}d")(4, 3, 2, 1).eval()
    sizes = [(4, 4, *(size,) * axes) for size in (7, 9)]
    dynamic = torch.export.Dim.AUTO
    shapes = {0: dynamic} | dict.fromkeys(range(2, 2 + axes), dynamic)
    program = torch.export.export(layer, (torch.rand(sizes[0]),), dynamic_shapes=(shapes,))
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=True)
    for shape in sizes:
        input = torch.rand(shape)
        torch.testing.assert_close(program.module()(input), layer(input))
        torch.testing.assert_close(compiled(input), layer(input))


def test_window_functions_serve_all_axes_on_plain_operators():
    from gfgp_cupy.max_ent import MAX_ENT

    input, lam = example(3)
    derivative = torch.func.jacfwd(lambda lam: pool_windows(MAX_ENT, input, lam, 2, axes=3).sum())
    gradient = torch.func.grad(lambda lam: pool_windows(MAX_ENT, input, lam, 2, axes=3).sum())
    torch.testing.assert_close(derivative(lam), gradient(lam))


@pytest.mark.parametrize("name", ["max_ent_pool3d", "gaussian_pool3d", "mixed_pool3d"])
def test_volumes_composed_of_operators_keep_their_memory_format(name):
    input, theta = example(3, torch.float32)
    with gfgp_cupy.use_backend("torch"):
        output = of_axes(name, 3)(in_format(input, "channels_last"), theta, 2)
    assert output.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("pool", [functional.gaussian_pool3d, poolings.mixed_pool3d])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_a_clip_shorter_than_the_kernel(pool, ceil_mode):
    """Which torch.nn.functional.avg_pool3d refuses, whatever the padding: composed, too."""
    x = random_numbers((2, 3, 2, 8, 6), torch.float64, 0)
    window = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": ceil_mode}
    expected = pool(x, 0.3, **window)
    with gfgp_cupy.use_backend("torch"):
        torch.testing.assert_close(pool(x, 0.3, **window), expected)
    batched = torch.func.vmap(lambda x: pool(x, 0.3, **window))(x.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(batched, expected)
    x.requires_grad_()
    assert gradgradcheck(lambda x: pool(x, 0.3, **window), x[:1, :1])


@pytest.mark.parametrize("axes", [1, 3])
def test_heads_by_their_published_names(axes):
    x = random_numbers((2, 4, *(5,) * axes), torch.float32, 0)
    mean = x.mean(tuple(range(2, axes + 2))).view(2, 4, 1, 1)
    guided = getattr(gfgp_cupy, f"GFGPMaxEntPool{axes}d")(4, 2).eval()
    torch.testing.assert_close(guided.ToParam(x).sigmoid(), guided.head(mean))
    gaussian = getattr(gfgp_cupy, f"GFGPGaussianPool{axes}d")(4, 2).eval()
    weight = F.softplus(gaussian.ToMean(gaussian.ToHidden(x)))
    torch.testing.assert_close(weight, gaussian.head(mean))


GUIDED_OF_VOLUMES = {
    name: kind
    for name, kind in (vars(gfgp_cupy) | vars(poolings)).items()
    if name.startswith("GFGP") and name.endswith("3d")
}


@pytest.mark.parametrize("kind", GUIDED_OF_VOLUMES.values())
def test_a_network_of_volumes_moves_to_channels_last(kind):
    """Its heads' matrices, too, which have four axes: PyTorch gives this format to five alone."""
    options = {"output_size": 2} if "Adaptive" in kind.__name__ else {"kernel_size": 2}
    pool = kind(6, **({} if "Global" in kind.__name__ else options)).eval()
    network = nn.Sequential(nn.Conv3d(3, 6, 3), pool)
    input = random_numbers((1, 3, 6, 6, 6), torch.float32, 0)
    expected = network(input)
    parameters = list(network.parameters())

    network.to(memory_format=torch.channels_last_3d)
    for mine, kept in zip(network.parameters(), parameters, strict=True):
        assert mine is kept
        assert mine.dim() not in (4, 5) or mine.stride(1) == 1
    torch.testing.assert_close(network(input), expected)

    network.to(memory_format=torch.contiguous_format)
    assert all(parameter.is_contiguous() for parameter in parameters)
    if any(parameter.dim() == 5 for parameter in pool.parameters()):
        return  # which PyTorch refuses for those, as it does for a Conv3d's
    pool.to(memory_format=torch.channels_last)  # of a network whose convolutions are of planes
    assert all(mine.stride(1) == 1 for mine in pool.parameters() if mine.dim() == 4)
