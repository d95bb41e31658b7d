"""Volumes on the backend for CPUs: every window function, against its composition in float64."""

import pytest
import torch

from gfgp_cupy import poolings  # noqa: F401  they register their window functions
from gfgp_cupy.backends import numba as backend
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.ops import OPERATORS
from tests.support.random_numbers import random_numbers

FUNCTIONS = {
    name: of.function
    for (name, axes), of in OPERATORS.items()
    if axes == 3 and of.function.cpu is not None
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}
TILES, OVERLAPPING = pool_geometry(2, axes=3), pool_geometry(3, 2, 1, axes=3)
GEOMETRIES = (
    TILES,
    OVERLAPPING,
    pool_geometry(3, 1, 1, axes=3),
    pool_geometry((2, 3, 1), (1, 2, 3), (1, 1, 0), ceil_mode=True, axes=3),
    # The last two output planes reach the last input plane, each from its first row on.
    pool_geometry((4, 2, 3), (3, 1, 2), (2, 1, 1), ceil_mode=True, axes=3),
    pool_geometry((1, 2, 2), axes=3),
    pool_geometry((3, 1, 1), 1, (1, 0, 0), axes=3),
    # Two output planes of one input plane, where there is no other.
    pool_geometry(2, 1, (1, 0, 0), axes=3),
    # Uncut windows that share columns, and no rows.
    pool_geometry((1, 2, 3), (4, 2, 1), axes=3),
)
SHAPES = ((2, 3, 5, 6, 7), (1, 17, 4, 4, 20), (2, 1, 3, 8, 33), (2, 3, 1, 8, 9))

each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def example(shape, geometry, memory_format, lam_axes=()):
    """Input, θ in float32, and the output's gradient; θ varies along those ``lam_axes``."""
    output_shape = (*shape[:2], *geometry.output_size(*shape[2:]))
    sizes = [size if axis in lam_axes else 1 for axis, size in enumerate(output_shape[2:], 2)]
    return (
        random_numbers(shape, torch.float32, 0).abs().add(0.1).to(memory_format=memory_format),
        1 + 0.9 * random_numbers((*shape[:2], *sizes), torch.float32, 1).tanh(),
        random_numbers(output_shape, torch.float32, 2).to(memory_format=memory_format),
    )


def check(function, input, theta, grad_output, geometry):
    """Output, and all gradients, by themselves and with a mean's."""
    exact = [tensor.double().requires_grad_() for tensor in (input, theta)]
    expected = function.compose(*exact, geometry)
    of_input, of_theta = torch.autograd.grad(expected, exact, grad_output.double())
    mean_grad = random_numbers((*input.shape[:2], 1, 1, 1), torch.float32, 3)

    def close(actual, right):
        torch.testing.assert_close(actual.double(), right, rtol=1e-5, atol=1e-4)

    def backward(needed, mean_grad=None):
        return backend.backward(
            grad_output, input, theta, geometry, needed, mean_grad, function=function
        )

    output, kept = backend.forward_with_spread(input, theta, geometry, function)
    close(output, expected.detach())
    assert torch.equal(backend.forward(input, theta, geometry, function), output)
    grad_input, grad_theta = backward((True, True))
    close(grad_input, of_input)
    close(grad_theta, of_theta)
    assert torch.equal(backward((False, True))[1], grad_theta)
    close(backward((True, False), mean_grad)[0], of_input + mean_grad)
    if theta.shape[2:] == (1, 1, 1):
        close(backend.lam_backward(grad_output, kept, theta, function), of_theta)
    assert output.stride() == grad_output.stride()
    assert grad_input.stride() == input.stride()


@each_geometry
@each_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_max_ent_pooling_is_its_composition(shape, geometry, memory_format):
    if min(geometry.output_size(*shape[2:])) < 1:
        pytest.skip("no window fits")
    check(MAX_ENT, *example(shape, geometry, memory_format), geometry)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("geometry", [TILES, OVERLAPPING], ids=str)
@each_format
def test_every_pooling_is_its_composition(name, geometry, memory_format):
    check(FUNCTIONS[name], *example(SHAPES[0], geometry, memory_format), geometry)


@pytest.mark.parametrize("lam_axes", [(2, 3, 4), (2,), (3,), (4,)], ids=str)
@each_format
def test_a_parameter_that_varies_along_an_axis(lam_axes, memory_format):
    tensors = example(SHAPES[0], OVERLAPPING, memory_format, lam_axes)
    check(MAX_ENT, *tensors, OVERLAPPING)


@each_format
def test_windows_that_are_whole_volumes(memory_format):
    geometry = pool_geometry((3, 2, 4), axes=3)
    check(MAX_ENT, *example((2, 9, 3, 2, 4), geometry, memory_format), geometry)


@each_geometry
@each_format
def test_number_of_threads_does_not_show(geometry, memory_format):
    input, lam, grad_output = example((1, 7, 14, 20, 40), geometry, memory_format)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(
                (
                    backend.forward(input, lam, geometry),
                    *backend.backward(grad_output, input, lam, geometry, (True, True)),
                )
            )
    finally:
        torch.set_num_threads(threads)
    for alone, together in zip(*results, strict=True):
        assert torch.equal(alone, together)
