"""Log-sum-exp pooling on the backend for CPUs, on both sides of what chooses between its ways to
compute a window: against the formula in float64, relative to what a window itself is."""

import pytest
import torch

from gfgp_cupy.backends import numba as backend
from gfgp_cupy.backends.numba.plan import plan
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.poolings.log_sum_exp import LOG_SUM_EXP
from tests.support.random_numbers import random_numbers

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
UNIT_ROUNDOFF = 2.0**-24
PLANES, CHANNELS = 4000, 40

WINDOWS = {
    "positive": lambda z: z.abs() + 0.1,
    "relu": lambda z: z.relu(),
    "both signs": lambda z: z,
    "small": lambda z: 1e-3 * z,
    "alike": lambda z: 2 + 1e-2 * z,
    "alike to the last digits": lambda z: 2 + 1e-6 * z.round(),
    "of two values": lambda z: 3 * z[:, :1].abs() * (z > -0.5),
    "equal": lambda z: z[:, :1].abs().expand_as(z),
    "large": lambda z: 8 * z.abs(),
}
LAMS = (0.5, 1.0, 3.0, 8.0, -0.5, -3.0, 1e-3)


def exactly(x, lam):
    """Of windows in rows: the output, the elements' gradients, ∂y/∂λ. No difference is small."""
    centre = x.mean(1, keepdim=True)
    reach = lam * (x - centre)
    highest = reach.amax(1, keepdim=True)
    logarithm = torch.where(
        highest < 1,
        reach.expm1().mean(1, keepdim=True).log1p(),
        highest + (reach - highest).exp().mean(1, keepdim=True).log(),
    )
    z = reach - logarithm
    series = sum((k + 1) * z ** (k + 2) / torch.tensor(k + 3.0).lgamma().exp() for k in range(12))
    parts = torch.where(z.abs() < 0.3, series, 1 + (z - 1) * z.exp())
    return (centre + logarithm / lam)[:, 0], z.exp() / x.shape[1], parts.mean(1) / lam**2


def computed(x, lam, size, layout):
    """The same by the backend, each window a plane of its own; ∂y/∂λ also as it is kept."""
    geometry = pool_geometry(2) if size == 2 else pool_geometry(3, 2)
    input = x.reshape(-1, CHANNELS, size, size).contiguous(memory_format=layout)
    lams, ones = (torch.full((*input.shape[:2], 1, 1), value) for value in (lam, 1.0))
    assert plan(input, lams, geometry).module == ("tiles" if size == 2 else "overlapping")
    output, kept = backend.forward_with_spread(input, lams, geometry, LOG_SUM_EXP)
    gradient, of_lam = backend.backward(
        ones, input, lams, geometry, (True, True), None, LOG_SUM_EXP
    )
    return output.flatten(), gradient.reshape(len(x), -1), of_lam.flatten(), kept.flatten() ** 2


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", [2, 3])
def test_windows_of_every_kind(size, layout):
    numbers = random_numbers((PLANES, size * size), torch.float64, 0)
    for name, windows in WINDOWS.items():
        x = windows(numbers).float()
        for lam in LAMS:
            where = f"{name}, {lam}"
            actual = computed(x, lam, size, layout)
            output, gradient, of_lam = exactly(x.double(), torch.tensor(lam, dtype=torch.float64))
            largest = x.abs().amax(1).double() + 1e-20
            assert ((actual[0] - output).abs() <= 12 * UNIT_ROUNDOFF * largest).all(), where
            error = (actual[1] - gradient).abs() - UNIT_ROUNDOFF * gradient.amax(1, keepdim=True)
            reach = 1 + abs(lam) * (x.amax(1) - x.amin(1)).double()[:, None]
            assert (error <= 10 * reach * UNIT_ROUNDOFF * gradient).all(), where
            # Seen from 0, not from the mean, equal elements differ from y in its last digits.
            of_rounding = (0 if size == 2 else 1e-12) * largest**2 + 1e-30
            for sensitivity in actual[2:]:
                error = (sensitivity - of_lam).abs() - of_rounding
                assert (error <= 24 * UNIT_ROUNDOFF * of_lam).all(), where


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("window", [(2,), (3, 2), (3, 2, 1), (3, 1, 1), (5, 2, 2)], ids=str)
def test_equal_elements_are_the_output_however_small(window, layout, dtype):
    geometry = pool_geometry(*window)
    for lam in (1.0, -1.0, 50.0, -1e-3, 1e-5, 1e-6):
        lams = torch.full((1, CHANNELS, 1, 1), lam, dtype=dtype)
        for value in (0.0, 1e-30, -1e-30, 1e-20, -1e-10, 1e-36 / abs(lam)):
            where = f"{value}, {lam}"
            input = torch.full((1, CHANNELS, 7, 7), value, dtype=dtype)
            input = input.contiguous(memory_format=layout)
            output, kept = backend.forward_with_spread(input, lams, geometry, LOG_SUM_EXP)
            error = (output - value).abs() / abs(value) if value else output.abs()
            assert error.max() <= (4 * torch.finfo(dtype).eps if value else 0), where
            assert kept.max() <= 1e-10, where


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", [3, 6, 40])
def test_what_is_outside_takes_no_part(size, layout):
    geometry = pool_geometry(3, 2, 1)
    input = random_numbers((2, CHANNELS, size, size), torch.float32, 3).abs()
    input = input.contiguous(memory_format=layout)
    lams = torch.full((2, CHANNELS, 1, 1), 0.5)
    output, kept = backend.forward_with_spread(input, lams, geometry, LOG_SUM_EXP)
    grad = random_numbers(output.shape, torch.float32, 4).abs()
    actual = backend.backward(grad, input, lams, geometry, (True, True), None, LOG_SUM_EXP)
    exact = input.double().requires_grad_(), lams.double().requires_grad_()
    expected = LOG_SUM_EXP.compose(*exact, geometry)
    gradients = torch.autograd.grad(expected, exact, grad.double())
    torch.testing.assert_close(output.double(), expected.detach(), rtol=2e-6, atol=0)
    for one, other in zip(actual, gradients, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=4e-6, atol=1e-7)
    of_kept = (kept.double() ** 2 * grad).sum((2, 3), keepdim=True)
    torch.testing.assert_close(of_kept, gradients[1], rtol=4e-6, atol=0)


def test_elements_whose_powers_vanish_do_not_cancel_large_ones():
    for most in (3.0, 8.0, 2.0**18, 2.0**22):
        x = torch.zeros(CHANNELS, 9)
        x[:, 0], x[:, 1] = -100.0, torch.tensor(1 + most).log()
        x[:, 2] = torch.linspace(-90, -60, CHANNELS)
        actual = computed(x, 1.0, 3, torch.channels_last)
        exact = exactly(x.double(), torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close(actual[0].double(), exact[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(actual[1].double(), exact[1], rtol=2e-5, atol=1e-25)
        torch.testing.assert_close(actual[2].double(), exact[2], rtol=2e-6, atol=0)


def test_equal_elements_beside_others_in_windows_of_any_family():
    """Their mean is rounded, and what is kept of ∂y/∂λ is its root."""
    x = random_numbers((1, 64, 3, 3), torch.float32, 2).abs() * 8
    x[:, ::2] = x[:, ::2, :1, :1]
    x = x.contiguous(memory_format=torch.channels_last)
    for lam in (3.0, 30.0, 0.0):
        lams = torch.full((1, 64, 1, 1), lam)
        _, kept = backend.forward_with_spread(x, lams, pool_geometry(3), LOG_SUM_EXP)
        assert (kept[:, ::2] <= 1e-5).all()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("lam", [0.5, 4.0, -1.0])
def test_neighbours_do_not_show(size, lam):
    """Windows that are computed otherwise, in the same vector, leave the others' bits alone."""
    x = random_numbers((2 * CHANNELS, size * size), torch.float32, 1).abs()
    before = computed(x, lam, size, torch.channels_last)
    others = torch.arange(len(x)) % 3 == 0
    for disturbance in (-3.0, 50.0, 1e4, torch.nan):
        disturbed = torch.where(others[:, None], x + disturbance, x)
        after = computed(disturbed, lam, size, torch.channels_last)
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one[~others], other[~others])
