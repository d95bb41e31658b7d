"""Windows that share their elements' weights, and those that lie too far from the others for that.

``shared_weights.cu`` says from which distance, and from which λ, on a strip is worked on window by
window.
"""

import math

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.spread import unpack_spread
from tests.support import slow_loops
from tests.support.cxx import needs_cxx
from tests.support.implementations import kernels_on_cpu
from tests.support.kernel_cases import MARCHING_CASES, KernelCase
from tests.support.random_numbers import random_numbers
from tests.support.rounding import assert_rounding_only, spread_roundoff

pytestmark = needs_cxx

each_case = pytest.mark.parametrize("case", MARCHING_CASES, ids=str)


def assert_exact(case: KernelCase, input: torch.Tensor, lam: float) -> None:
    """All results of a pass, the fused layer's, too, against the formulas."""
    kernels, geometry = kernels_on_cpu(), case.geometry
    lam = torch.full((1, 1, 1, 1), lam)
    grad_output = case.grad_output(input.shape[0])
    output, spread = kernels.forward_with_spread(input, lam, geometry)
    assert torch.equal(output, kernels.forward(input, lam, geometry))
    assert_rounding_only(output, slow_loops.max_ent_pool2d(input, lam, geometry), torch.float32)
    deviation = unpack_spread(spread, case.dtype)
    exact = slow_loops.spread(input, lam, geometry)
    assert_rounding_only(deviation, exact, torch.float32, spread_roundoff(case.dtype))
    gradients = kernels.backward(grad_output, input, lam, geometry, (True, True))
    exact = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, geometry)
    for gradient, expected in zip(gradients, exact, strict=True):
        assert_rounding_only(gradient, expected, torch.float32)


def test_cases_are_those_of_the_march():
    for case in MARCHING_CASES:
        launches = []
        passes.forward(case.input(1), case.lam(1), case.geometry, launches.append)
        assert [launch.name for launch in launches] == ["max_ent_pool2d_marching_rows_forward"]


@each_case
@pytest.mark.parametrize("lam", [1.0, -1.0, 50.0])
@pytest.mark.parametrize(
    "place",
    [(0, 0), (0, -1), (-1, 0), (-1, -1), (5, 7), (8, 8), (9, 3), (-2, -2)],
    ids=lambda place: f"{place[0]},{place[1]}",
)
def test_a_window_far_from_the_others(case, lam, place):
    input = case.input(1)
    row, column = place
    input[:, 0, row, column] = math.copysign(200, lam)
    input[:, -1, row, column] = -math.copysign(200, lam)
    assert_exact(case, input, lam)


@each_case
@pytest.mark.parametrize("step", [3.0, 9.0, 21.0, 22.0, 23.0, 45.0])
@pytest.mark.parametrize("lam", [1.0, -1.0])
def test_windows_that_come_to_lie_farther_and_farther(case, lam, step):
    # The strip's limit, a factor 2^32 of the totals, is reached after 22 / step steps.
    rows = (torch.arange(case.sizes[1]).view(-1, 1) // 4 % 8 - 4).abs()
    columns = (torch.arange(case.sizes[2]) // 6 % 4 - 2).abs()
    input = case.input(1).float() + step * (rows - columns)
    assert_exact(case, input.to(case.dtype), lam)


@each_case
@pytest.mark.parametrize("lam", [5.0, 7.0, -7.0, 7.0001, -7.0001, 20.0])
def test_both_sides_of_the_lam_up_to_which_weights_are_shared(case, lam):
    assert_exact(case, case.input(1), lam)


@each_case
@pytest.mark.parametrize("lam", [0.0, 1e30, -1e30])
def test_extreme_lam(case, lam):
    assert_exact(case, case.input(1).sign() + 3, lam)


@each_case
def test_huge_elements(case):
    largest = torch.finfo(case.dtype).max
    input = largest / 8 * case.input(1).sign()
    output = kernels_on_cpu().forward(input, torch.zeros(1, 1, 1, 1), case.geometry)
    exact = slow_loops.max_ent_pool2d(input, torch.zeros(1, 1, 1, 1), case.geometry)
    assert_rounding_only(output, exact, torch.float32)


@each_case
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_windows(case, number):
    kernels, lam = kernels_on_cpu(), torch.ones(1, 1, 1, 1)
    clean, grad_output = case.input(1), case.grad_output(1)
    input = clean.clone()
    input[0, 0, 4, 5] = number
    hit = torch.nn.functional.max_pool2d(
        (input != clean).float(), *case.geometry[:3], ceil_mode=case.geometry.ceil_mode
    ).bool()
    output = kernels.forward(input, lam, case.geometry)
    untouched = kernels.forward(clean, lam, case.geometry)
    assert torch.equal(output[~hit], untouched[~hit])
    assert not output[hit].isfinite().any()
    changed, _ = kernels.backward(grad_output, input, lam, case.geometry, (True, True))
    reached = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, case.geometry)[0]
    assert torch.equal(changed.isfinite(), reached.value.isfinite())


@each_case
@pytest.mark.parametrize("number", [30.0, math.nan, math.inf, -math.inf])
def test_elements_of_no_window_get_no_gradient(case, number):
    """Whatever they are: relative to the windows beside them, 30 is infinitely large at λ = 5."""
    lam, grad_output = torch.full((1, 1, 1, 1), 5.0), case.grad_output(1)
    flat = torch.zeros(1, *case.sizes)
    exact = slow_loops.max_ent_pool2d_gradients(
        torch.ones_like(grad_output), flat, lam, case.geometry
    )[0]
    unreached = exact.value == 0
    input = torch.zeros(1, *case.sizes, dtype=case.dtype)
    input[..., 5:, :] = torch.where(unreached[..., 5:, :], number, 0)
    grad_input, grad_lam = kernels_on_cpu().backward(
        grad_output, input, lam, case.geometry, (True, True)
    )
    assert (grad_input[unreached] == 0).all()
    assert grad_input.isfinite().all() and grad_lam.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("needed", [(True, True), (True, False)], ids=str)
@pytest.mark.parametrize(
    ("geometry", "plane"),
    [
        (pool_geometry(3, 2, 1), (8, 66)),
        (pool_geometry(3, 2, 1), (46, 66)),
        (pool_geometry(3, 2, 1, ceil_mode=True), (8, 66)),
        (pool_geometry((4, 3), (3, 2), (2, 1)), (9, 34)),
        (pool_geometry(7, 6, 3), (7, 98)),
    ],
    ids=str,
)
def test_threads_too_many_own_nothing(geometry, plane, needed, dtype):
    """A plane has more threads than strips and groups: no element has two owners."""
    input, lam = random_numbers((1, 1, *plane), dtype, 0), torch.ones(1, 1, 1, 1)
    grad_output = random_numbers((1, 1, *geometry.output_size(*plane)), dtype, 1)
    kernels = kernels_on_cpu(run_launch)  # which refuses a launch whose threads store at one place
    grad_input, _ = kernels.backward(grad_output, input, lam, geometry, needed)
    exact, _ = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, geometry)
    assert_rounding_only(grad_input, exact, torch.float32)
