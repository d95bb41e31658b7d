"""Log-sum-exp and generalised-mean pooling to the last digits, at every limit of their parameter,
against 120-digit arithmetic."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.backends import numba
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.poolings.generalized_mean import GENERALIZED_MEAN
from gfgp_cupy.poolings.log_sum_exp import LOG_SUM_EXP
from tests.support.cxx import needs_cxx
from tests.support.random_numbers import random_numbers
from tests.support.rounding import UNIT_ROUNDOFF

TWO = pool_geometry(2)
EPS = Decimal(float("1e-6"))
COUNT = 2


def log_mean_exp(x, theta):
    """The value, its derivatives by the elements and by θ."""
    theta, n = Decimal(theta), len(x)
    mean = sum(x) / n
    if theta == 0:
        return mean, [Decimal(1) / n] * n, sum((v - mean) ** 2 for v in x) / n / 2
    origin = max(x, key=lambda v: theta * v)
    weights = [(theta * (v - origin)).exp() for v in x]
    total = sum(weights)
    y = origin + (total / n).ln() / theta
    by_theta = (sum(w * v for w, v in zip(weights, x, strict=True)) / total - y) / theta
    return y, [w / total for w in weights], by_theta


def log_sum_exp(x, lam):
    return log_mean_exp([Decimal(v) for v in x], lam)


def generalized_mean(x, p):
    values = [max(Decimal(v), EPS) for v in x]
    y, weights, by_p = log_mean_exp([v.ln() for v in values], p)
    y = y.exp()
    by_x = [y * w / v if v > EPS else Decimal(0) for w, v in zip(weights, values, strict=True)]
    return y, by_x, y * by_p


def of_kernels(function, x, theta, grad, geometry=TWO):
    output = passes.forward(x, theta, geometry, run_launch, function)
    gradients = passes.backward(grad, x, theta, geometry, (True, True), run_launch, None, function)
    return output, *gradients


OF_KERNELS = pytest.param(of_kernels, marks=needs_cxx, id="of_kernels")


def of_numba(function, x, theta, grad, geometry=TWO):
    output = numba.forward(x, theta, geometry, function)
    return output, *numba.backward(grad, x, theta, geometry, (True, True), None, function)


def of_composition(function, x, theta, grad, geometry=TWO):
    x, theta = x.clone().requires_grad_(), theta.clone().requires_grad_()
    output = function.compose(x, theta, geometry)
    return output.detach(), *torch.autograd.grad(output, (x, theta), grad)


def normal():
    return random_numbers((COUNT, 4), torch.float64, 0)


WINDOWS = {
    "normal": normal,
    "relu": lambda: normal().relu(),
    "far from 0": lambda: 1e4 + 0.01 * normal(),
    "equal": lambda: normal()[:, :1].abs().expand(COUNT, 4),
    "small": lambda: 1e-3 * normal(),
    "positive": lambda: normal().abs() + 0.05,
}
LAMS = (0.0, 1e-30, 1e-3, 0.5, -2.0, 50.0, 1e3, 1e30, -1e30)
POWERS = (0.0, 1e-30, 1e-3, 1.0, -1.0, 3.0, 1e3, 1e30)


@pytest.mark.parametrize("computed", [OF_KERNELS, of_numba])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("function", "exact", "thetas"),
    [(LOG_SUM_EXP, log_sum_exp, LAMS), (GENERALIZED_MEAN, generalized_mean, POWERS)],
    ids=["log_sum_exp", "generalized_mean"],
)
def test_last_digits(computed, dtype, function, exact, thetas):
    roundoff = UNIT_ROUNDOFF[dtype]
    for name, windows in WINDOWS.items():
        x = windows().to(dtype)
        plane = x.reshape(COUNT, 2, 2).transpose(0, 1).reshape(1, 1, 2, 2 * COUNT).contiguous()
        grad = torch.ones(1, 1, 1, COUNT, dtype=dtype)
        for value in thetas:
            theta = torch.full((1, 1, 1, COUNT), value, dtype=dtype)
            y, by_x, by_theta = computed(function, plane, theta, grad)
            by_x = by_x.reshape(2, COUNT, 2).transpose(0, 1).reshape(COUNT, 4)
            for i in range(COUNT):
                with localcontext() as context:
                    context.prec = 120
                    elements = x[i].tolist()
                    exact_y, exact_by_x, exact_by_theta = exact(elements, theta[0, 0, 0, 0].item())
                size = max(map(abs, elements)) if function is LOG_SUM_EXP else float(exact_y)
                where = f"{name}, {value}, {elements}"
                assert y[0, 0, 0, i].item() == pytest.approx(
                    float(exact_y), rel=0, abs=12 * roundoff * size
                ), where
                largest = max(map(float, exact_by_x))
                for x_j, actual, of_x in zip(elements, by_x[i].tolist(), exact_by_x, strict=True):
                    units = 24.0
                    if computed is of_kernels and function is GENERALIZED_MEAN and of_x:
                        # Of (x / c)^(p - 1) a rounding of the exponent is that much of the power.
                        units += abs((value - 1) * math.log(x_j / float(exact_y)))
                    assert actual == pytest.approx(
                        float(of_x), rel=units * roundoff, abs=roundoff * largest
                    ), where
                assert by_theta[0, 0, 0, i].item() == pytest.approx(
                    float(exact_by_theta), rel=24 * roundoff, abs=1e-30
                ), where


WINDOWS_OF_HALF_TYPES = {
    **WINDOWS,
    "neighbours": lambda: 60000 + 32 * normal().sign(),
    "large": lambda: 1e4 * normal().abs(),
    "wide": lambda: (3 * normal()).exp(),
}


WINDOWS_OF_BFLOAT16 = {
    "huge": lambda: 1e20 * (normal().abs() + 0.1),
    "largest": lambda: 1e38 * (normal().abs() + 0.1),
    "huge and not": lambda: 1 + 1e30 * (normal() > 0),
}


@needs_cxx
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("function", "exact", "thetas"),
    [(LOG_SUM_EXP, log_sum_exp, LAMS), (GENERALIZED_MEAN, generalized_mean, POWERS)],
    ids=["log_sum_exp", "generalized_mean"],
)
def test_half_types_are_rounded_once(dtype, function, exact, thetas):
    """Most windows by weights and powers as such, those for which they do not hold otherwise."""
    roundoff, least = UNIT_ROUNDOFF[dtype], 2.0**-25 if dtype is torch.float16 else 0.0
    factor = 1.0 if dtype is torch.float16 else 2.0**-60
    # (Log-sum-exp pooling's derivative by λ, a square, would be infinite.)
    with_huge = dtype is torch.bfloat16 and function is GENERALIZED_MEAN
    more = WINDOWS_OF_BFLOAT16 if with_huge else {}
    for name, windows in {**WINDOWS_OF_HALF_TYPES, **more}.items():
        x = windows().to(dtype)
        plane = x.reshape(COUNT, 2, 2).transpose(0, 1).reshape(1, 1, 2, 2 * COUNT).contiguous()
        grad = torch.full((1, 1, 1, COUNT), factor, dtype=dtype)
        for value in (*thetas, 0.1, 0.125, 7.0, 9.0, 20.0):
            theta = torch.full((1, 1, 1, COUNT), value)
            y, by_x, by_theta = of_kernels(function, plane, theta, grad)
            by_x = by_x.reshape(2, COUNT, 2).transpose(0, 1).reshape(COUNT, 4)
            for i in range(COUNT):
                elements, where = x[i].tolist(), f"{name}, {value}, {x[i].tolist()}"
                with localcontext() as context:
                    context.prec = 120
                    exact_y, exact_by_x, exact_by_theta = exact(elements, theta[0, 0, 0, 0].item())
                size = max(map(abs, elements)) if function is LOG_SUM_EXP else float(exact_y)
                assert y[0, 0, 0, i].item() == pytest.approx(
                    float(exact_y), rel=roundoff, abs=2.0**-20 * size + least
                ), where
                largest = max(map(float, exact_by_x))
                for actual, of_x in zip(by_x[i].tolist(), exact_by_x, strict=True):
                    assert actual / factor == pytest.approx(
                        float(of_x), rel=1.05 * roundoff, abs=2.0**-20 * largest + least
                    ), where
                # Elements differ from the output by its last digits, too, and this is of squares.
                rounding = 2.0**-38 * size
                if function is LOG_SUM_EXP:
                    rounding = 2.0**-45 * (size + 1 / max(abs(value), 0.01)) ** 2
                assert by_theta[0, 0, 0, i].item() / factor == pytest.approx(
                    float(exact_by_theta), rel=2.0**-11, abs=rounding
                ), where


@pytest.mark.parametrize("computed", [OF_KERNELS, of_numba, of_composition])
@pytest.mark.parametrize(("p", "small"), [(3.0, 0.01), (3.0, 1e-3), (1.5, 1e-4), (1.5, 1e-5)])
def test_gradient_of_an_element_that_hardly_counts(computed, p, small):
    """It need not be small: it is the weight, times the output's ratio to the element."""
    x = torch.tensor([[[[small, 1.0], [0.9, 0.7]]]])
    theta = torch.full((1, 1, 1, 1), p)
    _, by_x, _ = computed(GENERALIZED_MEAN, x, theta, torch.ones(1, 1, 1, 1))
    _, expected, _ = generalized_mean(x.double().flatten().tolist(), p)
    assert by_x.flatten().tolist() == pytest.approx([float(each) for each in expected], rel=1e-5)


@pytest.mark.parametrize("computed", [OF_KERNELS, of_numba, of_composition])
@pytest.mark.parametrize("function", [LOG_SUM_EXP, GENERALIZED_MEAN], ids=lambda f: f.name)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_makes_its_window_nan(computed, function, value):
    x = torch.ones(1, 1, 2, 4)
    x[0, 0, 1, 1] = value
    for theta in (0.0, 1.0, -3.0, 1e3):
        theta = torch.full((1, 1, 1, 1), theta)
        y, by_x, _ = computed(function, x, theta, torch.ones(1, 1, 1, 2))
        assert y.isnan().flatten().tolist() == [True, False]
        assert by_x[..., :2].isnan().any()
        assert by_x[..., 2:].isfinite().all()


@pytest.mark.parametrize("computed", [OF_KERNELS, of_numba, of_composition])
@pytest.mark.parametrize("function", [LOG_SUM_EXP, GENERALIZED_MEAN], ids=lambda f: f.name)
@pytest.mark.parametrize(
    ("window", "size"),
    [
        pytest.param((2,), (4, 4), id="disjoint"),
        pytest.param((3, 2, 1), (5, 5), id="overlapping"),
        pytest.param((2, 1), (3, 4), id="others", marks=pytest.mark.slow),
        pytest.param(((3, 5),), (3, 5), id="whole planes"),
    ],
)
def test_it_does_so_among_elements_that_are_far_apart(computed, function, window, size):
    """At any place: none is lost where the largest element decides."""
    geometry = pool_geometry(*window)
    values = (math.nan, math.inf, -math.inf)
    places = torch.eye(size[0] * size[1]).bool().reshape(-1, *size)
    x = torch.tensor([0.0, 20.0, 5.0, 0.0, 0.5, 3.0, 0.0]).repeat(4)[: places.shape[0]]
    x = torch.stack([x.reshape(size).masked_fill(places, value) for value in values])
    reached = torch.nn.functional.max_pool2d(places.float()[None], *window).bool()
    reached = reached.expand(len(values), -1, -1, -1)
    for theta in (1.0, 3.0, -3.0, 30.0, -300.0):
        theta = torch.full((1, 1, 1, 1), theta)
        y, *_ = computed(function, x, theta, torch.ones(reached.shape), geometry)
        assert torch.equal(y.isnan(), reached), theta


@pytest.mark.parametrize("computed", [OF_KERNELS, of_numba, of_composition])
@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize(
    ("function", "thetas", "values"),
    [
        (LOG_SUM_EXP, (5.0, -5.0, 1e6, -1e6), (897.4, -3e8, 1e9, 1e30)),
        (GENERALIZED_MEAN, (3.0, 1e6, 1e9, -1e9), (0.7, 1.1, 897.4, 1e20)),
    ],
    ids=["log_sum_exp", "generalized_mean"],
)
def test_equal_elements_of_every_size(computed, size, function, thetas, values):
    """Their mean is rounded, and to a large parameter that is a long way."""
    for theta in thetas:
        for value in values:
            x = torch.full((1, 1, size, size), value)
            y, by_x, by_theta = computed(
                function,
                x,
                torch.full((1, 1, 1, 1), theta),
                torch.ones(1, 1, 1, 1),
                pool_geometry(size),
            )
            where = f"{theta:g}, {value:g}"
            assert y.item() == pytest.approx(value, rel=1e-5), where
            assert by_x.flatten().tolist() == pytest.approx([1 / size**2] * size**2, rel=1e-4), (
                where
            )
            # (A rounding of y is as if elements differed by so much.)
            assert 0 <= by_theta.item() <= (2.0**-20 * value) ** 2, where
