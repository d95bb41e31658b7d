"""The numbers: every implementation against the formulas, and what follows from them."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.spread import spread_dtype, unpack_spread
from tests.support import slow_loops
from tests.support.implementations import each_implementation
from tests.support.kernel_cases import (
    FUSED_CASES,
    KERNEL_CASES,
    MAIN_CASES,
    MANY_PLANES_CASES,
    PARTIAL_CASES,
    UNPOOLED_CASES,
    KernelCase,
)
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers
from tests.support.rounding import assert_rounding_only, spread_roundoff, ulps_apart

SAMPLES = 2
EXHAUSTIVE_CASES = tuple(
    case for case in KERNEL_CASES if case not in UNPOOLED_CASES and max(case.sizes) < 1000
)


def each_case(cases):
    return pytest.mark.parametrize("case", tuple(cases), ids=str)


@pytest.fixture(autouse=True, scope="module")
def _fresh_memory_is_nan():
    """Makes an element that is never written show: fresh memory is often zero by chance."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


def constant_lam(value: float, case: KernelCase, device: str) -> torch.Tensor:
    shape = case.output_shape(SAMPLES) if case.lam_in_plane else (1, 1, 1, 1)
    return torch.full(shape, value, dtype=case.compute_dtype, device=device)


def window_maximum(input, case: KernelCase):
    """Of any type, in float64, which holds them all."""
    geometry = case.geometry
    return F.max_pool2d(
        input.cpu().double(),
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        ceil_mode=geometry.ceil_mode,
    )


def window_minimum(input, case: KernelCase):
    return -window_maximum(-input, case)


def assert_laid_out_like(result, input):
    """Dense, and in channels_last order exactly where the input is only that."""
    if input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous():
        assert result.is_contiguous(memory_format=torch.channels_last)
    else:
        assert result.is_contiguous()


# ---------------------------------------------------------------- the formulas


@each_implementation
@each_case(EXHAUSTIVE_CASES)
@settings(max_examples=2)  # of each of many cases
@given(data=st.data())
def test_output_and_gradients_are_those_of_the_formulas(implementation, case, data):
    samples = data.draw(st.integers(1, 5), "samples")
    seed = data.draw(st.integers(0, 1000), "seed")
    device = implementation.device
    input, lam = case.input(samples, seed).to(device), case.lam(samples, seed + 1).to(device)
    varies = data.draw(st.tuples(st.booleans(), st.booleans()), "λ varies over samples, channels")
    for axis in (0, 1):
        lam = lam if varies[axis] else lam.narrow(axis, 0, 1)
    grad_layout = data.draw(st.sampled_from(("contiguous", "channels_last", "sliced")), "layout")
    grad_output = arranged(case.grad_output(samples, seed + 2).to(device), grad_layout)
    before = [tensor.clone() for tensor in (input, lam, grad_output)]

    output = implementation.forward(input, lam, case.geometry)
    grad_input, grad_lam = implementation.backward(
        grad_output, input, lam, case.geometry, (True, True)
    )

    assert output.dtype == grad_input.dtype == input.dtype
    assert grad_lam.dtype == lam.dtype
    assert output.device == grad_input.device == grad_lam.device == input.device
    exact_input, exact_lam = slow_loops.max_ent_pool2d_gradients(
        grad_output, input, lam, case.geometry
    )
    exact = slow_loops.max_ent_pool2d(input, lam, case.geometry)
    assert_rounding_only(output, exact, case.compute_dtype)
    assert_rounding_only(grad_input, exact_input, case.compute_dtype)
    assert_rounding_only(grad_lam, exact_lam, case.compute_dtype)
    assert_laid_out_like(output, input)
    assert_laid_out_like(grad_input, input)
    assert grad_lam.is_contiguous()
    assert all(map(torch.equal, before, (input, lam, grad_output)))


@each_implementation
@pytest.mark.parametrize(
    ("samples", "case"), MANY_PLANES_CASES, ids=[f"{n}x{case}" for n, case in MANY_PLANES_CASES]
)
def test_more_samples_or_channels_than_a_grid_axis_holds(implementation, samples, case):
    device = implementation.device
    input, lam, grad_output = (
        tensor.to(device)
        for tensor in (case.input(samples), case.lam(samples), case.grad_output(samples))
    )
    output = implementation.forward(input, lam, case.geometry)
    gradients = implementation.backward(grad_output, input, lam, case.geometry, (True, True))
    exact = slow_loops.max_ent_pool2d(input, lam, case.geometry)
    assert_rounding_only(output, exact, case.compute_dtype)
    exact = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, case.geometry)
    for gradient, expected in zip(gradients, exact, strict=True):
        assert_rounding_only(gradient, expected, case.compute_dtype)


@each_implementation
@each_case(PARTIAL_CASES)
def test_only_the_gradients_needed_are_computed(implementation, case):
    input, lam, grad_output = (
        tensor.to(implementation.device)
        for tensor in (case.input(SAMPLES), case.lam(SAMPLES), case.grad_output(SAMPLES))
    )
    both, only_input, only_lam = (
        implementation.backward(grad_output, input, lam, case.geometry, needed)
        for needed in ((True, True), (True, False), (False, True))
    )
    assert torch.equal(only_input[0], both[0])
    assert torch.equal(only_lam[1], both[1])
    assert only_input[1] is None
    assert only_lam[0] is None


@each_implementation
@each_case(FUSED_CASES)
@settings(max_examples=2)  # of each of many cases
@given(data=st.data())
def test_the_parts_of_the_fused_layer(implementation, case, data):
    samples = data.draw(st.integers(1, 5), "samples")
    seed = data.draw(st.integers(0, 1000), "seed")
    geometry = case.geometry
    input, lam, mean_grad, grad_output = (
        tensor.to(implementation.device)
        for tensor in (
            case.input(samples, seed),
            case.lam(samples, seed + 1),
            case.lam(samples, seed + 2),
            case.grad_output(samples, seed + 3),
        )
    )
    output, spread = implementation.forward_with_spread(input, lam, geometry)
    assert torch.equal(output, implementation.forward(input, lam, geometry))
    assert_laid_out_like(spread, input)
    assert spread.dtype == spread_dtype(case.dtype)
    deviation = unpack_spread(spread, case.dtype)
    assert_rounding_only(
        deviation,
        slow_loops.spread(input, lam, geometry),
        case.compute_dtype,
        spread_roundoff(case.dtype),
    )

    grad_lam = implementation.lam_backward(grad_output, spread, lam)
    terms = grad_output.cpu().double() * deviation.cpu().double() ** 2
    exact = slow_loops.Exact(terms.sum((2, 3), keepdim=True), terms.abs().sum((2, 3), keepdim=True))
    assert_rounding_only(grad_lam, exact, case.compute_dtype)

    grad_input, nothing = implementation.backward(
        grad_output, input, lam, geometry, (True, False), mean_grad=mean_grad
    )
    assert nothing is None
    exact, _ = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, geometry)
    added = mean_grad.cpu().double()
    exact = slow_loops.Exact(exact.value + added, exact.scale + added.abs())
    assert_rounding_only(grad_input, exact, case.compute_dtype)


@each_implementation
@each_case(MAIN_CASES)
def test_empty_batch(implementation, case):
    input, lam = case.input(0).to(implementation.device), constant_lam(1, case, "cpu")
    lam = lam.to(implementation.device)
    output = implementation.forward(input, lam, case.geometry)
    assert output.shape == case.output_shape(0)
    grad_input, grad_lam = implementation.backward(output, input, lam, case.geometry, (True, True))
    assert grad_input.shape == input.shape
    assert torch.equal(grad_lam, torch.zeros_like(lam))
    same_output, spread = implementation.forward_with_spread(input, lam, case.geometry)
    assert same_output.shape == spread.shape == output.shape
    grad_lam = implementation.lam_backward(output, spread, lam)
    assert torch.equal(grad_lam, torch.zeros_like(lam))


@each_implementation
@each_case(MAIN_CASES)
def test_two_runs_give_the_same_bits(implementation, case):
    input, lam, grad_output = (
        tensor.to(implementation.device)
        for tensor in (case.input(64), case.lam(64)[:1], case.grad_output(64))
    )

    def run():
        return (
            implementation.forward(input, lam, case.geometry),
            *implementation.backward(grad_output, input, lam, case.geometry, (True, True)),
        )

    assert all(map(torch.equal, run(), run()))


# ---------------------------------------------------------------- special values of λ


@each_implementation
@each_case(EXHAUSTIVE_CASES)
def test_zero_is_average_pooling_without_padding(implementation, case):
    input = case.input(SAMPLES).to(implementation.device)
    average = F.avg_pool2d(
        input.cpu().double(),
        case.geometry.kernel_size,
        case.geometry.stride,
        case.geometry.padding,
        case.geometry.ceil_mode,
        count_include_pad=False,
    )
    scale = 3 * window_maximum(input.abs(), case)
    output = implementation.forward(input, constant_lam(0, case, input.device), case.geometry)
    assert_rounding_only(output, slow_loops.Exact(average, scale), case.compute_dtype)


@each_implementation
@each_case(EXHAUSTIVE_CASES)
def test_large_is_max_and_large_negative_min_pooling(implementation, case):
    # Whole numbers: λ times the gap to the next one is so large that its weight is exactly 0.
    input = case.arranged((64 * case.input(SAMPLES)).round().clamp(-128, 127))
    input = input.to(implementation.device)
    largest, smallest = (
        implementation.forward(input, constant_lam(lam, case, input.device), case.geometry)
        for lam in (1e4, -1e4)
    )
    assert torch.equal(largest.cpu().double(), window_maximum(input, case))
    assert torch.equal(smallest.cpu().double(), window_minimum(input, case))


@each_implementation
@each_case(MAIN_CASES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e30])
def test_output_lies_between_minimum_and_maximum(implementation, case, size):
    size = min(size, torch.finfo(case.dtype).max / 8)
    input = size * case.input(SAMPLES)
    input[:, :, ::3, ::2] = size  # ties
    input[:, 0] = size
    input = case.arranged(input).to(implementation.device)
    for lam in (0.0, 1.0, -1.0, 1e4, -1e4):
        lam = constant_lam(lam, case, input.device)
        output = implementation.forward(input, lam, case.geometry).cpu().double()
        assert (output <= window_maximum(input, case)).all()
        assert (output >= window_minimum(input, case)).all()


@each_implementation
@each_case(case for case in MAIN_CASES if case.dtype in (torch.bfloat16, torch.float32))
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [1e4, 1e20, 1e30])
def test_gradients_of_huge_elements_are_those_of_max_and_min(implementation, case, sign, size):
    # Every other weight is exactly 0, and 0 times a squared distance must not become NaN.
    generator = torch.Generator().manual_seed(0)
    plane = 1 + torch.randperm(math.prod(case.sizes[1:]), generator=generator)
    input = size * plane.double().reshape(1, 1, *case.sizes[1:]).expand(1, *case.sizes)
    input = case.arranged(input).to(implementation.device)
    lam = torch.full((1, 1, 1, 1), float(sign), device=implementation.device)
    # Whole numbers: windows that choose the same element add up without rounding.
    grad_output = (16 * case.grad_output(1)).round().to(implementation.device)
    grad_input, grad_lam = implementation.backward(
        grad_output, input, lam, case.geometry, (True, True)
    )
    chosen = (sign * input.cpu().double()).requires_grad_()
    window_maximum(chosen, case).backward(grad_output.cpu().double())
    assert torch.equal(grad_input.cpu().double(), chosen.grad.to(case.dtype).double())
    assert grad_lam.item() == 0


# ---------------------------------------------------------------- special values of the input


@each_implementation
@each_case(EXHAUSTIVE_CASES)
def test_nan_reaches_exactly_the_windows_that_contain_it(implementation, case):
    device = implementation.device
    clean = case.input(SAMPLES)
    channels, height, width = case.sizes
    input = clean.clone()
    for position in (
        (0, 0, 0, 0),
        (0, channels - 1, height // 2, width // 2),
        (1, channels - 1, height - 1, width - 1),
        (1, 0, height // 3, width // 3),
    ):
        input[position] = math.nan
    hit = window_maximum(input.isnan(), case) > 0
    clean, input = clean.to(device), case.arranged(input).to(device)
    signs = torch.ones(SAMPLES, 1, 1, 1, dtype=case.compute_dtype, device=device)
    signs[1:] = -1
    lam = signs * constant_lam(2, case, device)
    output = implementation.forward(input, lam, case.geometry)
    assert torch.equal(output.isnan().cpu(), hit)
    untouched = implementation.forward(clean, lam, case.geometry)
    assert torch.equal(output.cpu()[~hit], untouched.cpu()[~hit])

    grad_output = torch.ones_like(output)
    grad_input, grad_lam = implementation.backward(
        grad_output, input, lam, case.geometry, (True, True)
    )
    exact_input, exact_lam = slow_loops.max_ent_pool2d_gradients(
        grad_output, input, lam, case.geometry
    )
    assert torch.equal(grad_input.isnan().cpu(), exact_input.value.isnan())
    assert torch.equal(grad_lam.isnan().cpu(), exact_lam.value.isnan())


@each_implementation
@each_case(case for case in EXHAUSTIVE_CASES if case.dtype == torch.float32)
def test_variance_stays_accurate_far_from_zero(implementation, case):
    # Σ p x² − y² would subtract numbers around 10^8, to float32's nearest 8, for a variance of 1.
    input = case.arranged(1e4 + case.input(SAMPLES)).to(implementation.device)
    lam = case.lam(SAMPLES).to(input.device)
    grad_output = torch.ones(case.output_shape(SAMPLES), device=input.device)
    _, grad_lam = implementation.backward(grad_output, input, lam, case.geometry, (True, True))
    _, exact = slow_loops.max_ent_pool2d_gradients(grad_output, input, lam, case.geometry)
    assert_rounding_only(grad_lam, exact, torch.float32)
    torch.testing.assert_close(grad_lam.cpu().double(), exact.value, rtol=1e-4, atol=1e-5)


@each_implementation
@each_case(case for case in EXHAUSTIVE_CASES if case.dtype in (torch.float16, torch.bfloat16))
def test_half_types_are_float32_results_rounded(implementation, case):
    # λ small, input and gradients positive: no cancellation makes tiny results of large terms.
    device = implementation.device
    input = case.arranged(3 * case.input(SAMPLES).abs()).to(device)
    lam = 0.02 * case.lam(SAMPLES).to(device)
    grad_output = case.grad_output(SAMPLES).abs().to(device)
    output = implementation.forward(input, lam, case.geometry)
    grad_input, grad_lam = implementation.backward(
        grad_output, input, lam, case.geometry, (True, True)
    )
    exact = slow_loops.max_ent_pool2d(input, lam, case.geometry)
    exact_input, exact_lam = slow_loops.max_ent_pool2d_gradients(
        grad_output, input, lam, case.geometry
    )
    assert ulps_apart(output, exact.value.float().to(case.dtype)) <= 1
    assert ulps_apart(grad_input, exact_input.value.float().to(case.dtype)) <= 1
    torch.testing.assert_close(grad_lam.cpu().double(), exact_lam.value, rtol=1e-5, atol=0)


@each_implementation
@each_case(UNPOOLED_CASES)
def test_every_half_number_passes_unchanged(implementation, case):
    # A window of one number is that number: loads and stores convert without error.
    bits = torch.arange(-(2**15), 2**15).to(torch.int16)
    input = bits.view(case.dtype).reshape(1, *case.sizes).clone()
    input[input.isinf()] = 0  # an infinite element makes a window NaN
    lam = torch.ones(1, 1, 1, 1, device=implementation.device)
    output = implementation.forward(input.to(implementation.device), lam, case.geometry).cpu()
    same = (output == input) | (output.isnan() & input.isnan())
    if implementation.flushes:
        same |= (output == 0) & (input.abs().float() < torch.finfo(torch.float32).tiny)
    assert same.all()


# ---------------------------------------------------------------- windows with gaps between


@each_implementation
@each_case(
    case
    for case in EXHAUSTIVE_CASES
    if not case.geometry.overlapping and 0 in case.geometry.padding
)
def test_no_gradient_exactly_where_no_window_reaches(implementation, case):
    input, lam = case.input(SAMPLES), constant_lam(0.1, case, "cpu")
    grad_output = torch.ones(case.output_shape(SAMPLES), dtype=case.dtype)
    device = implementation.device
    grad_input, _ = implementation.backward(
        grad_output.to(device), input.to(device), lam.to(device), case.geometry, (True, True)
    )
    reached = torch.zeros(case.sizes[1:], dtype=torch.bool)
    (step_h, step_w), (kernel_h, kernel_w) = case.geometry.stride, case.geometry.kernel_size
    out_h, out_w = case.output_shape(1)[2:]
    for row, column in itertools.product(range(out_h), range(out_w)):
        top, left = row * step_h, column * step_w
        reached[top : top + kernel_h, left : left + kernel_w] = True
    assert (grad_input.cpu()[:, :, ~reached] == 0).all()
    assert (grad_input.cpu()[:, :, reached] != 0).all()


@each_implementation
@pytest.mark.parametrize(
    "geometry", [pool_geometry(2), pool_geometry(3, 2, 1)], ids=["disjoint", "overlapping"]
)
def test_one_channel_gives_the_same_bits_in_both_layouts(implementation, geometry):
    input = random_numbers((3, 1, 8, 10), torch.float32, 0).to(implementation.device)
    lam = random_numbers((3, 1, 1, 1), torch.float32, 1).to(implementation.device)

    def results(input):
        output, spread = implementation.forward_with_spread(input, lam, geometry)
        gradients = implementation.backward(output, input, lam, geometry, (True, True))
        return output, *gradients, implementation.lam_backward(output, spread, lam)

    channels_last = input.as_strided(input.shape, (80, 1, 10, 1))
    assert channels_last.stride() != input.stride()
    assert all(map(torch.equal, results(input), results(channels_last)))
