"""channels_last windows that overlap: in half types those that share their elements' weights, and
those that lie too far from the others, or have too large a λ, for that."""

import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from tests.support import slow_loops
from tests.support.cxx import needs_cxx
from tests.support.implementations import kernels_on_cpu
from tests.support.random_numbers import random_numbers
from tests.support.rounding import assert_rounding_only

pytestmark = needs_cxx

THREE = pool_geometry(3, 2, 1)
GEOMETRIES = {
    "3/2/1": THREE,
    "3/1/1": pool_geometry(3, 1, 1),
    "5/2/2": pool_geometry(5, 2, 2),
    "2/2/0 cut": pool_geometry(2, ceil_mode=True),
    "2x3/1x2/1x0 ceil": pool_geometry((2, 3), (1, 2), (1, 0), ceil_mode=True),
    "3x1/2x1/0": pool_geometry((3, 1), (2, 1)),
}
HALF_TYPES = [torch.float16, torch.bfloat16]
each_type = pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES], ids=str)
each_half_type = pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)

launched = []


def run(launch):
    launched.append(launch.name)
    return run_launch(launch)


KERNELS = kernels_on_cpu(run)


@pytest.fixture(autouse=True)
def _marches():
    """These kernels, and no others, serve every test."""
    launched.clear()
    yield
    assert launched
    assert all("marching_channels" in name or "lam_gradient" in name for name in launched)


def last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def normal(shape, seed=0, dtype=torch.float32):
    return last(random_numbers(shape, dtype, seed))


def assert_exact(input, lam, geometry):
    """Output, spread and gradients are those of the formulas."""
    compute = torch.float32
    output, spread = KERNELS.forward_with_spread(input, lam, geometry)
    assert torch.equal(output, KERNELS.forward(input, lam, geometry))
    assert_rounding_only(output, slow_loops.max_ent_pool2d(input, lam, geometry), compute)
    if input.dtype is torch.float32:
        assert_rounding_only(spread, slow_loops.spread(input, lam, geometry), compute)
    grad_output = normal(output.shape, 2, input.dtype)
    gradients = KERNELS.backward(grad_output, input, lam, geometry, (True, True))
    exact = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, geometry)
    for gradient, expected in zip(gradients, exact, strict=True):
        assert_rounding_only(gradient, expected, compute)


@each_type
@pytest.mark.parametrize(
    ("shape", "name"),
    [
        *(((2, 48, 9, 10), name) for name in GEOMETRIES),
        # Each is compiled anew. Long planes are also those of the tests below.
        *(((1, 16, 7, 5), name) for name in ("3/2/1", "2x3/1x2/1x0 ceil")),
        *(((1, 16, 65, 6), name) for name in ("3/2/1", "5/2/2")),
    ],
    ids=str,
)
def test_all_sizes(shape, name, dtype):
    lam = 2 * random_numbers((*shape[:2], 1, 1), torch.float32, 1)
    assert_exact(normal(shape, 0, dtype), lam, GEOMETRIES[name])


@each_geometry
@each_type
@pytest.mark.parametrize("lam", [4.0, -4.0])
@pytest.mark.parametrize(
    "rows", [slice(0, 3), slice(9, 12), slice(28, 35), slice(62, 65)], ids=str
)  # at a strip's beginning, inside, where strips meet, at the plane's end
def test_far_windows_among_near_ones(geometry, dtype, lam, rows):
    input = normal((1, 16, 65, 9), 0, dtype)
    input[:, ::2, rows, 2:6] -= 40
    input[:, 1::2, rows, 5:] += 40
    assert_exact(input, torch.full((1, 1, 1, 1), lam), geometry)


@each_type
@pytest.mark.parametrize("distance", [5.0, 5.5, 6.0, 50.0])  # the switch lies near 22 / λ
def test_both_sides_of_the_switch(dtype, distance):
    input = normal((1, 16, 9, 9), 0, dtype)
    input[:, :, 4:] -= distance
    assert_exact(input, torch.full((1, 1, 1, 1), 4.0), THREE)


@each_half_type
@pytest.mark.parametrize("lam", [6.9, 7.1, -6.9, -7.1, 50.0])  # from 7 on nothing is shared
def test_both_sides_of_the_largest_lam(dtype, lam):
    assert_exact(normal((1, 16, 17, 9), 0, dtype), torch.full((1, 1, 1, 1), lam), THREE)


@each_half_type
def test_neighbouring_channels_of_small_and_large_lam(dtype):
    lam = torch.tensor([1.0, 50.0, -50.0, -1.0]).repeat(4).view(1, 16, 1, 1)
    assert_exact(normal((1, 16, 17, 9), 0, dtype), lam, THREE)


@each_type
def test_a_large_lam_reads_memory_no_more_often(dtype):
    def loads(lam):
        counted = []
        kernels = kernels_on_cpu(lambda launch: counted.append(run(launch).loads))
        output = kernels.forward(input, lam, THREE)
        kernels.backward(output, input, lam, THREE, (True, True))
        return counted

    input = normal((1, 16, 65, 17), 0, dtype)
    small, large = (loads(torch.full((1, 1, 1, 1), lam)) for lam in (1.0, 50.0))
    assert all(large <= 1.01 * small for small, large in zip(small, large, strict=True))


@pytest.mark.parametrize("lam", [0.0, 1e-3, -0.3, 1.0, -5.0, 1e3, -1e6, 1e30])
@pytest.mark.parametrize("base", [0.0, 0.1, -3.7, 1e4, 1e-30, 1e30])
@each_geometry
def test_mean_lies_in_its_window(geometry, lam, base):
    equal = torch.full((8, 9, 9), base)
    above = equal.nextafter(torch.tensor(math.inf))
    coins = random_numbers((8, 9, 9), torch.float32, 3)
    one = torch.arange(equal.numel()).view_as(equal) % 5 == 0
    input = last(torch.stack([
        equal, torch.where(coins > 0, equal, above), torch.where(one, above, equal),
        torch.where(one, -equal, equal), base * coins,
    ]))  # fmt: skip
    output = KERNELS.forward(input, torch.full((1, 1, 1, 1), lam), geometry)
    kernel, stride, padding, ceil_mode = geometry
    windows = (kernel, stride, padding, 1, ceil_mode)
    assert (output <= F.max_pool2d(input, *windows)).all()
    assert (output >= -F.max_pool2d(-input, *windows)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38, -1e38])
@pytest.mark.parametrize("lam", [0.0, 2.0, -2.0])
def test_what_is_not_finite_stays_in_its_windows(value, lam):
    clean = normal((1, 16, 33, 9))
    spoilt = clean.clone()
    places = [(0, 0), (1, 5), (16, 4), (32, 8)]
    for row, column in places:
        spoilt[0, 3, row, column] = value
    lam = torch.full((1, 1, 1, 1), lam)
    hit = F.max_pool2d((spoilt != clean).float(), 3, 2, 1) > 0
    output = KERNELS.forward(spoilt, lam, THREE)
    others, untouched = output[~hit], KERNELS.forward(clean, lam, THREE)[~hit]
    if math.isfinite(value):  # As a reference it sends all of its tile the exact way.
        torch.testing.assert_close(others, untouched, rtol=3e-7, atol=1e-7)
    else:
        assert torch.equal(others, untouched)
    assert (output[hit].isfinite()).all() == math.isfinite(value)
    ones = torch.ones_like(output)
    grad_input, _ = KERNELS.backward(ones, spoilt, lam, THREE, (True, True))
    exact, _ = slow_loops.max_ent_pool2d_gradients(ones, spoilt, lam, THREE)
    assert torch.equal(grad_input.isnan(), exact.value.isnan())


def test_offset_takes_no_digits_from_the_gradients():
    steps = (16 * normal((2, 16, 9, 9))).round() / 1024
    lam = torch.full((1, 1, 1, 1), 100.0)
    grad_output = normal((2, 16, 5, 5), 2)
    gradients = KERNELS.backward(grad_output, last(1e4 + steps), lam, THREE, (True, True))
    exact = slow_loops.max_ent_pool2d_gradients(grad_output, steps, lam, THREE)
    for gradient, expected in zip(gradients, exact, strict=True):
        assert_rounding_only(gradient, expected, torch.float32)


def test_tiles_and_strips_cut_the_plane():
    launches = []
    input = torch.empty(1, 16, 65, 9, device="meta").to(memory_format=torch.channels_last)
    passes.forward(input, torch.empty(1, 1, 1, 1, device="meta"), THREE, launches.append)
    launched.extend(launch.name for launch in launches)
    _, tiles, _, _, strips, _, rows, *_ = (a for a in launches[0].args if isinstance(a, int))
    assert tiles == 2
    assert strips > 1
    assert strips * rows >= 33
