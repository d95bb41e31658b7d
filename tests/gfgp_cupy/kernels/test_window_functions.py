"""The kernels of every pooling that has device functions, against its composition in float64, and
the bytes they move, against the least: see ``test_traffic.py``.

Of each function and family of kernels one type is tried, drawn by what they are called.
"""

import math
import re
import zlib

import pytest
import torch

from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.window_function import WindowFunction
from tests.support.implementations import each_place, kernels_on_cpu
from tests.support.kernel_cases import DTYPES, KernelCase, window_functions
from tests.support.random_numbers import random_numbers

FUNCTIONS = {function.name: function for function in window_functions()}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)

FLOAT16, BFLOAT16, FLOAT32, FLOAT64 = DTYPES
HALF_AND_SINGLE = DTYPES[:3]
TWO, THREE = pool_geometry(2), pool_geometry(3, stride=2, padding=1)
SEVEN = pool_geometry(7, stride=2, padding=3)
LARGE = pool_geometry((13, 7), stride=(1, 3), padding=(3, 2))

# What their kernels' names have in them, windows, sizes, layout, types that come to them.
FAMILIES = {
    "disjoint": ("disjoint", TWO, (4, 28, 28), "contiguous", DTYPES),
    "disjoint channels_last": ("disjoint", TWO, (64, 14, 14), "channels_last", DTYPES),
    "marching_rows": ("marching_rows", THREE, (4, 56, 56), "contiguous", HALF_AND_SINGLE),
    "marching_channels": ("marching_ch", THREE, (32, 28, 28), "channels_last", HALF_AND_SINGLE),
    "overlapping": ("overlapping", THREE, (4, 28, 28), "contiguous", (FLOAT64,)),
    "large": ("overlapping", SEVEN, (16, 28, 28), "channels_last", HALF_AND_SINGLE),
    "general": ("general|statistics|gather", LARGE, (4, 9, 8), "contiguous", DTYPES),
}
SLACK = 1.15
each_family = pytest.mark.parametrize("family", FAMILIES)
TOLERANCES = {FLOAT16: 2.0**-10, BFLOAT16: 2.0**-7, FLOAT32: 4e-6, FLOAT64: 1e-12}


def case_of(function: WindowFunction, family: str) -> KernelCase:
    _, geometry, sizes, layout, dtypes = FAMILIES[family]
    drawn = zlib.crc32(f"{function.name} {family}".encode())
    return KernelCase(geometry, dtypes[drawn % len(dtypes)], sizes, layout)


def example(function: WindowFunction, case: KernelCase):
    """Input, of which some channels have equal elements or are far from zero, θ between 0.1 and
    1.9, and the output's gradient."""
    input = case.input(2)
    input[:, 1::4] = input[:, 1::4].round()
    input[:, 2::4] += 64
    if function.name == "generalized_mean":
        input = input.abs() + 0.1
    parameter = random_numbers((2, case.sizes[0], 1, 1), torch.float64, 1)
    return input, (1 + 0.9 * parameter.tanh()).to(case.compute_dtype), case.grad_output(2)


def exact(function: WindowFunction, case: KernelCase, input, parameter, grad_output):
    """In float64: output, input's gradient, and each window's part of θ's gradient."""
    x = input.double().requires_grad_()
    theta = parameter.double().expand(grad_output.shape).clone().requires_grad_()
    output = function.compose(x, theta, case.geometry)
    return output.detach(), *torch.autograd.grad(output, (x, theta), grad_output.double())


class Kernels:
    """Those of a function, executed by ``run``.

    Attributes:
        bytes: that the last call has moved; ``None`` where they are not counted.
        names: of the kernels that it has called.
    """

    def __init__(self, function: WindowFunction, run) -> None:
        self._functions = kernels_on_cpu(self._run_one)
        self._function, self._run = function, run
        self.bytes, self.names = 0, []

    def __call__(self, name: str, *args, **options):
        self.bytes, self.names = 0, []
        return getattr(self._functions, name)(*args, **options, function=self._function)

    def check_bytes(self, least: int) -> None:
        """The last call has moved so many bytes and few more, where they are counted."""
        if self.bytes is not None:
            assert least <= self.bytes <= SLACK * least

    def _run_one(self, launch) -> None:
        traffic = self._run(launch)
        self.names.append(launch.name)
        if traffic is None:
            self.bytes = None
        else:
            self.bytes += traffic.sector_bytes + traffic.store_bytes


def size(tensor) -> int:
    return tensor.numel() * tensor.element_size()


def close(actual, expected) -> None:
    tolerance = TOLERANCES[actual.dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def close_sum(actual, parts, dtype: torch.dtype) -> None:
    error = (actual.double() - parts.sum((2, 3), keepdim=True)).abs()
    assert (error <= TOLERANCES[dtype] * parts.abs().sum((2, 3), keepdim=True)).all()


@each_place
@each_function
@each_family
def test_kernels_compute_the_composition_at_the_byte_floor(function, family, run):
    case, kernels = case_of(function, family), Kernels(function, run)
    input, parameter, grad_output = example(function, case)
    output, grad_input, parts = exact(function, case, input, parameter, grad_output)

    def check_kernels(least: int) -> None:
        assert all(re.search(FAMILIES[family][0], name) for name in kernels.names)
        assert all(name.startswith(f"{function.name}_pool2d_") for name in kernels.names)
        if family != "general":
            kernels.check_bytes(least)

    pooled, spread = kernels("forward_with_spread", input, parameter, case.geometry)
    check_kernels(size(input) + 2 * size(pooled))
    close(pooled, output)

    found = kernels(
        "backward",
        grad_output,
        input,
        parameter,
        case.geometry,
        (True, True),
        mean_grad=parameter,
    )
    check_kernels(2 * size(input) + size(pooled))
    close(found[0], grad_input + parameter.double())
    close_sum(found[1], parts, case.dtype)

    if family.startswith("disjoint"):  # what makes θ's gradient of spreads knows no families
        by_spread = kernels("lam_backward", grad_output, spread, parameter)
        kernels.check_bytes(2 * size(pooled))
        close_sum(by_spread, parts, case.dtype)


OVERLAPPING_CASES = (
    KernelCase(pool_geometry(2, stride=1), FLOAT32, (4, 9, 12)),
    KernelCase(pool_geometry(5, stride=2, padding=2), BFLOAT16, (4, 11, 10)),
    KernelCase(pool_geometry(2, ceil_mode=True), FLOAT32, (32, 9, 7), "channels_last"),
    KernelCase(pool_geometry(5, stride=2, padding=2), FLOAT32, (32, 11, 10), "channels_last"),
    KernelCase(THREE, BFLOAT16, (32, 9, 9), "channels_last", lam_in_plane=True),
    KernelCase(pool_geometry((2, 3), (1, 2), (1, 0), True), FLOAT64, (4, 7, 8)),
    KernelCase(pool_geometry(7, stride=2, padding=3), FLOAT32, (4, 9, 12)),
)


@each_place
@pytest.mark.parametrize("name", ["gaussian", "mixed"])
@pytest.mark.parametrize("case", OVERLAPPING_CASES, ids=str)
def test_windows_that_overlap_or_are_cut(name, case, run):
    function, kernels = FUNCTIONS[name], Kernels(FUNCTIONS[name], run)
    input, parameter, grad_output = example(function, case)
    if case.lam_in_plane:
        parameter = parameter * random_numbers(grad_output.shape, case.compute_dtype, 3)
    output, grad_input, parts = exact(function, case, input, parameter, grad_output)
    close(kernels("forward", input, parameter, case.geometry), output)
    needed = (True, True)
    found = kernels("backward", grad_output, input, parameter, case.geometry, needed)
    close(found[0], grad_input)
    if case.lam_in_plane:
        close(found[1], parts)
    else:
        close_sum(found[1], parts, case.dtype)
    assert not any("statistics" in name for name in kernels.names)  # not general.cu


# Neighbours' windows have many elements in common.
SHARING_CASES = (
    KernelCase(pool_geometry(4, stride=2, padding=1), BFLOAT16, (4, 16, 16)),
    KernelCase(pool_geometry(5, stride=1, padding=2), FLOAT32, (4, 10, 12)),
    KernelCase(SEVEN, FLOAT16, (4, 16, 16)),
    KernelCase(pool_geometry(5, stride=1, padding=2), BFLOAT16, (32, 8, 7), "channels_last"),
)


@each_place
@pytest.mark.parametrize(
    ("name", "takes_long"), [("ada", True), ("generalized_mean", True), ("gaussian", False)]
)
@pytest.mark.parametrize("case", SHARING_CASES, ids=str)
def test_windows_that_take_long_are_computed_once(name, takes_long, case, run):
    function, kernels = FUNCTIONS[name], Kernels(FUNCTIONS[name], run)
    input, parameter, grad_output = example(function, case)
    output, grad_input, parts = exact(function, case, input, parameter, grad_output)
    close(kernels("forward", input, parameter, case.geometry), output)
    (march,) = kernels.names
    assert "marching" in march

    def gradients(*needed: bool):
        return kernels("backward", grad_output, input, parameter, case.geometry, needed)

    found = gradients(True, True)
    expected = "overlapping" if takes_long else "marching"
    assert all(expected in name for name in kernels.names)
    close(found[0], grad_input)
    close_sum(found[1], parts, case.dtype)
    _, of_parameter = gradients(False, True)
    assert all("marching" in name for name in kernels.names)  # each thread has windows of its own
    close_sum(of_parameter, parts, case.dtype)


def test_windows_whose_columns_are_their_own_are_not_sent_to_others():
    """A column of elements is in one window, or the ring has no room for rows so long."""
    function = FUNCTIONS["generalized_mean"]
    apart = KernelCase(pool_geometry(4), FLOAT32, (32, 10, 10), "channels_last")
    long = KernelCase(pool_geometry(5, stride=1, padding=2), FLOAT32, (1, 6, 4096))
    for case in (apart, long):
        kernels = Kernels(function, lambda launch: None)
        input, parameter, grad_output = example(function, case)
        kernels("backward", grad_output, input, parameter, case.geometry, (True, True))
        assert kernels.names and all("marching" in name for name in kernels.names)


@each_place
@each_function
@each_family
def test_an_element_without_a_number_makes_its_windows_nan(function, family, run):
    case, kernels = case_of(function, family), Kernels(function, run)
    input, parameter, grad_output = example(function, case)

    def results(input):
        pooled, _ = kernels("forward_with_spread", input, parameter, case.geometry)
        found = kernels(
            "backward",
            grad_output,
            input,
            parameter,
            case.geometry,
            (True, True),
            mean_grad=parameter,
        )
        return pooled, *found

    sound = results(input)
    for plane, value in enumerate((math.nan, math.inf, -math.inf)):
        input[0, plane, 4, 4] = value
    x = torch.where(input.isfinite(), input, math.nan).double().requires_grad_()
    reached = MAX_ENT.compose(x, parameter.double(), case.geometry)
    (reached_x,) = torch.autograd.grad(reached.sum(), x)
    pooled, grad_input, grad_parameter = results(input)
    for plane in range(3):
        for found, nan in ((pooled, reached.isnan()), (grad_input, reached_x.isnan())):
            assert torch.equal(found[0, plane].isnan(), nan[0, plane])
        assert grad_parameter[0, plane].isnan().all()
    for found, before in zip((pooled, grad_input, grad_parameter), sound, strict=True):
        assert torch.equal(found[0, 3:], before[0, 3:]) and torch.equal(found[1], before[1])
