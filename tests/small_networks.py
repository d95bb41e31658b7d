"""The published networks with one block a stage, or two: every kind of layer and connection they
have, in a fraction of the time that compilers and exporters take for the whole."""

from torch import nn

from models.densenet import DenseNet
from models.resnet import BasicBlock, ResNet, resnet_stem

__all__ = ["small_densenet", "small_resnet"]


def small_resnet() -> nn.Module:
    return ResNet(BasicBlock, (1, 1, 1, 1), resnet_stem, pool="max_ent", num_classes=10)


def small_densenet() -> nn.Module:
    return DenseNet(8, (2, 2, 2, 2), 16, pool="max_ent", num_classes=10)
