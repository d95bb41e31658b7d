"""Window functions on the backend for CPUs, compiled into each family: against their formulas."""

import dataclasses
import inspect

import pytest
import torch

from gfgp_cupy.backends import numba as backend
from gfgp_cupy.backends.numba.loading import family_of
from gfgp_cupy.backends.numba.plan import plan
from gfgp_cupy.gaussian import GAUSSIAN
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.poolings.mixed import MIXED
from gfgp_cupy.spread import sensitivity_of
from tests.support.random_numbers import random_numbers

CONTIGUOUS, CHANNELS_LAST = LAYOUTS = torch.contiguous_format, torch.channels_last

OUTSIDE = dataclasses.replace(MAX_ENT, name="outside", cpu="tests.support.max_ent_function")
"""A function that the library does not know, whose elements have terms of their own."""

FUNCTIONS = (GAUSSIAN, MIXED, pytest.param(OUTSIDE, marks=pytest.mark.slow))
FAMILIES = {
    "tiles": pool_geometry(2),
    "overlapping": pool_geometry(3, 2, 1),
    "windows": pool_geometry(3, 1, 1),
}

each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=["gaussian", "mixed", "outside"])
each_family = pytest.mark.parametrize("geometry", FAMILIES.values(), ids=FAMILIES)


def example(shape, geometry, theta_shape=None, layout=CONTIGUOUS, dtype=torch.float32):
    """Input, θ between 0 and 1, the output's gradient and the mean's."""
    output_shape = (*shape[:2], *geometry.output_size(*shape[2:]))
    computed = torch.float64 if dtype is torch.float64 else torch.float32
    return (
        random_numbers(shape, dtype, 0).contiguous(memory_format=layout),
        random_numbers(theta_shape or (*shape[:2], 1, 1), computed, 1).sigmoid(),
        random_numbers(output_shape, dtype, 2).contiguous(memory_format=layout),
        random_numbers((*shape[:2], 1, 1), computed, 3),
    )


def results(function, geometry, input, theta, grad_output, mean_grad):
    """The output, ∂y/∂θ, and the gradients of the input and of θ."""
    output, spread = backend.forward_with_spread(input, theta, geometry, function)
    gradients = backend.backward(
        grad_output, input, theta, geometry, (True, True), mean_grad, function
    )
    return [output, sensitivity_of(spread, input.dtype, function.spread), *gradients]


def exact_results(function, geometry, input, theta, grad_output, mean_grad):
    """The same by the formula in float64, with ∂y/∂θ as θ's gradient of one window each."""
    input, theta = input.double().requires_grad_(), theta.double().requires_grad_()
    of_windows = theta.detach().expand(grad_output.shape).clone().requires_grad_()
    output = function.compose(input, theta, geometry)
    sensitivity = torch.autograd.grad(
        function.compose(input, of_windows, geometry).sum(), of_windows
    )
    gradients = torch.autograd.grad(output, (input, theta), grad_output.double())
    return [output.detach(), *sensitivity, gradients[0] + mean_grad.double(), gradients[1]]


def assert_close(actual, expected, rtol=2e-6):
    for one, other in zip(actual, expected, strict=True):
        scale = other.abs().mean() + other.abs()
        assert ((one.double() - other).abs() <= rtol * scale).all()


@each_layout
@each_function
@pytest.mark.parametrize(
    ("geometry", "shape", "family"),
    [
        (pool_geometry(2), (2, 17, 4, 36), "tiles"),
        (pool_geometry(3, 2, 1), (2, 17, 7, 36), "overlapping"),
        (pool_geometry(3, 2, ceil_mode=True), (1, 3, 8, 10), "overlapping"),
        (pool_geometry(3, 2, (0, 1)), (1, 16, 3, 35), "overlapping"),
        (pool_geometry(5, 2, 2, ceil_mode=True), (2, 17, 8, 9), "windows"),
        (pool_geometry((1, 3), (2, 1), (0, 1)), (1, 3, 5, 20), "windows"),
        (pool_geometry(2, 3), (1, 3, 9, 50), "windows"),
        (pool_geometry(7), (2, 18, 7, 8), "windows"),
    ],
    ids=str,
)
def test_functions_give_what_their_formulas_do(geometry, shape, family, function, layout):
    tensors = example(shape, geometry, layout=layout)
    assert plan(*tensors[:2], geometry).module == family
    actual = results(function, geometry, *tensors)
    assert actual[0].is_contiguous(memory_format=layout)
    assert_close(actual, exact_results(function, geometry, *tensors))


@each_function
@each_family
@pytest.mark.parametrize(
    "theta_shape", [(1, 1, 1, 1), (1, 17, 1, 1), (2, 1, 1, 1), (2, 17, None, None)], ids=str
)
def test_layouts_of_the_parameter(theta_shape, geometry, function):
    shape = (2, 17, 8, 10)
    if theta_shape[2] is None:
        theta_shape = (2, 17, *geometry.output_size(8, 10))
    tensors = example(shape, geometry, theta_shape)
    assert_close(
        results(function, geometry, *tensors), exact_results(function, geometry, *tensors), 4e-6
    )


@each_function
@each_layout
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_computed_in_float32(dtype, layout, function):
    geometry = pool_geometry(2)
    tensors = example((2, 17, 4, 36), geometry, layout=layout, dtype=dtype)
    actual = results(function, geometry, *tensors)
    assert [result.dtype for result in actual] == [dtype, torch.float32, dtype, torch.float32]
    assert_close(actual, exact_results(function, geometry, *tensors), torch.finfo(dtype).eps)


@each_function
@each_family
def test_elements_that_are_large_and_differ_little(geometry, function):
    input, *others = example((2, 17, 8, 36), geometry)
    input = input + 1e4
    actual = results(function, geometry, input, *others)
    expected = exact_results(function, geometry, input, *others)
    assert_close(actual, expected)
    assert (actual[1].double() - expected[1]).abs().max() <= 1e-5 * expected[1].mean()


@each_layout
@each_family
def test_equal_elements(geometry, layout):
    value = 0.1 * torch.arange(1, 18).view(1, 17, 1, 1)
    others = example((2, 17, 8, 36), geometry, layout=layout)[1:]
    input = value.expand(2, 17, 8, 36).contiguous(memory_format=layout)
    for function in (GAUSSIAN, MIXED):
        actual = results(function, geometry, input, *others)
        expected = exact_results(function, geometry, input, *others)
        assert_close(actual[::2], expected[::2])  # the output and the input's gradient
        # The deviation is the least one, and the maximum no more than the mean.
        assert (actual[1] <= (1.001e-3 if function is GAUSSIAN else 1e-6)).all()


@each_family
def test_elements_that_are_the_maximum_share_its_gradient(geometry):
    _, theta, *others = example((2, 17, 8, 36), geometry)
    input = random_numbers((2, 17, 8, 36), torch.float32, 4).mul(2).round()  # many are equal
    actual = results(MIXED, geometry, input, theta, *others)
    # By amax, which shares it so, of windows padded with -inf.
    exact = input.double().requires_grad_()
    padding = geometry.padding[0]
    padded = torch.nn.functional.pad(exact, (padding,) * 4, value=-torch.inf)
    size, stride = geometry.kernel_size[0], geometry.stride[0]
    largest = padded.unfold(2, size, stride).unfold(3, size, stride).amax((4, 5))
    average = torch.nn.functional.avg_pool2d(exact, size, stride, padding, count_include_pad=False)
    output = theta.double() * largest + (1 - theta.double()) * average
    (expected,) = torch.autograd.grad(output, exact, others[0].double())
    assert_close([actual[2]], [expected + others[1].double()])


@each_function
@each_family
@each_layout
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_what_is_not_finite_spoils_its_own_windows_alone(value, layout, geometry, function):
    tensors = example((1, 17, 8, 36), geometry, layout=layout)
    clean = results(function, geometry, *tensors)
    tensors[0][0, :, 3, 7] = value
    hit = torch.zeros(1, 1, 8, 36)
    hit[0, 0, 3, 7] = 1
    window = geometry.kernel_size, geometry.stride, geometry.padding
    windows_hit = torch.nn.functional.max_pool2d(hit, *window).bool().expand_as(clean[0])
    output, sensitivity, grad_input, _ = results(function, geometry, *tensors)
    assert output[windows_hit].isnan().all()
    assert torch.equal(output[~windows_hit], clean[0][~windows_hit])
    assert torch.equal(sensitivity[~windows_hit], clean[1][~windows_hit])
    reached = reached_by(windows_hit.float(), geometry, hit.shape).expand_as(grad_input)
    assert grad_input[reached].isnan().all()
    assert torch.equal(grad_input[~reached], clean[2][~reached])


def reached_by(windows, geometry, shape):
    """Which elements lie in some of the windows that are 1."""
    input = torch.zeros(shape, requires_grad=True)
    average = torch.nn.functional.avg_pool2d(
        input, geometry.kernel_size, geometry.stride, geometry.padding
    )
    (reached,) = torch.autograd.grad(average, input, windows[:, :1])
    return reached > 0


@pytest.mark.slow
@each_family
@each_layout
@pytest.mark.parametrize("scale", [1, 30, 1000])
def test_a_functions_own_terms_are_relative_where_they_do_not_hold(scale, layout, geometry):
    tensors = example((2, 17, 8, 36), geometry, layout=layout)
    tensors = (scale * tensors[0], 6 * tensors[1] - 3, *tensors[2:])
    actual = results(OUTSIDE, geometry, *tensors)
    expected = results(MAX_ENT, geometry, *tensors)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=3e-5 * scale**0.5, atol=1e-5 * scale)


@each_layout
@each_family
def test_number_of_threads_does_not_show(geometry, layout):
    before = torch.get_num_threads()
    tensors = example((3, 16, 56, 64), geometry, layout=layout)
    try:
        torch.set_num_threads(1)
        alone = results(GAUSSIAN, geometry, *tensors)
        for count in (2, 5):
            torch.set_num_threads(count)
            assert all(map(torch.equal, alone, results(GAUSSIAN, geometry, *tensors)))
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------- the cache on disk


def test_how_the_derivative_is_kept_has_its_own_code_on_disk():
    def name_on_disk(spread):
        forward = family_of("tiles", GAUSSIAN.cpu, spread).forward
        return inspect.getclosurevars(forward.__wrapped__).nonlocals["function"].__qualname__

    assert name_on_disk("root") != name_on_disk("positive")


def test_a_module_that_cannot_be_imported_is_named():
    nowhere = dataclasses.replace(GAUSSIAN, name="nowhere", cpu="no.such_module")
    with pytest.raises(ImportError, match=r"cpu='no\.such_module' cannot be imported: .*cpu=None"):
        backend.forward(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1), FAMILIES["tiles"], nowhere)
