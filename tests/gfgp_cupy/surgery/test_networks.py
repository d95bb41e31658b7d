"""replace_pooling on the networks that people have: torchvision's and timm's."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling
from gfgp_cupy.surgery import Replacement


def vision(name, **options) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=4, **options)


def timms(name, **options) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=4, **options)


@dataclass(frozen=True)
class Network:
    """A network, and how many poolings and convolutions of stride 2 it has to replace."""

    make: Callable[[], nn.Module]
    poolings: int
    strided_convs: int
    size: int = 64


NETWORKS = {
    "torchvision resnet18": Network(vision("resnet18"), 1, 7),
    "torchvision vgg11_bn": Network(vision("vgg11_bn", init_weights=False), 5, 0, size=32),
    "torchvision densenet121": Network(vision("densenet121"), 4, 1, size=32),
    "torchvision googlenet": Network(
        vision("googlenet", init_weights=False, aux_logits=True), 4, 1
    ),
    "torchvision squeezenet1_1": Network(vision("squeezenet1_1"), 3, 1),
    "torchvision shufflenet_v2_x0_5": Network(vision("shufflenet_v2_x0_5"), 1, 7),
    "torchvision convnext_tiny": Network(vision("convnext_tiny"), 0, 3),
    "torchvision efficientnet_b0": Network(vision("efficientnet_b0"), 0, 5),
    "timm resnet10t": Network(timms("resnet10t"), 4, 4),  # average poolings before a 1x1
    "timm resnet18": Network(timms("resnet18"), 1, 7),
    "timm densenet121": Network(timms("densenet121"), 4, 1, size=32),
    "timm dla46_c": Network(timms("dla46_c"), 6, 5),
    "timm hardcorenas_a": Network(timms("hardcorenas_a"), 0, 5),
    "timm convnext_atto": Network(timms("convnext_atto"), 0, 3),
    "timm efficientnet_lite0": Network(timms("efficientnet_lite0"), 0, 5),
}


def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output = model(x)
    return output if isinstance(output, torch.Tensor) else output.logits  # googlenet in training


def replaced(network: Network, strided_convs: bool) -> tuple[nn.Module, list[Replacement]]:
    model = network.make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model, replace_pooling(model, strided_convs=strided_convs)


# One each of residual, grouped and depthwise blocks, of concatenation, of auxiliary outputs and of
# average poolings; those of the others that have something to replace take their time.
OFTEN = {
    ("torchvision resnet18", True),
    ("torchvision googlenet", False),
    ("torchvision squeezenet1_1", False),
    ("torchvision shufflenet_v2_x0_5", True),
    ("timm resnet10t", True),
    ("timm dla46_c", True),
    ("timm convnext_atto", True),
}
CASES = [
    pytest.param(
        name,
        strided_convs,
        id=f"{name}{' strided_convs' * strided_convs}",
        marks=() if (name, strided_convs) in OFTEN or not changes else pytest.mark.slow,
    )
    for name, network in NETWORKS.items()
    for strided_convs in (False, True)
    if not strided_convs or network.strided_convs
    for changes in [network.poolings + strided_convs * network.strided_convs]
]


@pytest.mark.parametrize(("name", "strided_convs"), CASES)
def test_forward_backward_and_state_dict(name, strided_convs):
    network = NETWORKS[name]
    x = torch.randn(2, 3, network.size, network.size)
    if not strided_convs and network.poolings == 0:
        with pytest.warns(UserWarning, match="changed nothing"):
            assert replace_pooling(network.make()) == []
        return
    model, changes = replaced(network, strided_convs)
    assert len(changes) == network.poolings + strided_convs * network.strided_convs
    guided = [module for module in model.modules() if isinstance(module, GFGPMaxEntPool2d)]
    assert len(guided) == len(changes)
    logits(model, x).square().sum().backward()
    for name, parameter in model.named_parameters():
        # GoogLeNet's auxiliary classifiers take no part in this loss.
        assert name.startswith("aux") or parameter.grad is not None, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name

    twin, _ = replaced(network, strided_convs)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model.eval()(x)
        assert expected.shape == (2, 4)
        assert torch.equal(twin.eval()(x), expected)


def leaves(model: nn.Module) -> dict[str, str]:
    return {name: str(module) for name, module in model.named_modules() if not [*module.children()]}


@pytest.mark.parametrize("name", ["torchvision resnet18", "timm resnet18"])
def test_the_rest_of_a_network_is_as_it_was(name):
    model = NETWORKS[name].make()
    before = leaves(model)
    replace_pooling(model)
    assert isinstance(model.maxpool, GFGPMaxEntPool2d)
    del before["maxpool"]
    del model.maxpool
    assert leaves(model) == before


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(vision("resnet18"), id="torchvision resnet18"),
        pytest.param(vision("resnet50"), id="torchvision resnet50", marks=pytest.mark.slow),
        pytest.param(vision("densenet121"), id="torchvision densenet121", marks=pytest.mark.slow),
        pytest.param(timms("resnet50"), id="timm resnet50", marks=pytest.mark.slow),
    ],
)
def test_ten_steps_of_training(make):
    model = make()
    replace_pooling(model)
    heads = [module.head for module in model.modules() if isinstance(module, GFGPMaxEntPool2d)]
    before = [head.conv2.weight.clone() for head in heads]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    images, targets = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[5:]) < min(losses[:3])
    assert losses[-1] < 0.5 * losses[0]
    for head, weight in zip(heads, before, strict=True):
        assert not torch.equal(head.conv2.weight, weight)
