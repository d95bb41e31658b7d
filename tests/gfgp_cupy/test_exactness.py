"""The operator is exact to what its type can hold: large windows, huge elements, offsets.

Windows are compared with float64; what error is allowed comes from PyTorch's own poolings in
float32 on the same numbers, from the types, or is none.
"""

import math
from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gfgp_cupy import use_backend
from gfgp_cupy.functional import guided_max_ent_pool2d, max_ent_pool2d
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.poolings import log_sum_exp_pool2d
from tests.support import slow_loops
from tests.support.implementations import each_backend, each_implementation
from tests.support.kernel_cases import KernelCase
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers
from tests.support.rounding import assert_rounding_only, spread_roundoff

UNIT = 2.0**-23
"""Distance from 1 to the next float32."""

TWO, THREE, SEVEN = pool_geometry(2), pool_geometry(3, 2, 1), pool_geometry(7, 1, 3)
CASES = (
    KernelCase(TWO, torch.float32, (3, 8, 12)),
    KernelCase(THREE, torch.float32, (8, 7, 7)),
    KernelCase(SEVEN, torch.float32, (2, 9, 8)),
    KernelCase(pool_geometry(28), torch.float32, (1, 28, 56)),
)
each_case = pytest.mark.parametrize("case", CASES, ids=str)


# ---------------------------------------------------------------- large windows

LAMBDAS = (0.0, 0.5, -0.5, 1.0, 5.0, 50.0)

MAPS = {
    2: (2, 64, 64),
    3: (8, 15, 15),
    5: (8, 20, 20),
    7: (8, 28, 28),
    14: (8, 28, 28),
    28: (8, 28, 56),
    56: (8, 56, 56),
    224: (2, 224, 224),
}
"""For each size of a window, that of maps it tiles."""


OUTPUT_ROOM, GRADIENT_ROOM = {"cpu": 0, "cuda": 1}, {"cpu": 0, "cuda": 3}
"""Units beside the composition's, whose exponential is a function and not a GPU's instruction.
``ex2.approx`` is off by up to 2 units and ``rcp.approx`` by 1: the gradient of one element has both
in full, a mean has the exponential's errors of either sign (emulated, at most 0.7 in all)."""


def each_large_window(sizes: Iterable[int], largest_of_torch: int):
    """Implementations, and sizes of windows. The torch backend has some operations for each of a
    window's elements: seconds of them at 224×224, and on a GPU launches of the same code."""
    largest = {"torch-cpu": largest_of_torch, "torch-cuda": 28}
    return pytest.mark.parametrize(("implementation", "size"), [
        pytest.param(*each.values, size, marks=each.marks, id=f"{size}-{each.id}")
        for size in sizes for each in each_implementation.args[1]
        if size <= largest.get(each.id, size)
    ])  # fmt: skip


def maps_after_a_relu(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """An input, λ, and an output's gradient: a sample for each of LAMBDAS."""
    channels, height, width = MAPS[size]
    input = random_numbers((len(LAMBDAS), *MAPS[size]), torch.float32, size).relu()
    grad_output = random_numbers(
        (len(LAMBDAS), channels, height // size, width // size), torch.float32, size + 1
    )
    return input, torch.tensor(LAMBDAS).view(-1, 1, 1, 1), grad_output


def composition(input: Tensor, lam: Tensor, size: int) -> Tensor:
    """The softmax-weighted mean as one writes it in PyTorch."""
    samples, channels, height, width = input.shape
    elements = F.unfold(input, size, stride=size).view(samples, channels, size * size, -1)
    weights = torch.softmax(lam * elements, 2)
    return (weights * elements).sum(2).view(samples, channels, height // size, width // size)


def composed_gradient(input: Tensor, lam: Tensor, size: int, grad_output: Tensor) -> Tensor:
    input = input.detach().requires_grad_()
    return torch.autograd.grad(composition(input, lam, size), input, grad_output)[0]


def output_errors(actual: Tensor, exact: Tensor) -> Tensor:
    """Of each window, relative to y and in units of the last place. Windows of zeros have none."""
    error = (actual.cpu().double() - exact).abs() / UNIT
    return (error / exact).masked_fill(exact == 0, 0)


def gradient_errors(actual: Tensor, exact: Tensor, size: int) -> Tensor:
    """The same of the input's gradient, relative to the largest one of the window."""
    error = (actual.cpu().double() - exact).abs() / UNIT
    largest = F.max_pool2d(exact.abs(), size)
    return (F.max_pool2d(error, size) / largest).masked_fill(largest == 0, 0)


def rms(errors: Tensor) -> Tensor:
    """The root mean square of each sample: a few windows' largest error is chance."""
    return errors.square().mean((1, 2, 3)).sqrt()


@each_large_window(MAPS, largest_of_torch=224)
def test_large_windows_of_maps_after_a_relu(implementation, size):
    input, lam, _ = maps_after_a_relu(size)
    on_device = [tensor.to(implementation.device) for tensor in (input, lam)]
    output = implementation.forward(*on_device, pool_geometry(size))

    exact = composition(input.double(), lam.double(), size)
    errors = output_errors(output, exact)
    of_average = output_errors(F.avg_pool2d(input[:1], size), exact[:1])
    assert errors[:1].max() <= 2 * of_average.max()
    # Half a unit is what rounding y costs.
    of_composed = rms(output_errors(composition(*on_device, size), exact)).clamp(min=0.5)
    assert (rms(errors) <= of_composed + OUTPUT_ROOM[implementation.device]).all()
    largest, smallest = F.max_pool2d(input, size), -F.max_pool2d(-input, size)
    assert (output.cpu() <= largest).all()
    assert (output.cpu() >= smallest).all()


@each_large_window(MAPS, largest_of_torch=56)
def test_gradients_of_large_windows(implementation, size):
    input, lam, grad_output = maps_after_a_relu(size)
    x, on_lam, grad = (tensor.to(implementation.device) for tensor in (input, lam, grad_output))
    actual, _ = implementation.backward(grad, x, on_lam, pool_geometry(size), (True, True))

    exact = composed_gradient(input.double(), lam.double(), size, grad_output.double())
    composed = composed_gradient(x, on_lam, size, grad)
    # About one unit is what a product of several numbers costs.
    of_composed = rms(gradient_errors(composed, exact, size)).clamp(min=1)
    allowed = of_composed + GRADIENT_ROOM[implementation.device]
    assert (rms(gradient_errors(actual, exact, size)) <= allowed).all()


@each_large_window((56, 224), largest_of_torch=56)
def test_average_of_a_large_window_in_float16_is_rounded_once(implementation, size):
    input = torch.rand(1, 16, size, size, generator=torch.Generator().manual_seed(0)) / 50
    input[:, :, 3, 5] = 1000  # the reference of the sums, far from their mean
    input = input.half()
    lam = torch.zeros(1, 1, 1, 1, device=implementation.device)
    output = implementation.forward(input.to(lam.device), lam, pool_geometry(size)).cpu()
    exact = input.double().mean((2, 3), keepdim=True)
    spacing = torch.finfo(torch.float16).eps * 2 ** exact.log2().floor()
    errors = (output.double() - exact).abs() / spacing
    assert errors.max() <= 0.51  # half a spacing, as avg_pool2d, and what float32 does not hold


@pytest.mark.parametrize("size", [3, 28, 224])
@pytest.mark.parametrize("lam", [0.0, 1e-3, -1.0, 5.0])
def test_log_sum_exp_of_large_windows(lam, size):
    input = random_numbers((1, 2, *MAPS[size][1:]), torch.float32, size).relu()
    actual, exact = (log_sum_exp_pool2d(x, lam, size).double() for x in (input, input.double()))
    # The logarithm's error is one of the difference to a centre, which is nearly the result.
    assert ((actual - exact).abs() <= 2 * UNIT * exact).all()


def adversaries(case: KernelCase, base: float) -> Tensor:
    """Planes in which rounding may take the mean outside: a sample for each."""
    shape = (case.sizes[0], *case.sizes[1:])
    equal = torch.full(shape, base)
    above = equal.nextafter(torch.tensor(math.inf))
    coins = random_numbers(shape, torch.float32, 3)
    one = torch.arange(math.prod(shape)).view(shape) % 5 == 0
    return torch.stack([
        equal,
        torch.where(coins > 0, equal, above),
        torch.where(one, above, equal),
        torch.where(one, equal, above),
        torch.where(one, -equal, equal),
        base * coins,
    ])  # fmt: skip


@each_implementation
@each_case
@pytest.mark.parametrize("lam", [0.0, 1e-3, -0.3, 1.0, -5.0, 1e3, -1e6, 1e30])
def test_mean_lies_between_minimum_and_maximum(implementation, case, lam):
    lam = torch.full((1, 1, 1, 1), lam, device=implementation.device)
    window = (case.geometry.kernel_size, case.geometry.stride, case.geometry.padding)
    input = torch.cat([adversaries(case, base) for base in (0.0, 0.1, -3.7, 1e4, 1e-30, 1e30)])
    output = implementation.forward(input.to(lam.device), lam, case.geometry).cpu()
    least, most = -F.max_pool2d(-input, *window), F.max_pool2d(input, *window)
    if implementation.flushes:
        least, most = (
            F.hardshrink(bound, torch.finfo(bound.dtype).tiny) for bound in (least, most)
        )
    assert (output <= most).all()
    assert (output >= least).all()


@each_implementation
@each_case
@pytest.mark.parametrize("lam", [math.nan, math.inf, -math.inf])
def test_lam_that_is_not_finite_is_not_hidden(implementation, case, lam):
    """Also where all elements of a window are equal, as after a ReLU."""
    lam = torch.full((1, 1, 1, 1), lam, device=implementation.device)
    input = torch.zeros(2, *case.sizes, device=lam.device)
    input[1] = random_numbers(case.sizes, torch.float32, 0)
    assert implementation.forward(input, lam, case.geometry).isnan().all()


# ---------------------------------------------------------------- huge elements, huge λ


def with_window(elements: list[float]) -> Tensor:
    """A map of zeros but for its first 2×2 window."""
    input = torch.zeros(1, *CASES[0].sizes)
    input[0, 0, :2, :2] = torch.tensor(elements).view(2, 2)
    return input


@each_implementation
@pytest.mark.parametrize(
    ("elements", "lam", "expected"),
    [
        ([1e30, -1e30, 0.0, 5e29], 1e10, [1.0, 0.0, 0.0, 0.0]),
        ([-2.0, 2.0, 1.0, 0.0], 1.6e38, [0.0, 1.0, 0.0, 0.0]),
        ([-2.0, 2.0, 1.0, 0.0], -1.6e38, [1.0, 0.0, 0.0, 0.0]),
        ([1e38, -1e38, 0.0, 0.0], 0.0, [0.25] * 4),
    ],
    ids=str,
)
def test_gradient_where_lam_times_a_deviation_overflows(implementation, elements, lam, expected):
    input = with_window(elements).to(implementation.device)
    lam = torch.full((1, 1, 1, 1), lam, device=implementation.device)
    grad_output = torch.zeros(CASES[0].output_shape(1), device=implementation.device)
    grad_output[0, 0, 0, 0] = 3
    grad_input, grad_lam = implementation.backward(grad_output, input, lam, TWO, (True, True))
    assert (grad_input[0, 0, :2, :2].flatten() / 3).tolist() == expected
    assert (grad_input != 0).sum() == sum(p > 0 for p in expected)
    assert grad_lam.isfinite() == (lam != 0)  # at λ = 0 it is 3 · 5e75
    output, spread = implementation.forward_with_spread(input, lam, TWO)
    chosen = torch.tensor(expected) * torch.tensor(elements)
    assert output[0, 0, 0, 0] == chosen.double().sum()
    assert spread[0, 0, 0, 0] == 0 or lam == 0


@each_implementation
@each_case
@pytest.mark.parametrize("lam", [1e10, -1e10])
def test_gradient_of_the_extreme_element_alone(implementation, case, lam):
    count = math.prod(case.sizes[1:])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    input = ((1e30 / count) * order.double()).view(1, 1, *case.sizes[1:]).expand(1, *case.sizes)
    grad_output = (16 * case.grad_output(1)).round()  # whole numbers add up without rounding
    sign = math.copysign(1, lam)
    chosen = (sign * input).clone().requires_grad_()
    F.max_pool2d(
        chosen, case.geometry.kernel_size, case.geometry.stride, case.geometry.padding
    ).backward(grad_output.double())

    device = implementation.device
    grad_input, grad_lam = implementation.backward(
        grad_output.to(device),
        input.float().to(device),
        torch.full((1, 1, 1, 1), lam, device=device),
        case.geometry,
        (True, True),
    )
    assert torch.equal(grad_input.cpu().double(), chosen.grad)
    assert grad_lam.item() == 0


@each_implementation
@each_case
def test_average_whose_sum_would_overflow(implementation, case):
    input = 1e38 * random_numbers((1, *case.sizes), torch.float32, 0).sign()
    average = F.avg_pool2d(
        input.double(),
        case.geometry.kernel_size,
        case.geometry.stride,
        case.geometry.padding,
        count_include_pad=False,
    )
    lam = torch.zeros(1, 1, 1, 1, device=implementation.device)
    output = implementation.forward(input.to(lam.device), lam, case.geometry)
    exact = slow_loops.Exact(average, torch.full_like(average, 1e38))
    assert_rounding_only(output, exact, torch.float32)


# ---------------------------------------------------------------- offsets


@each_implementation
@each_case
def test_offset_takes_no_digits_from_the_gradients(implementation, case):
    # Neighbours in float32 around 1e4 are 1/1024 apart.
    steps = (16 * random_numbers((2, *case.sizes), torch.float32, 0)).round() / 1024
    lam = torch.full((1, 1, 1, 1), 100.0)
    grad_output = case.grad_output(2)
    device = implementation.device
    gradients = implementation.backward(
        grad_output.to(device),
        (1e4 + steps).to(device),
        lam.to(device),
        case.geometry,
        (True, True),
    )
    # Of the same windows without the offset, which no derivative depends on.
    exact = slow_loops.max_ent_pool2d_gradients(grad_output, steps, lam, case.geometry)
    for gradient, expected in zip(gradients, exact, strict=True):
        assert_rounding_only(gradient, expected, torch.float32)


@each_implementation
def test_offset_of_the_issue(implementation):
    input = 1e4 + with_window([0.0, 0.01, -0.01, 0.02])
    lam = torch.full((1, 1, 1, 1), 100.0)
    ones = torch.ones(CASES[0].output_shape(1))
    exact = slow_loops.max_ent_pool2d_gradients(ones, input - 1e4, lam, TWO)
    gradients = implementation.backward(
        *(tensor.to(implementation.device) for tensor in (ones, input, lam)), TWO, (True, True)
    )
    for gradient, expected in zip(gradients, exact, strict=True):
        assert_rounding_only(gradient, expected, torch.float32)


# ---------------------------------------------------------------- by way of autograd

EXTREMES = {
    "overflow": ([1e30, -1e30, 0.0, 5e29], 1e10),
    "large lam": ([-2.0, 2.0, 1.0, 0.0], 1.6e38),
    "offset": ([1e4, 1e4 + 10 / 1024, 1e4 - 10 / 1024, 1e4 + 20 / 1024], 100.0),
}


# Not second derivatives: where λ (x − y) overflows they are NaN.
@each_backend
@pytest.mark.parametrize(("elements", "lam"), EXTREMES.values(), ids=EXTREMES)
def test_derivable_gradients_are_as_exact(backend, elements, lam):
    input = torch.tensor(elements, device=backend.device).view(1, 1, 2, 2).requires_grad_()
    lam = torch.full((1, 1, 1, 1), lam, device=backend.device, requires_grad=True)

    def pool(input, lam):
        with use_backend(backend.name):
            return max_ent_pool2d(input, lam, 2).sum()

    eager = torch.autograd.grad(pool(input, lam), (input, lam), create_graph=True)
    transformed = torch.func.grad(pool, (0, 1))(input.detach(), lam.detach())
    # Without the offset: the difference is exact.
    exact = slow_loops.max_ent_pool2d_gradients(
        torch.ones(1, 1, 1, 1), input - input[..., :1, :1], lam, TWO
    )
    for gradients in (eager, transformed):
        for gradient, expected in zip(gradients, exact, strict=True):
            if elements[0] == 1e4:
                assert_rounding_only(gradient, expected, torch.float32)
            else:
                assert torch.equal(gradient.detach().cpu().double(), expected.value)


# ---------------------------------------------------------------- the spread of half types


@each_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("window", [(2,), (3, 2, 1)], ids=["disjoint", "overlapping"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_lam_gradient_of_a_fused_layer_in_half_types(backend, dtype, window, layout):
    input = arranged(random_numbers((4, 16, 14, 14), dtype, 0), layout).to(backend.device)
    lam = random_numbers((4, 16, 1, 1), torch.float32, 1).to(backend.device).requires_grad_()
    with use_backend(backend.name):
        output = guided_max_ent_pool2d(input.requires_grad_(), lambda mean: lam, *window)
    output.backward(torch.ones_like(output))
    _, exact = slow_loops.max_ent_pool2d_gradients(
        torch.ones_like(output), input, lam, pool_geometry(*window)
    )
    # A variance has twice the relative error of the deviation that is kept.
    assert_rounding_only(lam.grad, exact, torch.float32, roundoff=2 * spread_roundoff(dtype))
    # Roundings of either sign: in the type itself they would leave several times this.
    median = ((lam.grad.cpu() - exact.value) / exact.value).abs().median()
    assert median < spread_roundoff(dtype) / 4
