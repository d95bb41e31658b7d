"""Gaussian pooling, against its formula in loops and in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from gfgp_cupy.poolings.gaussian import GFGPGaussianPool2d, gaussian_pool2d
from tests.support.random_numbers import random_numbers

WINDOWS = {
    "disjoint": ((2, 2), (2, 2), (0, 0), False),
    "overlapping": ((3, 3), (2, 2), (1, 1), False),
    "overhanging": ((3, 2), (2, 3), (1, 0), True),
    "padded": ((4, 3), (3, 2), (2, 1), True),
}
each_window = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
each_counting = pytest.mark.parametrize("counted", [False, True], ids=["inside", "with padding"])


def images(shape=(2, 3, 7, 8), dtype=torch.float64, seed=0):
    return random_numbers(shape, dtype, seed)


def positions(start, size, length, padding, counted):
    """Of a window along one axis, those inside the map, and how many count."""
    end = min(start + size, length + padding)
    inside = range(max(start, 0), min(end, length))
    return inside, end - start if counted else len(inside)


def in_loops(input, weight, window, counted, eps=1e-6):
    """What the paper says, window by window: the zeros of the padding are elements or not."""
    size, stride, padding, ceil_mode = window
    shape = nn.MaxPool2d(size, stride, padding, ceil_mode=ceil_mode)(input).shape
    x = input.detach().double().numpy()
    weight = weight.detach().double().expand(shape).numpy()
    output = np.empty(shape)
    for n, c, i, j in itertools.product(*map(range, shape)):
        places, numbers = zip(
            *(
                positions(k * stride[axis] - padding[axis], size[axis], x.shape[2 + axis],
                          padding[axis], counted)
                for axis, k in enumerate((i, j))
            ),
            strict=True,
        )  # fmt: skip
        elements = [x[n, c, row, column] for row in places[0] for column in places[1]]
        elements += [0.0] * (math.prod(numbers) - len(elements))
        mean = math.fsum(elements) / len(elements)
        variance = math.fsum((element - mean) ** 2 for element in elements) / len(elements)
        output[n, c, i, j] = mean + weight[n, c, i, j] * math.sqrt(max(variance, eps))
    return torch.from_numpy(output)


@each_window
@each_counting
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_formula(window, counted, layout):
    input = images().contiguous(memory_format=layout)
    weight = images((2, 3, 1, 1), seed=1)
    output = gaussian_pool2d(input, weight, *window, count_include_pad=counted)
    expected = in_loops(input, weight, window, counted)
    torch.testing.assert_close(output, expected, rtol=1e-13, atol=1e-13)
    assert output.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 3, 1, 1), (2, 3, 1, 1), (2, 3, 3, 4), (2, 1, 1, 1)]
)
def test_layouts_of_the_weight(shape):
    weight = images(shape, seed=1)
    expected = in_loops(images(), weight, WINDOWS["disjoint"], False)
    torch.testing.assert_close(gaussian_pool2d(images(), weight, 2), expected)


@each_window
@each_counting
def test_gradients(window, counted):
    def pool(input, weight):
        return gaussian_pool2d(input, weight, *window, count_include_pad=counted)

    assert torch.autograd.gradcheck(
        pool, (images((1, 2, 5, 6)).requires_grad_(), images((1, 2, 1, 1), seed=1).requires_grad_())
    )


def test_variance_below_the_floor_is_a_constant():
    """σ = 1e-3: the weight counts, the elements' differences do not."""
    input = (5 + 1e-4 * images((1, 1, 2, 2))).requires_grad_()
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    output = gaussian_pool2d(input, weight, 2)
    torch.testing.assert_close(output, input.mean().reshape(1, 1, 1, 1) + 2e-3)
    output.sum().backward()
    torch.testing.assert_close(input.grad, torch.full_like(input, 0.25))
    torch.testing.assert_close(weight.grad, torch.tensor(1e-3, dtype=torch.float64))


def test_far_from_zero_the_digits_stay():
    """Where the mean square less the squared mean has none left."""
    input = 1e4 + images((2, 3, 8, 8), torch.float32)
    weight = torch.ones(1)
    expected = in_loops(input, weight, WINDOWS["disjoint"], False)
    torch.testing.assert_close(
        gaussian_pool2d(input, weight, 2).double(), expected, rtol=2e-7, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    input = images((2, 3, 8, 8), dtype)
    expected = gaussian_pool2d(input.float(), 0.5, 2).to(dtype)
    assert torch.equal(gaussian_pool2d(input, 0.5, 2), expected)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "input must be", ("x", 1.0, 2)),
        (ValueError, "weight of shape", (images(), images((7, 1, 1)), 2)),
        (ValueError, "at most half", (images(), 1.0, 2, 2, 2)),
    ],
)
def test_bad_arguments_are_named(error, message, arguments):
    with pytest.raises(error, match=message):
        gaussian_pool2d(*arguments)


# ---------------------------------------------------------------- the guided layer


def layer_with_random_tensors(**options):
    layer = GFGPGaussianPool2d(6, 3, 2, 1, dtype=torch.float64, **options)
    for seed, tensor in enumerate(layer.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(random_numbers(tensor.shape, tensor.dtype, seed).abs() + 0.1)
    return layer


def normalized(x, norm, training):
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean, variance = x.mean(0), x.var(0, unbiased=False)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def head_by_hand(layer, input, training):
    """M and S [N, C, 1, 1]."""
    head = layer.head

    def step(x, conv, norm):
        return normalized(x @ conv.weight.flatten(1).T + conv.bias, norm, training)

    hidden = step(input.mean((2, 3)), head.conv1, head.norm1).clamp(min=0)
    mean = step(hidden, *head.mean[:2])
    deviation = 1 / (1 + (-step(hidden, *head.deviation[:2])).exp())
    return mean[:, :, None, None], deviation[:, :, None, None]


def softplus(x):
    return (1 + x.exp()).log()


@pytest.mark.parametrize("stochasticity", ["CN", "HWCN", None])
def test_weight_in_training(stochasticity):
    layer = layer_with_random_tensors(stochasticity=stochasticity)
    input = images((4, 6, 8, 8))
    mean, deviation = head_by_hand(layer, input, training=True)
    torch.manual_seed(0)
    output = layer(input)
    torch.manual_seed(0)
    shape = {"CN": (4, 6, 1, 1), "HWCN": (4, 6, 4, 4), None: (0,)}[stochasticity]
    noise = torch.randn(shape, dtype=torch.float64)
    weight = softplus(mean if stochasticity is None else mean + deviation * noise)
    expected = in_loops(input, weight, WINDOWS["overlapping"], False)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stochasticity", ["CN", "HWCN", None])
def test_weight_in_evaluation(stochasticity):
    layer = layer_with_random_tensors(stochasticity=stochasticity).eval()
    input = images((4, 6, 8, 8))
    mean, _ = head_by_hand(layer, input, training=False)
    state = torch.random.get_rng_state()
    output = layer(input)
    assert torch.equal(torch.random.get_rng_state(), state)
    expected = in_loops(input, softplus(mean), WINDOWS["overlapping"], False)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer(input[1]), output[1])


def test_no_noise_leaves_the_deviations_statistics():
    layer = layer_with_random_tensors(stochasticity=None)
    layer(images((4, 6, 8, 8)))
    assert layer.head.mean.norm.num_batches_tracked == 1
    assert layer.head.deviation.norm.num_batches_tracked == 0


def test_backward_reaches_the_whole_head():
    layer = layer_with_random_tensors(stochasticity="HWCN")
    layer(images((4, 6, 8, 8))).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_under_autocast_the_head_keeps_its_type():
    layer = layer_with_random_tensors().float().eval()
    input = images((4, 6, 8, 8), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(input)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, layer(input.float()).bfloat16())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stochasticity": "NC"}, "stochasticity must be 'HWCN', 'CN' or None, got 'NC'"),
        ({"hidden_features": 0}, "hidden_features must be at least 1"),
        ({"padding": 2}, "at most half"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GFGPGaussianPool2d(6, 2, **options)


def test_a_training_batch_of_one_sample_is_refused():
    layer = GFGPGaussianPool2d(6, 2)
    with pytest.raises(ValueError, match="batch of one sample"):
        layer(torch.ones(1, 6, 4, 4))
    with pytest.raises(ValueError, match="num_features = 6"):
        layer(torch.ones(2, 5, 4, 4))


def test_reset_draws_the_whole_head_anew():
    layer = layer_with_random_tensors()
    before = {name: p.clone() for name, p in layer.named_parameters()}
    layer.reset_parameters()
    for name, parameter in layer.named_parameters():
        assert not torch.equal(parameter, before[name]), name
