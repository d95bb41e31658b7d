"""The networks that are compared: small ones, the same but for their poolings."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from experiments.pooling_study.poolings import POOLINGS
from gfgp_cupy import replace_pooling
from models.initialization import reset_convolutions
from models.resnet import BasicBlock
from training.images.fashion_mnist import CLASSES
from training.seeding import derive_seed

BAG_OF_WORDS = 4  # times the channels of the last stage


def create_network(name: str, width: int, pooling: str, seed: int) -> nn.Module:
    """Return the network ``name``, one of ``NETWORKS``, under ``pooling``, one of ``POOLINGS``.

    All but the poolings' own tensors start from the same weights under every pooling.

    Args:
        name, pooling, seed: of the run.
        width: channels of the first stage.
    """
    make = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        network = make(width, "skip" if pooling == "skip" else "max")
        torch.manual_seed(derive_seed(seed, "heads"))
        make_pooling = POOLINGS[pooling].make
        if make_pooling is not None:
            replace_pooling(network, make_pooling, sample_shape=(2, 1, 64, 64))
    return network


def small_cnn(width: int, pool: str) -> nn.Sequential:
    """The published VGG-bow shape in small: three stages of two 3×3 convolutions, each pooled.

    Stages of ``width``, twice and four times as many channels; a 1×1 convolution to 16 times as
    many, whose mean over the map is classified. Under ``skip`` the stages' second convolutions
    stride.
    """
    layers: list[nn.Module] = []
    channels = 1
    for stage in range(3):
        planes = width * 2**stage
        layers += unit(channels, planes, 3)
        layers += unit(planes, planes, 3, stride=2 if pool == "skip" else 1)
        layers += [] if pool == "skip" else [nn.MaxPool2d(2)]
        channels = planes
    layers += unit(channels, BAG_OF_WORDS * channels, 1)
    return classified(layers, BAG_OF_WORDS * channels)


def resnet18(width: int, pool: str) -> nn.Sequential:
    """ResNet-18 for small images: a stem of one 3×3 convolution and one pooling, four stages.

    The stages have ``width``, twice, four and eight times as many channels; where ResNet strides, a
    pooling stands behind the block, as published (``models.resnet``).
    """
    layers = unit(1, width, 3, stride=2 if pool == "skip" else 1)
    layers += [] if pool == "skip" else [nn.MaxPool2d(2)]
    channels = width
    for stage in range(4):
        planes = width * 2**stage
        block = partial(BasicBlock, planes=planes, width=planes, groups=1, pool=pool)
        layers += [block(channels, stride=1 if stage == 0 else 2), block(planes, stride=1)]
        channels = planes
    return classified(layers, channels)


NETWORKS: dict[str, Callable[[int, str], nn.Sequential]] = {
    "small_cnn": small_cnn,
    "resnet18": resnet18,
}


def unit(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def classified(layers: list[nn.Module], channels: int) -> nn.Sequential:
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES))
    )
    reset_convolutions(network, mode="fan_out", nonlinearity="relu")
    return network
