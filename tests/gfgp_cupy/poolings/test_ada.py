"""AdaPool's parts, its similarity where it is 0/0, and what squares that leave the range do."""

import pytest
import torch
from torch import nn

from gfgp_cupy import AdaPool2d, EDSCWPool2d, GFGPAdaPool2d
from gfgp_cupy.poolings import ada_pool2d, edscw_pool2d, soft_pool2d
from tests.support.random_numbers import random_numbers

WINDOW = {"kernel_size": 3, "stride": 2, "padding": 1}


pytestmark = pytest.mark.usefixtures("by_the_formula")


def images(dtype=torch.float64):
    return random_numbers((2, 3, 7, 6), dtype, 0)


def test_parts():
    x = images()
    torch.testing.assert_close(ada_pool2d(x, 0.0, **WINDOW), soft_pool2d(x, **WINDOW))
    assert torch.equal(ada_pool2d(x, 1.0, **WINDOW), edscw_pool2d(x, **WINDOW))


def gradient_of(pool, input):
    input = input.clone().requires_grad_()
    output = pool(input, 2)
    return output, torch.autograd.grad(output.sum(), input)[0]


def test_window_of_zeros_is_averaged():
    """As ReLUs leave them: the similarity is 0/0 there."""
    output, gradient = gradient_of(edscw_pool2d, torch.zeros(1, 1, 2, 2))
    assert output.item() == 0
    assert torch.equal(gradient, torch.full((1, 1, 2, 2), 0.25))


def test_zeros_among_others():
    """An element of 0 has the similarity 0, by the formula."""
    x = torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]], dtype=torch.float64)
    weight = torch.tensor(8 / 17, dtype=torch.float64).exp()
    expected = 4 * weight / (weight + 3)
    output, gradient = gradient_of(edscw_pool2d, x)
    torch.testing.assert_close(output.flatten(), expected.reshape(1))
    # Homogeneous of degree 1.
    torch.testing.assert_close((gradient * x).sum(), output.sum())


def test_mean_of_zero():
    """Every similarity is 0, but not its derivative by the mean: 2 / x."""
    x = torch.tensor([[[[-1.0, 1.0], [-3.0, 3.0]]]], dtype=torch.float64)
    output, gradient = gradient_of(edscw_pool2d, x)
    assert output.item() == 0
    torch.testing.assert_close(gradient, torch.full_like(x, 1 / 4 + 2 / 4))


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1e20, 1e37])
def test_it_is_homogeneous_where_squares_leave_the_range(scale):
    x = images(torch.float32)
    output, gradient = gradient_of(edscw_pool2d, scale * x)
    expected, its_gradient = gradient_of(edscw_pool2d, x.double())
    torch.testing.assert_close(output.double() / scale, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), its_gradient, rtol=1e-3, atol=1e-4)


def test_far_from_zero_the_digits_stay():
    x = 1e4 + images(torch.float32)
    expected = edscw_pool2d(x.double(), **WINDOW)
    torch.testing.assert_close(edscw_pool2d(x, **WINDOW).double(), expected, rtol=1.2e-7, atol=0)


def test_result_is_between_the_extremes():
    x = 100 * images()
    largest = nn.functional.max_pool2d(x, **WINDOW)
    smallest = -nn.functional.max_pool2d(-x, **WINDOW)
    for beta in (0.0, 0.5, 1.0):
        output = ada_pool2d(x, beta, **WINDOW)
        assert ((smallest <= output) & (output <= largest)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_makes_its_windows_nan(value):
    x = images()
    x[0, 1, 3, 3] = value
    for beta in (0.0, 0.5, 1.0):
        output = ada_pool2d(x, beta, 2)
        expected = torch.zeros_like(output, dtype=torch.bool)
        expected[0, 1, 1, 1] = True
        assert torch.equal(output.isnan(), expected)


def test_layers():
    x = images()
    assert torch.equal(EDSCWPool2d()(x), edscw_pool2d(x, 2))
    learned = AdaPool2d(2, num_features=3, dtype=torch.float64)
    torch.testing.assert_close(learned(x), ada_pool2d(x, 0.5, 2))
    learned(x).square().sum().backward()
    assert learned.logit.grad.shape == (1, 3, 1, 1)
    assert learned.logit.grad.all()
    guided = GFGPAdaPool2d(3, 2, dtype=torch.float64).eval()
    beta = guided.head(x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(guided(x), ada_pool2d(x, beta, 2))


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_type_does_not_matter(default):
    x, before = random_numbers((1, 1, 17, 17), torch.float32, 0), torch.get_default_dtype()
    expected = ada_pool2d(x, 1.0, 17)
    torch.set_default_dtype(default)
    try:
        assert torch.equal(ada_pool2d(x, 1.0, 17), expected)
    finally:
        torch.set_default_dtype(before)
