"""DenseNet with exchangeable pooling.

DenseNet: Huang et al., CVPR 2017. The placement of the poolings: Kobayashi, ICCV 2019,
https://github.com/tk1980/GFGP.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from models.initialization import reset_convolutions
from models.network import Network
from models.pooling import create_pooling

BOTTLENECK_WIDTH = 4  # channels of a layer's 1×1 convolution, in growth rates


class DenseLayer(nn.Sequential):
    """[N, C, H, W] -> [N, C + growth_rate, H, W]: the input, then the new channels."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        width = BOTTLENECK_WIDTH * growth_rate
        super().__init__(
            OrderedDict(
                norm1=nn.BatchNorm2d(in_channels),
                relu1=nn.ReLU(inplace=True),
                conv1=nn.Conv2d(in_channels, width, 1, bias=False),
                norm2=nn.BatchNorm2d(width),
                relu2=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(width, growth_rate, 3, padding=1, bias=False),
            )
        )

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([input, super().forward(input)], dim=1)


def dense_block(in_channels: int, growth_rate: int, depth: int) -> nn.Sequential:
    """[N, C, H, W] -> [N, C + depth * growth_rate, H, W]."""
    return nn.Sequential(
        OrderedDict(
            (f"denselayer{i + 1}", DenseLayer(in_channels + i * growth_rate, growth_rate))
            for i in range(depth)
        )
    )


def transition(in_channels: int, out_channels: int, pool: str) -> nn.Sequential:
    """[N, in_channels, H, W] -> [N, out_channels, H / 2, W / 2]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        norm=nn.BatchNorm2d(in_channels), relu=nn.ReLU(inplace=True)
    )
    if pool == "skip":
        layers["conv"] = nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False)
    else:
        layers["conv"] = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        layers["norm2"] = nn.BatchNorm2d(out_channels)
        layers["relu2"] = nn.ReLU(inplace=True)
        layers["pool"] = create_pooling(pool, out_channels, kernel_size=2, stride=2)
    return nn.Sequential(layers)


def stem(channels: int, pool: str) -> OrderedDict[str, nn.Module]:
    """The layers [N, 3, H, W] -> [N, channels, H / 4, W / 4], by name.

    ``avg`` keeps DenseNet's own stem, which ends in a max pooling.
    """
    conv_stride = {"avg": 2, "skip": 4}.get(pool, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=nn.Conv2d(3, channels, 7, conv_stride, padding=3, bias=False),
        norm0=nn.BatchNorm2d(channels),
        relu0=nn.ReLU(inplace=True),
    )
    if pool == "avg":
        layers["pool0"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    elif pool != "skip":
        layers["pool00"] = create_pooling(pool, channels, kernel_size=2, stride=2)
        layers["pool0"] = create_pooling(pool, channels, kernel_size=3, stride=2, padding=1)
    return layers


class DenseNet(Network):
    """A densely connected network (DenseNet-BC): images [N, 3, H, W] -> logits [N, num_classes].

    Args:
        growth_rate: channels that each layer adds.
        depths: layers in each dense block.
        stem_channels: channels of the first convolution.
        pool: one of ``models.pooling.POOL_TYPES``.
        num_classes: length of the logits.
    """

    def __init__(
        self,
        growth_rate: int,
        depths: tuple[int, int, int, int],
        stem_channels: int,
        pool: str,
        num_classes: int,
    ) -> None:
        super().__init__()
        layers = stem(stem_channels, pool)
        channels = stem_channels
        for i, depth in enumerate(depths, start=1):
            layers[f"denseblock{i}"] = dense_block(channels, growth_rate, depth)
            channels += depth * growth_rate
            if i < len(depths):
                layers[f"transition{i}"] = transition(channels, channels // 2, pool)
                channels //= 2
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        reset_convolutions(self)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.features(x))
        return self.classifier(torch.flatten(self.avgpool(x), 1))


NETWORKS: dict[str, Callable[..., Network]] = {
    "densenet121": partial(DenseNet, 32, (6, 12, 24, 16), 64),
    "densenet161": partial(DenseNet, 48, (6, 12, 36, 24), 96),
    "densenet169": partial(DenseNet, 32, (6, 12, 32, 32), 64),
    "densenet201": partial(DenseNet, 32, (6, 12, 48, 32), 64),
}
