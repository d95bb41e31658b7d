"""Mixed precision: the pooling keeps its input's type, λ is float32, and training works."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, use_backend
from gfgp_cupy.functional import guided_max_ent_pool2d, max_ent_pool2d
from gfgp_cupy.poolings import gated_pool2d
from models import create_model
from tests.support.implementations import each_backend
from tests.support.random_numbers import random_numbers

each_half = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)


def images(shape=(8, 6, 8, 8), dtype=torch.float32, device="cpu"):
    # As behind a ReLU: a mean well above zero, differences between samples much smaller.
    return random_numbers(shape, torch.float32, 0).relu().to(device, dtype)


@each_backend
@each_half
def test_operator_runs_in_the_type_of_its_input(backend, half):
    lam = torch.full((8, 6, 1, 1), 0.7, device=backend.device, requires_grad=True)
    for dtype in (half, torch.float32, torch.float64):
        input = images(dtype=dtype, device=backend.device).requires_grad_()
        with use_backend(backend.name):
            expected = max_ent_pool2d(input, lam, 3, 2, 1)
            with torch.autocast(backend.device, half):
                output = max_ent_pool2d(input, lam, 3, 2, 1)
        assert output.dtype == dtype
        assert torch.equal(output, expected)
        gradients = torch.autograd.grad(output.float().sum(), (input, lam))
        assert [gradient.dtype for gradient in gradients] == [dtype, torch.float32]


@each_backend
@each_half
@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("dtype", ["half", torch.float32], ids=str)
def test_lam_of_the_layer_is_float32(backend, half, requires_grad, dtype):
    pool = GFGPMaxEntPool2d(6, 2).to(backend.device)
    dtype = half if dtype == "half" else dtype
    input = images(dtype=dtype, device=backend.device).requires_grad_(requires_grad)
    expected = copy.deepcopy(pool).head(input.float().mean((2, 3), keepdim=True))
    seen = []
    pool.head.register_forward_hook(lambda module, inputs, lam: seen.append(lam))
    with use_backend(backend.name), torch.autocast(backend.device, half):
        output = pool(input)
    assert output.dtype == dtype
    assert seen[0].dtype == torch.float32
    # The training mode's BatchNorm divides by the small difference between samples: a mean or a
    # convolution that was rounded to a half type would be off by far more.
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-4)


@each_backend
@each_half
def test_gradients_of_the_layer(backend, half):
    def gradients(enabled):
        torch.manual_seed(0)
        pool = GFGPMaxEntPool2d(6, 2).to(backend.device)
        input = images(dtype=half, device=backend.device).requires_grad_()
        if not enabled:
            input = input.detach().float().requires_grad_()
        with use_backend(backend.name), torch.autocast(backend.device, half, enabled=enabled):
            output = pool(input)
        weights = images(output.shape).square().to(backend.device, output.dtype)
        wanted = (input, *(p for name, p in pool.named_parameters() if "bias" not in name))
        return torch.autograd.grad(output, wanted, weights)

    for actual, expected in zip(gradients(True), gradients(False), strict=True):
        error = (actual.float() - expected).norm() / expected.norm()
        assert error < 4 * torch.finfo(half).eps


@each_half
def test_head_of_a_half_type(half):
    pool = GFGPMaxEntPool2d(6, 2, dtype=half)
    with torch.autocast("cpu", half):
        for dtype in (half, torch.float32):
            assert pool(images(dtype=dtype)).dtype == dtype


@each_half
def test_compiled_layer(half):
    torch._dynamo.reset()
    pool = GFGPMaxEntPool2d(6, 2)
    compiled = torch.compile(copy.deepcopy(pool), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", half):
        torch.testing.assert_close(compiled(images(dtype=half)), pool(images(dtype=half)))


@each_backend
@pytest.mark.parametrize("guided", [True, False], ids=["guided", "function"])
def test_overflow_of_a_gradient_is_not_hidden_from_the_scaler(backend, guided):
    input = images(dtype=torch.float16, device=backend.device).requires_grad_()
    lam = torch.ones(8, 6, 1, 1, device=backend.device, requires_grad=True)
    with use_backend(backend.name):
        if guided:
            output = guided_max_ent_pool2d(input, lambda mean: lam * mean, 2)
        else:
            output = max_ent_pool2d(input, lam, 2)
    grad_output = torch.ones_like(output)
    grad_output[2, 3, 1, 1] = float("inf")
    for gradient in torch.autograd.grad(output, (input, lam), grad_output):
        finite = gradient.isfinite().flatten(2).all(2)
        assert not finite[2, 3]
        assert finite.sum() == finite.numel() - 1


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        GFGPMaxEntPool2d(8, 3, 2, 1),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


@each_backend
@each_half
def test_training_with_a_gradient_scaler(backend, half):
    network = small_network().to(backend.device)
    input = images((16, 3, 10, 10), device=backend.device)
    target = torch.arange(16, device=backend.device) % 2
    # A scale whose gradients overflow in float16, hence a first step that must be left out.
    overflows = half is torch.float16
    scaler = torch.amp.GradScaler(backend.device, init_scale=2.0**30 if overflows else 2.0**8)
    network(input)  # gives the lazy layer its size
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(25):
        before = [parameter.clone() for parameter in network.parameters()]
        scale = scaler.get_scale()
        with use_backend(backend.name), torch.autocast(backend.device, half):
            loss = F.cross_entropy(network(input), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        skipped = scaler.get_scale() < scale
        assert skipped == all(map(torch.equal, before, network.parameters()))
        overflows, first = False, overflows
        assert skipped or not first
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.isfinite().all() for parameter in network.parameters())


@each_half
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_network_stays_close_to_float32(half, training):
    network = create_model("resnet18", pool="max_ent", num_classes=10).train(training)
    input = random_numbers((4, 3, 64, 64), torch.float32, 0)
    with torch.no_grad():
        expected = copy.deepcopy(network)(input)
        with torch.autocast("cpu", half):
            output = network(input)
    assert output.dtype == half
    error = (output.float() - expected).norm() / expected.norm()
    # Some twenty layers, each of which rounds a few times.
    assert error < 16 * torch.finfo(half).eps


def test_a_head_without_parameters_is_given_the_mean_as_it_is():
    given = []

    class Head(nn.Module):
        def forward(self, mean):
            given.append(mean.dtype)
            return mean.sigmoid()

    pool = GFGPMaxEntPool2d(3, 2)
    pool.head = Head()
    x = random_numbers((2, 3, 4, 4), torch.float32, 0)
    with torch.autocast("cpu", torch.bfloat16):
        output = pool(x)
        pool(x.bfloat16())
    torch.testing.assert_close(output, pool(x))
    assert given == [torch.float32] * 3


def test_replicas_of_data_parallel():
    """Whose parameters are attributes. (On a CPU DataParallel makes none.)"""
    pool = GFGPMaxEntPool2d(3, 2).double().eval()
    replica = copy.deepcopy(pool)
    for module in replica.modules():
        module._former_parameters = dict(module._parameters)
        module._parameters = {}
        for name, parameter in module._former_parameters.items():
            object.__setattr__(module, name, parameter)
    x = random_numbers((2, 3, 4, 4), torch.float32, 0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(replica(x), pool(x))


def test_gates_are_computed_in_float32():
    x, weight = (random_numbers(shape, torch.float32, 0) for shape in ((2, 3, 8, 8), (1, 3, 2, 2)))
    expected = gated_pool2d(x, weight, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gated_pool2d(x, weight, 2), expected)
