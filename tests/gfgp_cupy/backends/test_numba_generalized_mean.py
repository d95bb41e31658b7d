"""Generalised-mean pooling on the backend for CPUs: on both sides of where its fast ways end,
against the mathematics in float64."""

import pytest
import torch

from gfgp_cupy.backends import numba as backend
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.poolings.generalized_mean import GENERALIZED_MEAN
from tests.support.random_numbers import random_numbers
from tests.support.rounding import UNIT_ROUNDOFF

EPS = torch.tensor(1e-6).double()
SHAPE = (1, 17, 16, 36)
FAMILIES = {
    "tiles": pool_geometry(2),
    "overlapping": pool_geometry(3, 2, 1),
    "windows": pool_geometry(3, 1, 1),
}

each_family = pytest.mark.parametrize("geometry", FAMILIES.values(), ids=FAMILIES)
each_layout = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"]
)


def exact(x, p, geometry):
    """The output, its derivatives by the elements and by p, of one window each, which is y / p²
    times the mean of e z − (e − 1), z the logarithm of an element's power e over their mean."""
    x = x.double().requires_grad_()
    outside = torch.nn.functional.pad(x, (geometry.padding[1],) * 2 + (geometry.padding[0],) * 2)
    inside = torch.nn.functional.pad(torch.ones_like(x), (*(geometry.padding[1],) * 2,) * 2) > 0
    size, stride = geometry.kernel_size[0], geometry.stride[0]
    windows, inside = (
        each.unfold(2, size, stride).unfold(3, size, stride).flatten(4)
        for each in (outside, inside)
    )
    logarithm = windows.maximum(EPS).log()
    count = inside.sum(-1, keepdim=True)

    def mean(values):
        return torch.where(inside, values, 0).sum(-1, keepdim=True) / count

    centre = mean(logarithm).detach()
    shift = torch.log1p(mean(torch.expm1(p * (logarithm - centre)))) / p
    z = (p * (logarithm - centre - shift)).detach()
    series = z * z * (1 / 2 + z * (1 / 3 + z * (1 / 8 + z / 30)))
    divergence = torch.where(z.abs() < 1e-3, series, torch.expm1(z) * (z - 1) + z)
    output = (centre + shift).exp().squeeze(-1)
    (by_x,) = torch.autograd.grad(output.sum(), x)
    return output.detach(), by_x, output.detach() * mean(divergence).squeeze(-1) / p**2


def assert_right(x, p, geometry, layout, dtype=torch.float32):
    x = x.to(dtype).contiguous(memory_format=layout)
    theta = torch.full((*x.shape[:2], 1, 1), p, dtype=dtype)
    output, by_p = backend.forward_with_spread(x, theta, geometry, GENERALIZED_MEAN)
    ones = torch.ones_like(output)
    by_x, sums = backend.backward(ones, x, theta, geometry, (True, True), None, GENERALIZED_MEAN)
    expected = exact(x, p, geometry)
    units = UNIT_ROUNDOFF[dtype]
    # Of an element's gradient, relative to the largest, too: small powers have larger errors.
    least = 0 * expected[0], 2 * expected[1].amax((2, 3), keepdim=True), 0 * expected[2]
    for actual, right, small, most in zip(
        (output, by_x, by_p), expected, least, (12, 40, 32), strict=True
    ):
        error = (actual.double() - right).abs()
        assert (error <= units * (most * right + small) + 1e-30).all()
    right = expected[2].sum((2, 3), keepdim=True)
    assert ((sums.double() - right).abs() <= 32 * units * right).all()


@each_layout
@each_family
@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 16.0])
def test_windows_of_elements_that_differ_much_and_little(p, geometry, layout):
    # Every plane has another spread, so the derivatives by p are on all sides of their limit.
    spread = torch.logspace(-4, 1, SHAPE[1]).view(1, -1, 1, 1)
    x = (spread / p * random_numbers(SHAPE, torch.float32, 0)).exp()
    assert_right(x, p, geometry, layout)


@each_family
@pytest.mark.parametrize("p", [-1.0, 0.4999, 0.5001, 15.99, 16.01])
def test_beside_the_limits_of_p(p, geometry):
    # (A number that float32 has.)
    p = torch.tensor(p).item()
    x = (random_numbers(SHAPE, torch.float32, 1) / abs(p)).exp()
    assert_right(x, p, geometry, torch.contiguous_format)


@each_family
@pytest.mark.parametrize(
    ("p", "exponent"), [(3.0, 19), (3.0, 22), (3.0, 44), (16.0, -6.25), (16.0, -8), (16.0, -11)]
)
def test_powers_beside_the_limits_of_their_mean(p, exponent, geometry):
    # The limits are 2^-100 and 2^64; far beyond them powers leave float32's range.
    x = 2.0**exponent * (random_numbers(SHAPE, torch.float32, 2) / p).exp()
    assert_right(x, p, geometry, torch.contiguous_format)


@each_layout
@each_family
def test_elements_below_the_least_get_nothing(geometry, layout):
    x = random_numbers(SHAPE, torch.float32, 3)
    for p in (0.5, 3.0, 20.0):
        assert_right(x, p, geometry, layout)


@pytest.mark.slow
@each_family
def test_float64(geometry):
    spread = torch.logspace(-4, 1, SHAPE[1], dtype=torch.float64).view(1, -1, 1, 1)
    # Less than where the series ends, the formulas here are not more exact than what they check.
    x = (spread.clamp(min=0.1) * random_numbers(SHAPE, torch.float64, 4)).exp()
    theta = torch.full((*SHAPE[:2], 1, 1), 3.0, dtype=torch.float64)
    output, by_p = backend.forward_with_spread(x, theta, geometry, GENERALIZED_MEAN)
    expected = exact(x, 3.0, geometry)
    torch.testing.assert_close(output, expected[0], rtol=1e-14, atol=0)
    torch.testing.assert_close(by_p, expected[2], rtol=1e-12, atol=0)


@each_layout
@each_family
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_what_is_not_finite_spoils_its_own_windows_alone(value, layout, geometry):
    theta = torch.full((*SHAPE[:2], 1, 1), 3.0)
    x = random_numbers(SHAPE, torch.float32, 5).abs() + 0.1
    x = x.contiguous(memory_format=layout)
    clean = backend.forward_with_spread(x, theta, geometry, GENERALIZED_MEAN)
    x[0, :, 3, 7] = value
    spoilt = backend.forward_with_spread(x, theta, geometry, GENERALIZED_MEAN)
    hit = torch.zeros(1, 1, *SHAPE[2:])
    hit[0, 0, 3, 7] = 1
    window = geometry.kernel_size, geometry.stride, geometry.padding
    hit = torch.nn.functional.max_pool2d(hit, *window).bool().expand_as(clean[0])
    for one, other in zip(spoilt, clean, strict=True):
        assert one[hit].isnan().all()
        assert torch.equal(one[~hit], other[~hit])


@each_layout
@each_family
@pytest.mark.parametrize("p", [0.5, 3.0])
def test_windows_of_equal_elements_have_no_derivative_by_p(p, layout, geometry):
    # Beside windows of which one element is the next number, or another one below the least.
    x = torch.full(SHAPE, 1.7)
    x[:, ::2] = -1.0
    x[:, 1::4, 8:, ::6] = torch.tensor(1.7).nextafter(torch.tensor(2.0))
    x[:, ::4, 8:, ::6] = -2.0
    x[:, 2::4, 8:, ::6] = 0.3
    assert_right(x, p, geometry, layout)
    theta = torch.full((*SHAPE[:2], 1, 1), p)
    x = x.contiguous(memory_format=layout)
    _, by_p = backend.forward_with_spread(x, theta, geometry, GENERALIZED_MEAN)
    window = geometry.kernel_size, geometry.stride, geometry.padding
    of_range = torch.nn.functional.max_pool2d(
        x.clamp(min=0), *window
    ) + torch.nn.functional.max_pool2d(-x.clamp(min=0), *window)
    assert (by_p[of_range == 0] == 0).all()
    assert (by_p[of_range > 0] > 0).all()
