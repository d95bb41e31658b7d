"""AdaPool of windows whose elements differ by much more than those that have a weight by size.

Of what is far from the largest element, e^x is 0; it must not take digits from the rest.
"""

import functools

import pytest
import torch

from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.poolings.ada import ADA
from tests.support.implementations import each_implementation_of_its_own
from tests.support.random_numbers import random_numbers
from tests.support.window_formulas import exact

GEOMETRIES = {
    "tiles": pool_geometry(2),
    "overlapping": pool_geometry(3, 2, 1),
    "dense": pool_geometry(3, 1, 1),
    "large": pool_geometry(5, 3, 2, ceil_mode=True),
    "whole planes": pool_geometry((8, 36)),
}
SHAPE = (1, 4, 8, 36)
"""Whole vectors of windows and a rest."""

UNIT = 2.0**-24
"""Half of the distance from 1 to the next float32."""

SCALES = {f"1e{exponent}": 10.0**exponent for exponent in (-3, 1, 3, 7)}

each_geometry = pytest.mark.parametrize("name", GEOMETRIES)
each_spread = pytest.mark.parametrize("spread", [*SCALES, "orders", "far below", "cancelling"])


def numbers(seed):
    return random_numbers(SHAPE, torch.float64, seed)


def images(spread):
    if spread in SCALES:
        input = SCALES[spread] * numbers(0)
    elif spread == "orders":
        input = numbers(0) * 10 ** (12 * numbers(1).sigmoid() - 6)
    elif spread == "far below":
        input = torch.where(numbers(0) < -0.5, 5, -1e6 * numbers(1).sigmoid())
        # Beside the largest, some that have a weight.
        input = torch.where(numbers(2) < -1, 4.5, input)
    else:  # means are small beside the elements
        input = torch.where(numbers(0) < 0, -1, 1) * 1e6 + numbers(1)
    return input.float()


@functools.cache
def expected_of(spread, name, beta, signed=True):
    geometry = GEOMETRIES[name]
    input = images(spread) if signed else images(spread).abs()
    parameter = torch.full((*SHAPE[:2], 1, 1), beta)
    shape = (*SHAPE[:2], *geometry.output_size(*SHAPE[2:]))
    grad = random_numbers(shape, torch.float32, 3)
    return (input, parameter, grad), exact(ADA, input, parameter, geometry, grad)


def extremes(input, geometry):
    """The smallest and the largest element of each window."""
    pool = torch.nn.MaxPool2d(
        geometry.kernel_size, geometry.stride, geometry.padding, ceil_mode=geometry.ceil_mode
    )
    return -pool(-input), pool(input)


def check(implementation, inputs, expected, geometry, scale):
    """``scale`` is the size of what is rounded in the output."""
    device = implementation.device
    input, parameter, grad = (tensor.to(device) for tensor in inputs)
    output, kept = implementation.forward_with_spread(input, parameter, geometry, function=ADA)
    assert torch.equal(output, implementation.forward(input, parameter, geometry, function=ADA))
    error = (output.cpu().double() - expected.output).abs()
    assert (error <= 8 * UNIT * scale).all()

    smallest, largest = (extreme.double() for extreme in extremes(inputs[0], geometry))
    of_window = 16 * UNIT * (largest - smallest)
    if implementation.forward.__module__.endswith(".torch"):  # the difference of two outputs
        of_window = of_window + 2 * UNIT * torch.maximum(smallest.abs(), largest.abs())
    assert ((kept.cpu().double() - expected.sensitivity).abs() <= of_window).all()

    of_input, of_beta = implementation.backward(
        grad, input, parameter, geometry, (True, True), function=ADA
    )
    size = expected.grad_input.abs().max().clamp(min=1)
    assert (of_input.cpu().double() - expected.grad_input).abs().max() <= 24 * UNIT * size
    of_plane = (inputs[2].abs() * of_window).sum((2, 3), keepdim=True)
    assert ((of_beta.cpu().double() - expected.grad_parameter).abs() <= of_plane).all()


@each_implementation_of_its_own
@each_geometry
@each_spread
def test_by_size_all_digits_stay(implementation, spread, name):
    """As if what has no weight were not there."""
    inputs, expected = expected_of(spread, name, 0.0)
    smallest, largest = (each.double() for each in extremes(inputs[0], GEOMETRIES[name]))
    # What counts for something is at most a few less than the largest element.
    scale = largest.abs() + (largest - smallest).clamp(max=10)
    check(implementation, inputs, expected, GEOMETRIES[name], scale)


@each_implementation_of_its_own
@each_geometry
@each_spread
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_mixed_the_digits_of_the_window_stay(implementation, beta, spread, name):
    """Elements have one sign: where m is small beside them its rounding errors are not."""
    inputs, expected = expected_of(spread, name, beta, False)
    _, largest = extremes(inputs[0], GEOMETRIES[name])
    check(implementation, inputs, expected, GEOMETRIES[name], largest.double())


@each_implementation_of_its_own
@each_geometry
@each_spread
@pytest.mark.parametrize("beta", [0.0, 0.8, 1.0])
def test_the_output_is_between_the_extremes(implementation, beta, spread, name):
    geometry, input = GEOMETRIES[name], images(spread)
    smallest, largest = extremes(input, geometry)
    input, parameter = (t.to(implementation.device) for t in (input, torch.full((1,) * 4, beta)))
    output = implementation.forward(input, parameter, geometry, function=ADA).cpu()
    assert ((smallest <= output) & (output <= largest)).all()


@each_implementation_of_its_own
def test_a_window_that_lost_a_third_of_its_gradient(implementation):
    """About the element in its middle, in which 5.0 and 4.5 are the same."""
    window = [[-2e6, -1e6, -1e5], [-3e6, -1.3e6, 5.0], [-3.3e6, -1.1e6, 4.5]]
    input = torch.tensor(window).expand(1, 1, 3, 3).contiguous()
    geometry, parameter, grad = pool_geometry(3, 2), torch.zeros((1,) * 4), torch.ones((1,) * 4)
    expected = exact(ADA, input, parameter, geometry, grad)
    input, parameter, grad = (t.to(implementation.device) for t in (input, parameter, grad))
    gradient, _ = implementation.backward(
        grad, input, parameter, geometry, (True, False), function=ADA
    )
    torch.testing.assert_close(gradient.cpu().double(), expected.grad_input, rtol=1e-6, atol=1e-20)
