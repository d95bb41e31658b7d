"""Volumes whose windows have a depth of 1: what backends get of them, and what comes of it."""

import pytest
import torch

from gfgp_cupy.backends import torch as backend
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.memory_format import new_dense
from gfgp_cupy.planes_of_volumes import passes_of
from tests.support.random_numbers import random_numbers

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}
IN_PLANES = (
    pool_geometry((1, 2, 2), axes=3),
    pool_geometry((1, 3, 3), (1, 2, 2), (0, 1, 1), ceil_mode=True, axes=3),
    pool_geometry((1, 6, 5), axes=3),
    pool_geometry(1, axes=3),
)
IN_NO_PLANES = (
    pool_geometry(2, axes=3),
    pool_geometry((2, 1, 2), axes=3),
    # Planes that no window has an element of.
    pool_geometry((1, 2, 2), (2, 2, 2), axes=3),
    pool_geometry((2, 1, 1), (1, 1, 1), axes=3),
)
SHAPE = (2, 3, 4, 6, 5)
# Of a parameter, which of the output's axes it has.
VARYING = ((), (1,), (0,), (0, 1), (0, 1, 2, 3, 4), (2,), (1, 3), (0, 3, 4), (2, 4))

each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
each_geometry = pytest.mark.parametrize("geometry", IN_PLANES, ids=str)


class Listening:
    """The torch backend, which checks what the contract says of a mean's gradient, and the inputs
    that it has been given."""

    def __init__(self):
        self.inputs = []

    def forward(self, input, *args, **kwargs):
        self.inputs.append(input)
        return backend.forward(input, *args, **kwargs)

    def forward_with_spread(self, input, *args, **kwargs):
        self.inputs.append(input)
        return backend.forward_with_spread(input, *args, **kwargs)

    def backward(self, grad_output, input, *args, mean_grad):
        self.inputs.append(input)
        if mean_grad is not None:
            assert mean_grad.shape == (*input.shape[:2], *(1,) * (input.dim() - 2))
        return backend.backward(grad_output, input, *args, mean_grad)


def output_shape(shape, geometry):
    return (*shape[:2], *geometry.output_size(*shape[2:]))


def laid_out(tensor, memory_format):
    return new_dense(tensor, tensor.shape, memory_format).copy_(tensor)


def check(listening, input, lam, geometry):
    """Each pass against the same one of the volume."""
    by_planes, shape = passes_of(listening, axes=3), output_shape(input.shape, geometry)
    memory_format = (
        torch.channels_last_3d if input.stride(1) == 1 < input.shape[1] else torch.contiguous_format
    )
    output = laid_out(random_numbers(shape, torch.float64, 2), memory_format)
    mean_grad = random_numbers((*shape[:2], 1, 1, 1), torch.float64, 3)

    def same(actual, expected):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        assert actual.stride() == expected.stride()
        # Autograd lets nobody change views that custom functions return.
        assert expected._is_view() or not actual._is_view()

    same(by_planes.forward(input, lam, geometry), backend.forward(input, lam, geometry))
    for actual, expected in zip(
        by_planes.forward_with_spread(input, lam, geometry),
        backend.forward_with_spread(input, lam, geometry),
        strict=True,
    ):
        same(actual, expected)
    for needed in ((True, True), (False, True), (True, False)):
        for added in (None, mean_grad):
            arguments = output, input, lam, geometry, needed, added
            for actual, expected in zip(
                by_planes.backward(*arguments), backend.backward(*arguments), strict=True
            ):
                assert (actual is None) == (expected is None)
                if expected is not None:
                    same(actual, expected)


def example(shape, geometry, memory_format, varying=(0, 1)):
    sizes = [
        size if axis in varying else 1 for axis, size in enumerate(output_shape(shape, geometry))
    ]
    input = laid_out(random_numbers(shape, torch.float64, 0), memory_format)
    return input, random_numbers(sizes, torch.float64, 1)


@each_geometry
@each_format
@pytest.mark.parametrize("varying", VARYING, ids=str)
def test_passes_are_those_of_the_volume(geometry, memory_format, varying):
    check(Listening(), *example(SHAPE, geometry, memory_format, varying), geometry)


@each_geometry
@each_format
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 4, 6, 5), (2, 1, 4, 6, 5), (1, 3, 4, 6, 5), (2, 3, 1, 6, 5), (0, 3, 4, 6, 5)],
    ids=str,
)
def test_axes_of_size_one_and_empty_batches(shape, geometry, memory_format):
    check(Listening(), *example(shape, geometry, memory_format), geometry)


@each_geometry
@each_format
def test_the_backend_is_given_planes_where_they_lie(geometry, memory_format):
    listening = Listening()
    input, lam = example(SHAPE, geometry, memory_format)
    check(listening, input, lam, geometry)
    assert listening.inputs
    for planes in listening.inputs:
        assert planes.dim() == 4
        assert planes.data_ptr() == input.data_ptr()


@pytest.mark.parametrize("geometry", IN_NO_PLANES, ids=str)
@each_format
def test_other_windows_are_pooled_as_they_are(geometry, memory_format):
    listening = Listening()
    input, lam = example(SHAPE, geometry, memory_format)
    check(listening, input, lam, geometry)
    assert all(given is input for given in listening.inputs)


@each_geometry
@each_format
def test_input_that_is_not_dense_keeps_its_format(geometry, memory_format):
    listening = Listening()
    larger, lam = example((2, 3, 5, 7, 5), geometry, memory_format)
    input = larger[:, :, 1:, 1:]
    check(listening, input, lam, geometry)
    for planes in listening.inputs:
        assert (planes.stride(1) == 1) == (memory_format is torch.channels_last_3d)
