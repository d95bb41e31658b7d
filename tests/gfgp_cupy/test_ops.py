"""The registered operators: their schemas and their shape-only versions are true."""

import itertools

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gfgp_cupy import use_backend
from gfgp_cupy.functional import max_ent_pool2d
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers

GEOMETRY = ((3, 3), (2, 2), (1, 1), True, "torch")
CHECKS = ("test_schema", "test_faketensor")


@pytest.fixture(params=["contiguous", "channels_last"])
def tensors(request):
    input = arranged(random_numbers((2, 3, 8, 6), torch.float32, 0), request.param)
    return input, torch.ones(2, 3, 1, 1), torch.ones(2, 3, 5, 4)


def test_forward(tensors):
    input, lam, _ = tensors
    operator = torch.ops.gfgp_cupy.max_ent_pool2d.default
    torch.library.opcheck(operator, (input, lam, *GEOMETRY), test_utils=CHECKS)


@pytest.mark.parametrize("needed", [*itertools.product((True, False), repeat=2)], ids=str)
def test_backward(tensors, needed):
    input, lam, grad_output = tensors
    operator = torch.ops.gfgp_cupy.max_ent_pool2d_backward.default
    arguments = (grad_output, input, lam, *GEOMETRY, needed)
    torch.library.opcheck(operator, arguments, test_utils=CHECKS)


# Every call goes through PyTorch's dispatcher: what hooks into that sees the operator.


class Seen(TorchDispatchMode):
    """Counts the calls of an operator."""

    def __init__(self, operator):
        super().__init__()
        self.operator, self.count = operator, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is self.operator
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_modes_and_profilers_see_the_operator(requires_grad, tensors):
    input, lam, _ = tensors
    input.requires_grad_(requires_grad)
    with Seen(torch.ops.gfgp_cupy.max_ent_pool2d.default) as seen:
        max_ent_pool2d(input, lam, 3)
    assert seen.count == 1
    profile = torch.autograd.profiler.profile()
    with profile:
        max_ent_pool2d(input, lam, 3)
    assert "gfgp_cupy::max_ent_pool2d" in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("which", ["input", "lam"])
def test_numbers_yet_to_be_negated(which, tensors):
    """PyTorch's dispatcher negates them before an operator reads memory."""
    input, lam, _ = tensors
    both = {"input": input, "lam": lam}
    both[which] = torch.ops.aten._neg_view(both[which])
    assert both[which].is_neg()
    with use_backend("numba"):
        actual = max_ent_pool2d(**both, kernel_size=3)
        expected = max_ent_pool2d(
            **{name: tensor.resolve_neg() for name, tensor in both.items()}, kernel_size=3
        )
    assert torch.equal(actual, expected)


class Pooling(torch.nn.Module):
    def __init__(self, lam):
        super().__init__()
        self.lam = lam

    def forward(self, x):
        return max_ent_pool2d(x, self.lam, 3)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_function_computes(requires_grad, tensors):
    input, lam, _ = tensors
    traced = torch.jit.trace_module(
        Pooling(lam), {"forward": (input.clone().requires_grad_(requires_grad),)}
    )
    torch.testing.assert_close(traced(2 * input), max_ent_pool2d(2 * input, lam, 3))


def test_fake_tensors_stay_fake():
    with FakeTensorMode():
        output = max_ent_pool2d(torch.empty(2, 3, 8, 6), torch.ones(1, 1, 1, 1), 2)
    assert isinstance(output, FakeTensor)
    assert output.shape == (2, 3, 4, 3)
