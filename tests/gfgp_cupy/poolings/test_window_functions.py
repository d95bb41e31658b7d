"""Every window function in every implementation that it has, against its formula.

The functions are those that are registered, the formulas those of ``window_formulas.py``: a new
pooling is covered once its formula stands there. That a kernel is as exact as its family allows,
and moves no more than it must, is for ``kernels/test_window_functions.py``.
"""

import dataclasses
import functools
import math

import pytest
import torch

import gfgp_cupy.poolings  # noqa: F401  they register their window functions
from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy import use_backend
from gfgp_cupy.backends import backend_module
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.ops import OPERATORS
from gfgp_cupy.poolings.log_sum_exp import LOG_SUM_EXP
from gfgp_cupy.window_pooling import pool_guided, pool_windows
from tests.support.cxx import needs_cxx
from tests.support.implementations import FUNCTIONS, kernels_on_cpu, needs_cuda, run_on_gpu
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers
from tests.support.window_formulas import FORMULAS, exact

WINDOW_FUNCTIONS = {
    name: operators.function for (name, axes), operators in OPERATORS.items() if axes == 2
}
GEOMETRIES = {
    "disjoint": pool_geometry(2),
    "overlapping": pool_geometry(3, 2, 1),
    "overhanging": pool_geometry((3, 2), (1, 3), (1, 0), ceil_mode=True),
    "gaps": pool_geometry(2, 3, 1, ceil_mode=True),
}
LAYOUTS = {
    "disjoint": ("contiguous", "channels_last"),
    "overlapping": ("contiguous", "channels_last"),
    "overhanging": ("sliced",),
    "gaps": ("transposed",),
}
"""Not all: each takes a compilation."""

FLOAT16, BFLOAT16, FLOAT32, FLOAT64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
TOLERANCES = {FLOAT16: 2.0**-10, BFLOAT16: 2.0**-7, FLOAT32: 6e-6, FLOAT64: 2e-12}
PARAMETER_SHAPES = ((1, 1, 1, 1), (1, 3, 1, 1), (2, 3, 1, 1), (2, 1, 1, 1), (2, 3, 4, 4))
KERNEL, STRIDE, PADDING = 3, 2, 1


class Composition:
    """Of PyTorch's operators."""

    def __init__(self, function):
        self.function = function

    def results(self, input, parameter, geometry, grad_output):
        """The output, and the gradients of input and parameter."""
        input, parameter = input.clone().requires_grad_(), parameter.clone().requires_grad_()
        output = self.function.compose(input, parameter, geometry)
        return output.detach(), *torch.autograd.grad(output, (input, parameter), grad_output)

    def forward(self, input, parameter, geometry):
        return self.function.compose(input, parameter, geometry)


class Kernels:
    """Of a backend."""

    def __init__(self, function, backend):
        self.forward, self.with_spread, self.backward, self.lam_backward = (
            functools.partial(getattr(backend, name), function=function) for name in FUNCTIONS
        )

    def results(self, input, parameter, geometry, grad_output):
        output = self.forward(input, parameter, geometry)
        return output, *self.backward(grad_output, input, parameter, geometry, (True, True))


def of_numba(function):
    return Kernels(function, backend_module("numba"))


def of_torch(function):
    return Kernels(function, backend_module("torch"))


def of_cuda(function):
    return Kernels(function, kernels_on_cpu(run_launch))


def on_gpu(function):
    return Kernels(function, kernels_on_cpu(run_on_gpu))


def implementations():
    for name, function in WINDOW_FUNCTIONS.items():
        yield pytest.param(function, Composition, id=f"{name}-composition")
        yield pytest.param(function, of_torch, id=f"{name}-torch")
        if function.is_served_by("numba"):
            yield pytest.param(function, of_numba, id=f"{name}-numba")
        if function.is_served_by("cupy"):
            yield pytest.param(function, of_cuda, marks=needs_cxx, id=f"{name}-cuda")
            yield pytest.param(function, on_gpu, marks=needs_cuda, id=f"{name}-gpu")


each_implementation = pytest.mark.parametrize(("function", "make"), [*implementations()])
ON_BACKENDS = [
    pytest.param(function, backend, id=f"{name}-{backend}")
    for name, function in WINDOW_FUNCTIONS.items()
    for backend in ("torch", "numba")
    if backend == "torch" or function.is_served_by(backend)
]
each_backend = pytest.mark.parametrize(("function", "backend"), ON_BACKENDS)
each_geometry = pytest.mark.parametrize("name", GEOMETRIES)


def images(function, shape=(2, 3, 7, 8), dtype=FLOAT64, seed=0):
    numbers = random_numbers(shape, FLOAT64, seed)
    return (numbers.abs() + 0.1 if FORMULAS[function.name].positive else numbers).to(dtype)


def usual_parameter(function, shape=(2, 3, 1, 1), dtype=FLOAT64):
    numbers = FORMULAS[function.name].usual(random_numbers(shape, FLOAT64, 1))
    return numbers.to(FLOAT64 if dtype == FLOAT64 else FLOAT32)


def grad_of(input, geometry):
    shape = (*input.shape[:2], *geometry.output_size(*input.shape[2:]))
    return random_numbers(shape, input.dtype, 2)


def assert_close(actual, expected, dtype, scale=1.0):
    """Up to rounding errors in the type ``dtype``, of numbers of size ``scale``."""
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=scale * tolerance
    )


def check(implementation, function, input, parameter, geometry, layout="contiguous"):
    dtype, grad_output = input.dtype, grad_of(input, geometry)
    results = implementation.results(arranged(input, layout), parameter, geometry, grad_output)
    expected = exact(function, input, parameter, geometry, grad_output)
    assert_close(results[0], expected.output, dtype)
    assert_close(results[1], expected.grad_input, dtype, 4)
    assert results[2].shape == parameter.shape
    terms = expected.sensitivity.numel() / parameter.numel()
    assert_close(results[2], expected.grad_parameter, dtype, terms)


def test_every_function_has_its_formula():
    assert WINDOW_FUNCTIONS.keys() == FORMULAS.keys()


# ---------------------------------------------------------------- the formulas


@each_implementation
@each_geometry
def test_output_and_gradients(function, make, name):
    # Numba takes seconds to compile for a type: float64 has its slow test.
    dtype = FLOAT32 if make is of_numba else FLOAT64
    input = images(function, dtype=dtype)
    parameter = usual_parameter(function, dtype=dtype)
    for layout in LAYOUTS[name]:
        check(make(function), function, input, parameter, GEOMETRIES[name], layout)


@each_implementation
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16, BFLOAT16], ids=str)
@pytest.mark.parametrize("name", ["disjoint", "overlapping"])
def test_types(function, make, dtype, name):
    input, parameter = images(function, dtype=dtype), usual_parameter(function, dtype=dtype)
    check(make(function), function, input, parameter, GEOMETRIES[name])


@each_implementation
@pytest.mark.parametrize("shape", PARAMETER_SHAPES, ids=str)
def test_layouts_of_the_parameter(function, make, shape):
    geometry, parameter = GEOMETRIES["overlapping"], usual_parameter(function, shape, FLOAT32)
    check(make(function), function, images(function, dtype=FLOAT32), parameter, geometry)


@each_implementation
@pytest.mark.parametrize("value", [0.0, 1e-3, -1e-3, 1.0, 30.0])
def test_parameters_of_every_size(function, make, value):
    geometry, parameter = GEOMETRIES["disjoint"], torch.tensor(value).expand(2, 3, 1, 1)
    implementation, input = make(function), images(function, dtype=FLOAT32)
    output = implementation.forward(input, parameter, geometry)
    expected = exact(function, input, parameter, geometry, grad_of(input, geometry))
    assert_close(output, expected.output, FLOAT32, 1 + value)


@each_implementation
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_parameters_gradient_of_what_the_forward_pass_keeps(function, make, dtype):
    """As a guided layer has it, whose backward pass adds the gradient of a mean."""
    if make is Composition:
        pytest.skip("it keeps the input")
    geometry, kernels = GEOMETRIES["overlapping"], make(function)
    input, parameter = images(function, dtype=dtype), usual_parameter(function, dtype=dtype)
    grad_output = grad_of(input, geometry)
    expected = exact(function, input, parameter, geometry, grad_output)
    output, kept = kernels.with_spread(input, parameter, geometry)
    assert_close(output, expected.output, dtype)
    by_kept = kernels.lam_backward(grad_output, kept, parameter)
    assert_close(by_kept, expected.grad_parameter, dtype, 20)
    mean_grad = random_numbers((2, 3, 1, 1), parameter.dtype, 3)
    gradient, _ = kernels.backward(
        grad_output, input, parameter, geometry, (True, False), mean_grad=mean_grad
    )
    assert_close(gradient, expected.grad_input + mean_grad.double(), dtype, 4)


# ---------------------------------------------------------------- hostile values


@each_implementation
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["disjoint", "overlapping"])
def test_what_is_no_number_reaches_exactly_its_windows(function, make, value, name):
    geometry, implementation = GEOMETRIES[name], make(function)
    input, parameter = images(function, dtype=FLOAT32), usual_parameter(function, dtype=FLOAT32)
    grad_output = grad_of(input, geometry)
    before = implementation.results(input, parameter, geometry, grad_output)
    input[0, 1, 4, 5] = value
    output, grad_input, grad_parameter = implementation.results(
        input, parameter, geometry, grad_output
    )
    mask = torch.zeros_like(input)
    mask[0, 1, 4, 5] = 1
    window = (geometry.kernel_size, geometry.stride, geometry.padding)
    reached = torch.nn.functional.max_pool2d(mask, *window) > 0
    assert torch.equal(output.isnan(), reached)
    assert torch.equal(output[~reached], before[0][~reached])
    x = torch.zeros_like(input, requires_grad=True)
    sums = torch.nn.functional.avg_pool2d(x, *window)[reached].sum()
    (shared,) = torch.autograd.grad(sums, x)
    assert torch.equal(grad_input.isnan(), shared != 0)
    assert torch.equal(grad_input[shared == 0], before[1][shared == 0])
    of_plane = mask.amax((2, 3), keepdim=True) > 0
    assert torch.equal(grad_parameter.isnan(), of_plane)
    assert torch.equal(grad_parameter[~of_plane], before[2][~of_plane])


@each_implementation
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e5])
def test_equal_elements(function, make, value):
    """All poolings give that element, but Gaussian pooling, whose deviation is never below 0.001,
    and the generalised mean of what is below its least value."""
    geometry, parameter = GEOMETRIES["overlapping"], usual_parameter(function, dtype=FLOAT32)
    input, implementation = torch.full((2, 3, 7, 8), value), make(function)
    grad_output = grad_of(input, geometry)
    output, *gradients = implementation.results(input, parameter, geometry, grad_output)
    expected = exact(function, input, parameter, geometry, grad_output)
    assert_close(output, expected.output, FLOAT32, max(abs(value), 1e-3))
    for gradient in gradients:
        assert gradient.isfinite().all()
    assert_close(gradients[0], expected.grad_input, FLOAT32, 4)


@each_implementation
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("value", [-3e8, 1e9, 1e30])
def test_equal_elements_whose_rounded_mean_is_another_number(function, make, value, dtype):
    """By more than powers hold."""
    if value < 0 and FORMULAS[function.name].positive:
        pytest.skip("it is less than the least value of an element, and counts as that")
    if value == 1e30 and function.name == "gaussian":
        pytest.skip("squares of what is lost in rounding its mean overflow")
    geometry, parameter = GEOMETRIES["overlapping"], torch.full((1, 1, 1, 1), 5.0)
    input = torch.full((2, 3, 7, 8), value, dtype=dtype)
    grad_output = grad_of(input, geometry)
    results = make(function).results(input, parameter, geometry, grad_output)
    # (Gaussian pooling's least deviation is far below a rounding here.)
    assert_close(results[0], input[..., :4, :4], dtype)
    x = torch.zeros_like(input, dtype=FLOAT64).requires_grad_()
    means = torch.nn.functional.avg_pool2d(x, KERNEL, STRIDE, PADDING, count_include_pad=False)
    assert_close(results[1], *torch.autograd.grad(means, x, grad_output.double()), dtype, 4)
    assert results[2].isfinite().all()


@each_implementation
def test_far_from_zero(function, make):
    """Only the rounding errors of numbers of that size."""
    geometry, parameter = GEOMETRIES["overlapping"], usual_parameter(function, dtype=FLOAT32)
    input = (images(function) + 1000).float()
    output = make(function).forward(input, parameter, geometry)
    expected = exact(function, input, parameter, geometry, grad_of(input, geometry))
    # A generalised mean, of ratios, is one of nearly equal elements.
    assert_close(output, expected.output, FLOAT32, 200)


@each_implementation
def test_huge_values(function, make):
    geometry, parameter = GEOMETRIES["disjoint"], usual_parameter(function, dtype=FLOAT32)
    input = (1e15 * images(function)).float()
    output = make(function).forward(input, parameter, geometry)
    expected = exact(function, input, parameter, geometry, grad_of(input, geometry))
    assert_close(output, expected.output, FLOAT32, 1e15)


@each_implementation
def test_quarters_of_numbers_that_a_gpu_takes_for_0(function, make):
    """Near the smallest normal numbers nothing is divided by less."""
    geometry, parameter = GEOMETRIES["disjoint"], usual_parameter(function, dtype=FLOAT32)
    numbers = images(function)
    input = (2e-38 * (numbers.sign() + numbers)).float()
    for result in make(function).results(input, parameter, geometry, grad_of(input, geometry)):
        assert result.isfinite().all()


@each_implementation
def test_numbers_that_float32_does_not_have(function, make):
    if make is of_numba:
        pytest.skip("it takes seconds to compile for float64")
    geometry, parameter = GEOMETRIES["disjoint"], usual_parameter(function)
    input = 1e-40 * images(function)
    output = make(function).forward(input, parameter, geometry)
    expected = exact(function, input, parameter, geometry, grad_of(input, geometry))
    assert_close(output, expected.output, FLOAT64, 1e-40)


# ---------------------------------------------------------------- through the public API


def in_float64():
    """Each backend and windows of each kind; on Numba, which takes seconds to compile for float64,
    windows of one kind a function."""
    for number, each in enumerate(ON_BACKENDS):
        numba = each.values[1] == "numba"
        names = ("disjoint", "overlapping")
        for name in names[number // 2 % 2 :: 2] if numba else names:
            marks = pytest.mark.slow if numba else ()
            yield pytest.param(*each.values, name, id=f"{each.id}-{name}", marks=marks)


@pytest.mark.parametrize("needed", [(True, False), (False, True)], ids=str)
def test_composition_is_differentiated_by_what_needs_it(needed):
    asked = []

    def composition(input, theta, geometry):
        asked.append((input.requires_grad, theta.requires_grad))
        return LOG_SUM_EXP.composition(input, theta, geometry)

    function = dataclasses.replace(LOG_SUM_EXP, composition=composition)
    input = random_numbers((2, 3, 8, 8), FLOAT32, 0).abs()
    theta = torch.full((1, 3, 1, 1), 2.0)
    grad_output, mean_grad = torch.ones(2, 3, 4, 4), torch.ones(2, 3, 1, 1)
    gradients = backend_module("torch").backward(
        grad_output, input, theta, pool_geometry(2), needed, mean_grad, function
    )
    assert asked == [needed]
    x, lam = input.requires_grad_(), theta.requires_grad_()
    output = LOG_SUM_EXP.composition(x, lam, pool_geometry(2))
    by_input, by_theta = torch.autograd.grad(output.sum(), (x, lam))
    expected = (by_input + mean_grad, by_theta)
    for gradient, right, is_needed in zip(gradients, expected, needed, strict=True):
        assert torch.equal(gradient, right) if is_needed else gradient is None


@pytest.mark.parametrize(("function", "backend", "name"), [*in_float64()])
def test_derivatives_of_both_orders(function, backend, name):
    geometry = GEOMETRIES[name]
    window = (geometry.kernel_size, geometry.stride, geometry.padding)
    inputs = images(function, (1, 2, 4, 4)), usual_parameter(function, (1, 2, 1, 1))
    inputs = tuple(tensor.requires_grad_() for tensor in inputs)

    def pool(input, parameter):
        return pool_windows(function, input, parameter, *window)

    with use_backend(backend):
        assert torch.autograd.gradcheck(pool, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(pool, inputs, fast_mode=True)


@each_backend
def test_guided_layer_is_the_composition_of_its_parts(function, backend):
    dtype = FLOAT64 if backend == "torch" else FLOAT32
    window, weight = (KERNEL, STRIDE, PADDING), random_numbers((3, 1, 1), dtype, 5)
    input, usual = images(function, dtype=dtype), FORMULAS[function.name].usual

    def gradients(pool):
        x, scale = input.clone().requires_grad_(), weight.clone().requires_grad_()
        output = pool(x, lambda mean: usual(scale * mean + 0.5))
        grad_output = random_numbers(output.shape, dtype, 6)
        return output, *torch.autograd.grad(output, (x, scale), grad_output)

    def composed(x, head):
        return pool_windows(function, x, head(x.mean((2, 3), keepdim=True)), *window)

    with use_backend(backend):
        fused = gradients(lambda x, head: pool_guided(function, x, head, *window))
    with use_backend("torch"):
        expected = gradients(composed)
    for actual, wanted in zip(fused, expected, strict=True):
        assert_close(actual, wanted, dtype, 10)


@each_backend
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_memory_format_and_padding_that_counts(function, backend, layout):
    input = images(function).float().contiguous(memory_format=layout)
    parameter = usual_parameter(function, dtype=FLOAT32)
    padded = torch.nn.functional.pad(input, (PADDING,) * 4)
    with use_backend(backend):
        output = pool_windows(
            function, input, parameter, KERNEL, STRIDE, PADDING, count_include_pad=True
        )
        expected = pool_windows(function, padded, parameter, KERNEL, STRIDE)
        first = pool_windows(function, input[0], parameter[0], KERNEL, STRIDE, PADDING)
        all_of_them = pool_windows(function, input, parameter, KERNEL, STRIDE, PADDING)
    assert output.is_contiguous(memory_format=layout)
    assert all_of_them.is_contiguous(memory_format=layout)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    torch.testing.assert_close(first, all_of_them[0], rtol=0, atol=1e-6)
