"""AdaPool on the backend for CPUs: at the borders of what its fast arithmetic holds for."""

import pytest
import torch

from gfgp_cupy.backends import numba as backend
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.poolings.ada import ADA
from tests.support.random_numbers import random_numbers
from tests.support.window_formulas import exact

GEOMETRIES = {"tiles": pool_geometry(2), "overlapping": pool_geometry(3, 2, 1)}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPE = (1, 18, 8, 36)
"""Whole vectors of windows and a rest, in both layouts."""

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def images(layout=torch.contiguous_format):
    return random_numbers(SHAPE, torch.float32, 0).contiguous(memory_format=layout)


def betas(value=None):
    if value is None:
        return random_numbers((*SHAPE[:2], 1, 1), torch.float32, 1).sigmoid()
    return torch.full((*SHAPE[:2], 1, 1), value)


def check(input, beta, geometry, scale=1.0, tolerance=4e-6):
    """Against the formula; ``scale`` is the elements' size, that the output has, too."""
    shape = (*SHAPE[:2], *geometry.output_size(*SHAPE[2:]))
    grad = random_numbers(shape, torch.float32, 2)
    expected = exact(ADA, input, beta, geometry, grad)
    output, sensitivity = backend.forward_with_spread(input, beta, geometry, ADA)
    assert_close(backend.forward(input, beta, geometry, ADA), expected.output, scale, tolerance)
    assert_close(output, expected.output, scale, tolerance)
    assert_close(sensitivity, expected.sensitivity, scale, tolerance)
    of_input, of_beta = backend.backward(grad, input, beta, geometry, (True, True), None, ADA)
    size = expected.grad_input.abs().max().clamp(min=1)
    assert_close(of_input, expected.grad_input, size, tolerance)
    assert_close(of_beta, expected.grad_parameter, scale * shape[2] * shape[3], tolerance)


def assert_close(actual, expected, scale, tolerance):
    assert actual.isfinite().all()
    assert (actual.double() - expected).abs().max() <= tolerance * scale


@each_geometry
@each_layout
@pytest.mark.parametrize("exponent", [-60, -41, -39, -38, 36, 38, 40, 41, 100])
def test_squares_that_leave_the_range(exponent, layout, geometry):
    """Elements have one sign: where m is small beside them its rounding errors are not.

    (Much smaller elements are less than the step that the formula is differentiated by.)"""
    scale = 2.0**exponent
    input = scale * (images(layout).abs() + 0.1)
    check(input, betas(1.0), geometry, scale)


@pytest.mark.parametrize(
    "geometry",
    [*GEOMETRIES.values(), pool_geometry(2, 1), pool_geometry(SHAPE[2:])],
    ids=[*GEOMETRIES, "others", "whole planes"],
)
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_largest_numbers(beta, geometry):
    """A weight of more than 1 times a distance would be infinite."""
    largest = 3e38
    input = images().abs().clamp(max=2) / 2
    input[..., ::3] = 0
    input[..., 1::5, 1::7] = 1
    input, parameter = largest * input, torch.full((1, 1, 1, 1), beta)
    output, sensitivity = backend.forward_with_spread(input, parameter, geometry, ADA)
    grad = torch.ones_like(output)
    of_input, _ = backend.backward(grad, input, parameter, geometry, (True, False), None, ADA)

    x = input.double().requires_grad_()
    of_each = torch.full_like(output, beta, dtype=torch.float64).requires_grad_()
    expected = ADA.compose(x, of_each, geometry)
    expected_grads = torch.autograd.grad(expected.sum(), (x, of_each))
    assert_close(output, expected, largest, 4e-6)
    assert_close(sensitivity, expected_grads[1], largest, 4e-6)
    assert of_input.isfinite().all()
    if beta == 1:  # by size it is as wrong as an element, which is rounded to more than 1
        assert_close(of_input, expected_grads[0], expected_grads[0].abs().max(), 4e-6)


@each_geometry
@each_layout
@pytest.mark.parametrize("offset", [-200.0, -90.0, -45.0, -43.0, 43.0, 45.0, 90.0, 200.0])
def test_exponentials_that_leave_the_range(offset, layout, geometry):
    check(images(layout) + offset, betas(), geometry, abs(offset))


@each_geometry
@each_layout
def test_some_windows_of_a_vector_leave_the_range(layout, geometry):
    input = images(layout).abs() + 0.1
    input[..., ::5] += 50
    input[:, 3::7] *= 2.0**-50
    check(input, betas(), geometry, 50)


@each_geometry
@each_layout
@pytest.mark.parametrize("beta", [None, 1.0])
def test_windows_of_zeros_among_others(beta, layout, geometry):
    input = images(layout).abs() + 0.1
    input[:, ::2, :, 5:20] = 0
    input[:, :, :, 30:] = 0
    check(input, betas(beta), geometry)


@each_layout
@pytest.mark.parametrize("family", GEOMETRIES)
def test_mean_of_zero(family, layout):
    """Where not all elements are 0, likeness depends on it."""
    columns = {"tiles": [1.0, -1.0], "overlapping": [-2.0, 1.0]}[family]
    rows = torch.tensor([[1.0], [3.0]]).repeat(4, 1)
    input = (torch.tensor(columns).repeat(18) * rows).expand(SHAPE)
    check(input.contiguous(memory_format=layout), betas(), GEOMETRIES[family])


@each_geometry
@each_layout
def test_beta_is_1_in_some_planes(layout, geometry):
    beta = betas()
    beta[:, ::3] = 1
    check(images(layout).abs() + 0.1, beta, geometry)


@each_geometry
@each_layout
def test_exponentials_that_are_0_and_infinite_where_beta_is_1(layout, geometry):
    input = images(layout).sign() * 100 + images(layout)
    input[:, :, 4:] = 50 * input[:, :, 4:].abs()
    check(input, betas(1.0), geometry, 5000)
