"""The other poolings of the literature: their formulas, limits, derivatives and arguments."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gfgp_cupy.functional import adaptive_windows, gaussian_pool2d, max_ent_pool2d
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.poolings import (
    gated_pool2d,
    generalized_mean_pool2d,
    log_sum_exp_pool2d,
    mixed_pool2d,
    soft_pool2d,
)
from tests.support.memory_layouts import LAYOUTS, arranged
from tests.support.pooling_cases import CASES, GEOMETRIES, each_case, each_geometry, images
from tests.support.random_numbers import random_numbers
from tests.support.rounding import UNIT_ROUNDOFF

pytestmark = pytest.mark.usefixtures("by_the_formula")

OVERLAPPING = GEOMETRIES["3/2/1"]
WINDOW = (3, 2, 1)
each_parametric_case = pytest.mark.parametrize(
    "case",
    [case for name, case in CASES.items() if name not in ("soft", "edscw")],
    ids=[name for name in CASES if name not in ("soft", "edscw")],
)


def maximum(x, *window, ceil_mode=False):
    return F.max_pool2d(x, *window, ceil_mode=ceil_mode)


def average(x, *window, ceil_mode=False):
    return F.avg_pool2d(x, *window, ceil_mode=ceil_mode, count_include_pad=False)


def minimum(x, *window):
    return -F.max_pool2d(-x, *window)


# ---------------------------------------------------------------- the formulas


@each_case
@each_geometry
def test_formula(case, geometry):
    input, parameters = case.images(), case.parameters(3, geometry)
    expected = case.by_loops(input, parameters, geometry)
    torch.testing.assert_close(case(input, parameters, geometry), expected, rtol=1e-12, atol=1e-12)


@each_parametric_case
@pytest.mark.parametrize(
    "shape", [(), (1, 1, 1, 1), (3, 1, 1), (2, 3, 1, 1), (2, 3, 4, 3)], ids=str
)
def test_parameter_of_any_shape_that_broadcasts(case, shape):
    usual = case.parameters(3, OVERLAPPING)
    *weight, _ = usual
    last = random_numbers(shape, torch.float64, 3).abs() + 0.1
    parameters = (*weight, last)
    expected = case.by_loops(case.images(), parameters, OVERLAPPING)
    torch.testing.assert_close(case(case.images(), parameters, OVERLAPPING), expected)
    if shape == ():
        number = case(case.images(), (*weight, last.item()), OVERLAPPING)
        torch.testing.assert_close(number, expected)


@pytest.mark.parametrize("shape", [(), (1, 1), (3, 2), (3, 1, 1), (1, 1, 3, 2)], ids=str)
def test_gates_of_any_shape_that_broadcasts(shape):
    geometry = GEOMETRIES["3x2/1x3/1x0 ceil"]
    weight = random_numbers(shape, torch.float64, 3)
    whole = weight.expand(1, 3, 3, 2)
    window = ((3, 2), (1, 3), (1, 0), True)
    expected = CASES["gated"].by_loops(images(), (whole, torch.zeros(1, 1, 1, 1)), geometry)
    torch.testing.assert_close(gated_pool2d(images(), weight, *window), expected)


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_other_types(case, dtype):
    input, parameters = case.images(dtype=dtype), case.parameters(3, OVERLAPPING)
    parameters = tuple(parameter.float() for parameter in parameters)
    actual = case(input, parameters, OVERLAPPING)
    assert actual.dtype == dtype
    expected = case.by_loops(input, parameters, OVERLAPPING)
    # A half type is rounded when pooled and again when mixed; float32 in every operation.
    roundoffs = 2 if dtype.itemsize == 2 else 16
    error = (actual.double() - expected).abs().max() / input.double().abs().max()
    assert error <= roundoffs * UNIT_ROUNDOFF[dtype]


@each_parametric_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_parameters_of_another_type_than_the_input(case, dtype):
    input = case.images(dtype=torch.float32)
    parameters = tuple(
        parameter.to(dtype).requires_grad_() for parameter in case.parameters(3, OVERLAPPING)
    )
    output = case(input, parameters, OVERLAPPING)
    expected = case(input, tuple(parameter.float() for parameter in parameters), OVERLAPPING)
    assert torch.equal(output, expected)
    output.square().sum().backward()
    assert all(parameter.grad.dtype == dtype for parameter in parameters)


@each_case
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(case, layout):
    parameters = case.parameters(3, OVERLAPPING)
    plain = case.images((2, 3, 8, 6)).requires_grad_()
    expected = case(plain, parameters, OVERLAPPING)
    expected.square().sum().backward()
    input = arranged(plain.detach(), layout).requires_grad_()
    output = case(input, parameters, OVERLAPPING)
    output.square().sum().backward()
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(input.grad, plain.grad)
    if layout == "channels_last":
        assert output.is_contiguous(memory_format=torch.channels_last)
    elif layout == "contiguous":
        assert output.is_contiguous()


@each_parametric_case
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_layout_is_the_inputs_where_each_window_has_its_parameter(case, layout):
    other = "contiguous" if layout == "channels_last" else "channels_last"
    *weight, _ = case.parameters(3, OVERLAPPING)
    of_each = arranged(random_numbers((2, 3, 4, 3), torch.float64, 3).abs() + 0.1, other)
    output = case(arranged(case.images((2, 3, 8, 6)), layout), (*weight, of_each), OVERLAPPING)
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    assert output.is_contiguous(memory_format=formats[layout])


@each_case
def test_one_sample_without_a_batch(case):
    parameters = case.parameters(3, OVERLAPPING)
    whole = case(case.images(), parameters, OVERLAPPING)
    for sample, expected in zip(case.images(), whole, strict=True):
        torch.testing.assert_close(case(sample, parameters, OVERLAPPING), expected)


@each_case
def test_empty_batch(case):
    input = case.images((0, 3, 7, 6)).requires_grad_()
    output = case(input, case.parameters(3, OVERLAPPING), OVERLAPPING)
    assert output.shape == (0, 3, 4, 3)
    output.sum().backward()
    assert input.grad.shape == input.shape


@each_case
def test_meta_device(case):
    parameters = tuple(p.to("meta") for p in case.parameters(3, OVERLAPPING))
    output = case(torch.empty(2, 3, 7, 6, device="meta"), parameters, OVERLAPPING)
    assert output.device.type == "meta"
    assert output.shape == (2, 3, 4, 3)


@each_case
def test_nan_stays_in_its_windows(case):
    input = case.images((1, 1, 6, 6))
    input[..., 3, 3] = math.nan
    parameters = case.parameters(1, pool_geometry(2))
    output = case(input, parameters, pool_geometry(2))
    assert output[0, 0, 1, 1].isnan()
    assert output.isnan().sum() == 1


# ---------------------------------------------------------------- limits

EACH_WINDOW = pytest.mark.parametrize(
    ("window", "ceil_mode"), [((2,), False), (WINDOW, False), ((2, 3, 1), True)], ids=str
)


@EACH_WINDOW
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_mixed_from_average_to_max(window, ceil_mode, dtype):
    x = images(dtype=dtype)
    options = {"ceil_mode": ceil_mode}
    # To the last digit: sums in another order may be rounded otherwise.
    digits = {"rtol": 2 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).eps}
    torch.testing.assert_close(
        mixed_pool2d(x, 0.0, *window, **options), average(x, *window, **options), **digits
    )
    assert torch.equal(mixed_pool2d(x, 1.0, *window, **options), maximum(x, *window, **options))


def test_gated_from_average_to_max():
    x, weight = images(), torch.zeros(3, 3)
    half = (average(x, *WINDOW) + maximum(x, *WINDOW)) / 2
    torch.testing.assert_close(gated_pool2d(x, weight, *WINDOW), half)
    for bias, expected in ((-1e3, average), (1e3, maximum)):
        output = gated_pool2d(x, weight, *WINDOW, bias=bias)
        torch.testing.assert_close(output, expected(x, *WINDOW))


def test_gates_open_for_large_windows_alone():
    # Sums of -12 and 12: the first window is averaged, the second gives its maximum.
    x = torch.tensor([[[-2.0, -4.0, 4.0, 2.0], [-5.0, -1.0, 5.0, 1.0]]], dtype=torch.float64)
    expected = torch.tensor([[[-3.0, 5.0]]], dtype=torch.float64)
    torch.testing.assert_close(gated_pool2d(x, 10.0, 2), expected)


def test_generalized_mean_from_min_over_average_to_max():
    x = images().abs() + 0.1
    known = {
        -1e4: minimum(x, *WINDOW),
        -1.0: 1 / average(1 / x, *WINDOW),
        0.0: average(x.log(), *WINDOW).exp(),
        1.0: average(x, *WINDOW),
        2.0: average(x.square(), *WINDOW).sqrt(),
        1e4: maximum(x, *WINDOW),
    }
    for p, expected in known.items():
        # The distance to a limit is a factor of at most 9^(1/|p|).
        rtol = 1.001 * (9 ** (1 / abs(p)) - 1) if abs(p) > 100 else 1e-12
        torch.testing.assert_close(
            generalized_mean_pool2d(x, p, *WINDOW), expected, rtol=rtol, atol=0
        )


def test_generalized_mean_is_torchs_but_for_the_number_of_elements():
    x = images((2, 3, 9, 9)).abs()
    expected = F.lp_pool2d(x, 3.0, kernel_size=3, stride=2) / 9 ** (1 / 3)
    torch.testing.assert_close(generalized_mean_pool2d(x, 3.0, 3, 2), expected)


def test_generalized_mean_of_elements_below_eps():
    x = torch.tensor([[[-1.0, 0.0], [0.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    output = generalized_mean_pool2d(x, 2.0, 2, eps=0.5)
    assert output.item() == pytest.approx(math.sqrt((3 * 0.25 + 4) / 4))
    output.backward()
    assert x.grad.flatten().tolist() == [0, 0, 0, pytest.approx(0.5 / output.item())]
    assert generalized_mean_pool2d(torch.zeros(1, 2, 2), 3.0, 2).item() == pytest.approx(1e-6)


def test_log_sum_exp_from_min_over_average_to_max():
    x = images()
    torch.testing.assert_close(
        log_sum_exp_pool2d(x, 0.0, *WINDOW), average(x, *WINDOW), rtol=0, atol=1e-15
    )
    for lam, expected in ((-1e4, minimum), (1e4, maximum)):
        output = log_sum_exp_pool2d(x, lam, *WINDOW)
        torch.testing.assert_close(
            output, expected(x, *WINDOW), rtol=0, atol=math.log(9) / abs(lam)
        )
        inside = expected(x, *WINDOW) - output
        assert (inside * math.copysign(1, lam) >= 0).all()


def test_soft_is_max_ent_at_one():
    torch.testing.assert_close(
        soft_pool2d(images(), *WINDOW), max_ent_pool2d(images(), 1.0, *WINDOW)
    )


# ---------------------------------------------------------------- small and huge numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("lam", [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 5e-3, 0.03, 1.0, 20.0])
def test_log_sum_exp_is_the_mean_of_max_ent_up_to_lam(dtype, sign, lam):
    """∫₀¹ y(tλ) dt = (1/λ) log mean exp(λx): for y is the derivative of log Σ exp(λx)."""
    x = images((1, 1, 4, 4))
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(60))
    lams = (sign * lam * (nodes + 1) / 2).requires_grad_()
    y = max_ent_pool2d(x.expand(60, 1, 4, 4), lams[:, None, None, None], 2)
    expected = torch.einsum("n,nchw->chw", weights / 2, y)
    (per_node,) = torch.autograd.grad(expected.sum(), lams)
    expected_grad = (per_node * (nodes + 1) / 2).sum().item()

    own = torch.tensor(sign * lam, dtype=dtype, requires_grad=True)
    actual = log_sum_exp_pool2d(x.to(dtype), own, 2)[0]
    roundoff = UNIT_ROUNDOFF[dtype]
    scale = x.abs().max().item()
    assert (actual.double() - expected).abs().max() <= 20 * roundoff * scale
    (grad,) = torch.autograd.grad(actual.sum(), own)
    assert grad.item() == pytest.approx(expected_grad, rel=4 * roundoff ** (2 / 3))


@pytest.mark.parametrize("bias", [-0.7, 0.0, 2.0])
def test_gating_with_w_0_is_mixing_but_for_gradients_of_ties(bias):
    x = images().clone().requires_grad_()
    proportion = torch.tensor(bias, dtype=x.dtype).sigmoid()
    ties = torch.zeros(1, 1, 2, 2, dtype=x.dtype, requires_grad=True)
    for input in (x, ties):
        gated = gated_pool2d(input, 0.0, 2, bias=bias)
        mixed = mixed_pool2d(input, proportion, 2)
        torch.testing.assert_close(gated, mixed)
        (of_gated,) = torch.autograd.grad(gated.sum(), input)
        (of_mixed,) = torch.autograd.grad(mixed.sum(), input)
        if input is x:
            torch.testing.assert_close(of_gated, of_mixed)
    average = (1 - proportion.item()) / 4
    assert of_mixed.flatten().tolist() == pytest.approx([0.25] * 4)
    assert sorted(of_gated.flatten().tolist()) == pytest.approx(
        [average] * 3 + [average + proportion.item()]
    )


def test_lam_and_p_learn_from_their_neutral_values():
    x = images((1, 1, 2, 2)).abs()
    for function, scale in ((log_sum_exp_pool2d, x), (generalized_mean_pool2d, x.log())):
        neutral = torch.zeros((), dtype=torch.float64, requires_grad=True)
        y = function(x, neutral, 2)
        y.backward()
        factor = 1 if function is log_sum_exp_pool2d else y.item()
        assert neutral.grad.item() == pytest.approx(factor * scale.var(unbiased=False).item() / 2)


@pytest.mark.parametrize("lam", [0.0, 1e-7, -3e-6, 1e-5, -3e-5])
def test_third_derivative_of_log_sum_exp_near_0(lam):
    """κ₄ / 4, the fourth cumulant of the window's elements."""
    x = images((1, 1, 2, 3))
    deviation = x - x.mean()
    cumulant = deviation.pow(4).mean() - 3 * deviation.square().mean() ** 2
    lam = torch.full((1, 1, 1, 1), lam, dtype=torch.float64, requires_grad=True)
    derivative = log_sum_exp_pool2d(x, lam, (2, 3))
    for _ in range(3):
        (derivative,) = torch.autograd.grad(derivative, lam, create_graph=True)
    assert derivative.item() == pytest.approx(cumulant.item() / 4, rel=1e-4)


@pytest.mark.parametrize("parameter", [1e30, -1e30, 3e38])
@pytest.mark.parametrize("function", [log_sum_exp_pool2d, generalized_mean_pool2d])
def test_equal_elements_and_a_parameter_whose_square_overflows(function, parameter):
    x = torch.full((1, 1, 2, 2), 1.5, requires_grad=True)
    y = function(x, parameter, 2)
    y.backward()
    assert y.item() == pytest.approx(1.5, rel=1e-6)
    torch.testing.assert_close(x.grad, torch.full((1, 1, 2, 2), 0.25))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_generalized_mean_and_what_is_not_finite(value):
    """Its window is NaN, with its gradient; between the windows it is nothing."""
    finite = torch.full((2,), 0.5)
    for place, output, gradient in (
        (1, [math.nan, 1.0], [math.nan, math.nan, 0.0, *finite]),
        (2, [1.0, 1.0], [*finite, 0.0, *finite]),
    ):
        x = torch.ones(1, 1, 1, 5)
        x[..., place] = value
        y = generalized_mean_pool2d(x.requires_grad_(), 2.0, (1, 2), stride=(1, 3))
        y.sum().backward()
        torch.testing.assert_close(y.flatten(), torch.tensor(output), equal_nan=True)
        torch.testing.assert_close(x.grad.flatten(), torch.tensor(gradient), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_nothing_overflows(dtype):
    largest = torch.finfo(dtype).max / 4
    x = images((1, 2, 8, 8), torch.float32).abs()
    x = (x / x.max() * largest).to(dtype)
    for function, parameter in (
        (log_sum_exp_pool2d, 50.0),
        (log_sum_exp_pool2d, -50.0),
        (log_sum_exp_pool2d, 1e-30),
        (generalized_mean_pool2d, 200.0),
        (generalized_mean_pool2d, -200.0),
        (generalized_mean_pool2d, 1e-6),
        (mixed_pool2d, 0.5),
        (gated_pool2d, 1.0),
    ):
        input = x.clone().requires_grad_()
        parameter = torch.tensor(parameter, requires_grad=True)
        output = function(input, parameter, 2)
        assert output.isfinite().all(), function
        slack = largest * 2.0**-7
        assert (output >= minimum(x, 2) - slack).all(), function
        assert (output <= maximum(x, 2) + slack).all(), function
        (grad,) = torch.autograd.grad(output.float().sum(), input)
        assert grad.isfinite().all(), function


# ---------------------------------------------------------------- derivatives


@each_case
@pytest.mark.parametrize("name", ["2/3/1 ceil", "3/2/1"])
def test_gradients(case, name):
    geometry = GEOMETRIES[name]
    inputs = (case.images((2, 2, 4, 3)), *case.parameters(2, geometry))
    inputs = tuple(tensor.requires_grad_() for tensor in inputs)

    def function(input, *parameters):
        return case(input, parameters, geometry)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@each_parametric_case
def test_function_transforms(case):
    batches = case.images((2, 2, 3, 5, 5))
    parameters = case.parameters(3, OVERLAPPING)

    def function(input):
        return case(input, parameters, OVERLAPPING)

    expected = torch.stack([function(batch) for batch in batches])
    torch.testing.assert_close(torch.func.vmap(function)(batches), expected)
    direction = random_numbers(batches[0].shape, torch.float64, 5)
    _, tangent = torch.func.jvp(function, (batches[0],), (direction,))
    _, pullback = torch.func.vjp(function, batches[0])
    cotangent = random_numbers(tangent.shape, torch.float64, 6)
    (gradient,) = pullback(cotangent)
    torch.testing.assert_close((tangent * cotangent).sum(), (gradient * direction).sum())


# ---------------------------------------------------------------- errors

FUNCTIONS = {
    "soft": lambda x, *window: soft_pool2d(x, *window),
    "mixed": lambda x, *window: mixed_pool2d(x, 0.5, *window),
    "gated": lambda x, *window: gated_pool2d(x, 0.5, *window),
    "gem": lambda x, *window: generalized_mean_pool2d(x, 3.0, *window),
    "lse": lambda x, *window: log_sum_exp_pool2d(x, 1.0, *window),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    ("input", "window", "error", "message"),
    [
        ([1.0], (2,), TypeError, "input.*list"),
        (torch.ones(1, 2, 4, 4, dtype=torch.int64), (2,), TypeError, "input.*int64"),
        (torch.ones(4, 4), (2,), ValueError, r"input.*\(4, 4\)"),
        (torch.ones(1, 0, 4, 4), (2,), ValueError, r"input.*\(1, 0, 4, 4\)"),
        (torch.ones(1, 2, 2, 4), (3,), ValueError, r"empty.*\(1, 2, 2, 4\).*kernel_size=\(3, 3\)"),
        (torch.ones(1, 2, 4, 4), (0,), ValueError, "kernel_size.*0"),
        (torch.ones(1, 2, 4, 4), (2, 1, 2), ValueError, "padding=2"),
        (torch.ones(1, 2, 4, 4), (2.5,), TypeError, r"kernel_size.*2\.5"),
    ],
    ids=str,
)
def test_unusable_input(function, input, window, error, message):
    with pytest.raises(error, match=message):
        function(input, *window)


PARAMETERS = {
    "proportion": lambda x, a: mixed_pool2d(x, a, 2),
    "weight": lambda x, w: gated_pool2d(x, w, 2),
    "bias": lambda x, b: gated_pool2d(x, 0.0, 2, bias=b),
    "p": lambda x, p: generalized_mean_pool2d(x, p, 2),
    "lam": lambda x, lam: log_sum_exp_pool2d(x, lam, 2),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_unusable_parameter(name):
    function, x = PARAMETERS[name], torch.ones(2, 3, 4, 4)
    with pytest.raises(TypeError, match=rf"^{name} .*NoneType"):
        function(x, None)
    with pytest.raises(TypeError, match=rf"^{name} .*int64.*{name}\.float\(\)"):
        function(x, torch.ones(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"^{name} .*\(5, 1, 1\).*\(2, 3, 4, 4\)"):
        function(x, torch.ones(5, 1, 1))
    with pytest.raises(ValueError, match=rf"cpu.*{name} on meta.*{name}\.to"):
        function(x, torch.ones(1, device="meta"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_numbers_as_parameters(name):
    x, function = images((2, 3, 4, 4), torch.float32).abs(), PARAMETERS[name]
    expected = function(x, torch.full((1, 1, 1, 1), 0.5))
    for number in (0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)):
        assert torch.equal(function(x, number), expected)
    for number in (1e39, -1e39, 10**400):
        with pytest.raises(ValueError, match=rf"{name} must be at most 3.4e\+38 .*float32, got"):
            function(x, number)
    assert function(x.double(), 1e39).dtype is torch.float64
    for wrong in (True, "1", 1j, np.bool_(True)):
        with pytest.raises(TypeError, match=f"{name} must be a torch.Tensor or a number"):
            function(x, wrong)


@pytest.mark.parametrize("axes", [0, 4, 2.0, "2", True])
@pytest.mark.parametrize("window", [2, (2,), adaptive_windows(2)], ids=["int", "tuple", "bins"])
def test_unusable_axes(window, axes):
    for input in (images(), torch.ones(1, 1, 4, 4, 4, 4)):
        with pytest.raises(ValueError, match=rf"^axes must be 1, 2 or 3, got {axes!r}$"):
            max_ent_pool2d(input, 1.0, window, axes=axes)


@pytest.mark.parametrize("eps", [0.0, -1e-3, math.nan, math.inf, 1e-50, 1e50])
@pytest.mark.parametrize("pool", [generalized_mean_pool2d, gaussian_pool2d])
def test_unusable_eps(pool, eps):
    told = rf"^eps must be above 0 and finite, got {re.escape(str(eps))}; in float32 that is from"
    with pytest.raises(ValueError, match=told):
        pool(torch.ones(1, 2, 2), 3.0, 2, eps=eps)
