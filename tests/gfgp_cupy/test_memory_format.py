"""Outputs and gradients lie in memory as those of PyTorch's poolings do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gfgp_cupy import ops, use_backend
from gfgp_cupy.functional import guided_max_ent_pool2d, max_ent_pool2d
from gfgp_cupy.memory_format import layout_of
from gfgp_cupy.poolings import create_pooling, list_poolings
from tests.support.implementations import each_backend

CHANNELS_LAST = torch.channels_last
SHAPES = (
    (2, 6, 8, 8), (1, 6, 8, 8), (2, 1, 8, 8), (2, 6, 2, 2), (2, 6, 8, 2), (1, 1, 2, 2),
    (0, 6, 8, 8),
)  # fmt: skip


def last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=CHANNELS_LAST)


# Of a tensor with twice the channels and the columns.
INPUTS = {
    "contiguous": lambda wide, c, w: wide[:, :c, :, :w].contiguous(),
    "channels_last": lambda wide, c, w: last(wide[:, :c, :, :w].contiguous()),
    "first channels": lambda wide, c, w: last(wide[..., :w])[:, :c],
    "last channels": lambda wide, c, w: last(wide[..., :w]).chunk(2, 1)[1],
    "every other channel": lambda wide, c, w: last(wide[..., :w])[:, ::2],
    "every other column": lambda wide, c, w: last(wide[:, :c])[..., ::2],
    "contiguous, every other channel": lambda wide, c, w: wide[:, ::2, :, :w],
    "contiguous, every other column": lambda wide, c, w: wide[:, :c, :, ::2],
    "transposed": lambda wide, c, w: (
        wide[:, :c, :, :w].transpose(2, 3).contiguous().transpose(2, 3)
    ),
    "expanded": lambda wide, c, w: wide[:, :1, :, :w].expand(-1, c, -1, -1),
}
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_window = pytest.mark.parametrize("window", [(2,), (3, 2, 1)], ids=["disjoint", "overlapping"])


def arranged(arrange, shape, device="cpu", dtype=torch.float32) -> Tensor:
    samples, channels, height, width = shape
    wide = torch.randn(samples, 2 * channels, height, 2 * width, dtype=dtype, device=device)
    return arrange(wide, channels, width).requires_grad_()


def strides(pool, input: Tensor, grad_output: Tensor | None = None):
    """Of the output and of the input's gradient."""
    output = pool(input)
    if grad_output is None:
        grad_output = torch.ones(output.shape, dtype=output.dtype, device=output.device)
    (grad_input,) = torch.autograd.grad(output, input, grad_output)
    return output.stride(), grad_input.stride()


# ---------------------------------------------------------------- Max-Ent pooling


@each_shape
def test_layout_is_the_one_pytorch_suggests(shape):
    for name, arrange in INPUTS.items():
        input = arranged(arrange, shape)
        pooled = F.max_pool2d(input, 1)
        suggested = torch.empty_like(pooled, memory_format=layout_of(input))
        assert pooled.stride() == suggested.stride(), name


@each_backend
@each_shape
@each_window
def test_strides_are_those_of_max_pooling(backend, window, shape):
    for name, arrange in INPUTS.items():
        input = arranged(arrange, shape, backend.device)
        expected = strides(lambda input: F.max_pool2d(input, *window), input)
        with use_backend(backend.name):
            pooled = strides(lambda input: max_ent_pool2d(input, 1.0, *window), input)
            guided = strides(lambda input: guided_max_ent_pool2d(input, torch.tanh, *window), input)
        assert pooled == expected, name
        assert guided == expected, name


@each_backend
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fake_tensors_have_the_strides_of_real_ones(backend, dtype, shape):
    def run(input):
        lam = torch.ones(1, 1, 1, 1, device=backend.device)
        arguments = (input, lam, (3, 3), (2, 2), (1, 1), False, backend.name)
        outputs = ops.max_ent_pool2d(*arguments), *ops.max_ent_pool2d_with_spread(*arguments)
        gradients = ops.max_ent_pool2d_backward(outputs[0], *arguments, (True, True))
        return [(t.shape, t.stride(), t.dtype) for t in (*outputs, *gradients)]

    for name, arrange in INPUTS.items():
        input = arranged(arrange, shape, backend.device, dtype).detach()
        with FakeTensorMode() as mode:
            expected = run(mode.from_tensor(input))
        assert run(input) == expected, name


@each_backend
@each_window
def test_format_of_a_gradient_that_is_derived_again(backend, window):
    for name, arrange in INPUTS.items():
        input = arranged(arrange, SHAPES[0], backend.device)
        with use_backend(backend.name):
            output = max_ent_pool2d(input, 1.0, *window)
        (gradient,) = torch.autograd.grad(output.sum(), input, create_graph=True)
        assert gradient.is_contiguous(memory_format=layout_of(input)), name


# ---------------------------------------------------------------- every pooling


@pytest.mark.parametrize("pool", list_poolings())
@pytest.mark.parametrize("arrange", list(INPUTS.values())[:-2], ids=list(INPUTS)[:-2])
@each_window
def test_every_pooling_keeps_the_memory_format(pool, window, arrange):
    layer = create_pooling(pool, 6, *window)
    input = arranged(arrange, SHAPES[0])
    actual = strides(layer, input)
    assert actual == strides(lambda input: F.max_pool2d(input, *window), input)
