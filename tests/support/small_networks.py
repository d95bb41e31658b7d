"""Networks that take compilers and exporters a fraction of the published ones' time: those with one
block a stage, or two, and so every kind of layer and connection they have; a plain one; and a
module of any function."""

from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d
from models.densenet import DenseNet
from models.resnet import BasicBlock, ResNet, resnet_stem

__all__ = ["Lambda", "plain_network", "small_densenet", "small_resnet"]


class Lambda(nn.Module):
    """A module of a function of the module and its input."""

    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x):
        return self.function(self, x)


def small_resnet() -> nn.Module:
    return ResNet(BasicBlock, (1, 1, 1, 1), resnet_stem, pool="max_ent", num_classes=10)


def small_densenet() -> nn.Module:
    return DenseNet(8, (2, 1, 1, 1), 16, pool="max_ent", num_classes=10)


def plain_network() -> nn.Module:
    """Both kinds of windows, each between convolutions, one of them guided."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), GFGPMaxEntPool2d(8, 3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), MaxEntPool2d(2, num_features=8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
