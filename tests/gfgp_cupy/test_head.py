"""The head that predicts a pooling's parameter: float32 in it means float32, on any GPU."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gfgp_cupy.head import PointConv2d, gfgp_head
from gfgp_cupy.poolings import create_pooling, list_poolings
from tests.support.random_numbers import random_numbers

POOLINGS = [name for name in list_poolings() if hasattr(create_pooling(name, 4, 2), "head")]
each_format = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=str
)


class OperatorNames(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(operator.__name__)
        return operator(*args, **(kwargs or {}))


def as_convolutions(head):
    """The same head by PyTorch's own convolutions."""
    head = copy.deepcopy(head)
    head.conv1.__class__ = head.conv2.__class__ = nn.Conv2d
    return head


@pytest.mark.parametrize("name", POOLINGS)
def test_no_head_calls_a_convolution(name):
    # Those of cuDNN compute float32 in TF32 by default; matrix products do not.
    head = create_pooling(name, 4, 2).head
    mean = random_numbers((3, 4, 1, 1), torch.float32, 0).requires_grad_()
    with OperatorNames() as operators:
        head(mean).sum().backward()
    assert operators.names.count("addmm.default") == 2
    assert not any("conv" in name for name in operators.names)


def test_every_guided_pooling_is_among_them():
    assert "max_ent" in POOLINGS
    assert {name for name in list_poolings() if name.startswith("gfgp_")} <= set(POOLINGS)


@each_format
def test_numbers_are_those_of_convolutions(memory_format):
    head = gfgp_head(6, nn.Softplus(), hidden_features=5, dtype=torch.float64)
    head = head.to(memory_format=memory_format)
    convolutions = as_convolutions(head)
    results = []
    for each in (head, convolutions):
        mean = random_numbers((4, 6, 1, 1), torch.float64, 0).requires_grad_()
        parameter = each(mean)
        (parameter * random_numbers((4, 6, 1, 1), torch.float64, 1)).sum().backward()
        gradients = [tensor.grad for tensor in each.parameters()]
        results.append([parameter, mean.grad, *gradients, *each.buffers()])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-13)


@each_format
def test_gradients_lie_in_memory_as_their_weights(memory_format):
    # DistributedDataParallel warns of others.
    head = gfgp_head(6, nn.Sigmoid()).to(memory_format=memory_format)
    head(random_numbers((4, 6, 1, 1), torch.float32, 0)).sum().backward()
    for conv in (head.conv1, head.conv2):
        assert conv.weight.grad.stride() == conv.weight.stride()


@pytest.mark.parametrize("shape", [(2, 6, 2, 1), (2, 6, 3, 3), (6, 1, 1), (2, 6)], ids=str)
def test_anything_but_means_is_refused(shape):
    with pytest.raises(ValueError, match=r"\[N, C, 1, 1\].*" + str(shape)[1:-1]):
        PointConv2d(6, 3, kernel_size=1)(torch.ones(shape))
