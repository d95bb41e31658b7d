"""ResNet and ResNeXt, and their ResNetP and ResNeXtP variants, with exchangeable pooling.

ResNet: He et al., CVPR 2016. ResNeXt: Xie et al., CVPR 2017. The placement of the poolings,
and the variants named with a P: Kobayashi, ICCV 2019, https://github.com/tk1980/GFGP.

Without ``skip``, no convolution has a stride: where ResNet would stride, a pooling follows.
The P variants differ from the others in their stem alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.initialization import reset_convolutions
from models.network import Network
from models.pooling import create_pooling

STEM_CHANNELS = 64


class ResidualBlock(nn.Module):
    """relu(residual(x) + downsample(x)), then a pooling where the block strides.

    [N, in_channels, H, W] -> [N, planes * expansion, H / stride, W / stride]. A subclass defines
    ``expansion``, the residual branch's layers, its 3×3 convolutions ``width`` channels wide and
    in so many ``groups``, and ``residual``.
    """

    expansion: int

    def __init__(
        self, in_channels: int, planes: int, width: int, groups: int, stride: int, pool: str
    ) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        conv_stride = stride if pool == "skip" else 1
        # In the published order, which the tensors of a checkpoint follow.
        self.add_residual_layers(in_channels, planes, width, groups, conv_stride)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, conv_stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.pooling: nn.Module = nn.Identity()
        if stride > 1:
            self.pooling = create_pooling(pool, out_channels, kernel_size=stride, stride=stride)

    def add_residual_layers(
        self, in_channels: int, planes: int, width: int, groups: int, stride: int
    ) -> None:
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out = self.residual(x)
        out += self.downsample(x)
        return self.pooling(self.relu(out))


class BasicBlock(ResidualBlock):
    """Two 3×3 convolutions, the first of which strides under ``skip``."""

    expansion = 1

    def add_residual_layers(
        self, in_channels: int, planes: int, width: int, groups: int, stride: int
    ) -> None:
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, planes, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """1×1, 3×3 and 1×1 convolutions, the second of which strides under ``skip``."""

    expansion = 4

    def add_residual_layers(
        self, in_channels: int, planes: int, width: int, groups: int, stride: int
    ) -> None:
        out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


@dataclass(frozen=True)
class Stem:
    """What reduces the image by four before the first stage."""

    conv_stride: int
    pool1: nn.Module
    pool: nn.Module


def resnet_stem(pool: str) -> Stem:
    """ResNet's stem: under ``skip`` a strided convolution and a max pooling, else two poolings."""
    if pool == "skip":
        return Stem(2, nn.Identity(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    return Stem(
        1,
        create_pooling(pool, STEM_CHANNELS, kernel_size=2, stride=2),
        create_pooling(pool, STEM_CHANNELS, kernel_size=3, stride=2, padding=1),
    )


def resnetp_stem(pool: str) -> Stem:
    """ResNetP's stem: under ``skip`` a convolution of stride 4, else one 4×4 pooling."""
    if pool == "skip":
        return Stem(4, nn.Identity(), nn.Identity())
    return Stem(1, nn.Identity(), create_pooling(pool, STEM_CHANNELS, kernel_size=4, stride=4))


class ResNet(Network):
    """A residual network: images [N, 3, H, W] -> logits [N, num_classes].

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        depths: blocks in each of the four stages.
        make_stem: ``resnet_stem`` or ``resnetp_stem``.
        pool: one of ``models.pooling.POOL_TYPES``.
        num_classes: length of the logits.
        groups: groups of the 3×3 convolutions (ResNeXt's cardinality).
        width_per_group: channels of each group's 3×3 convolutions in the first stage.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        make_stem: Callable[[str], Stem],
        pool: str,
        num_classes: int,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        stem = make_stem(pool)
        # In the published order, which has the first pooling before the norm.
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 7, stem.conv_stride, padding=3, bias=False)
        self.pool1 = stem.pool1
        if isinstance(stem.pool1, nn.Identity):
            self.pool = stem.pool
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.pool = stem.pool

        channels = STEM_CHANNELS
        stages = []
        for planes, depth, stride in zip((64, 128, 256, 512), depths, (1, 2, 2, 2), strict=True):
            width = groups * width_per_group * planes // 64
            make_block = partial(block, planes=planes, width=width, groups=groups, pool=pool)
            blocks = [make_block(channels, stride=stride)]
            channels = planes * block.expansion
            blocks += [make_block(channels, stride=1) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        reset_convolutions(self, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.pool(self.pool1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


NETWORKS: dict[str, Callable[..., Network]] = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2), resnet_stem),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3), resnet_stem),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3), resnet_stem),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3), resnet_stem),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3), resnet_stem),
    "resnext50_32x4d": partial(
        ResNet, Bottleneck, (3, 4, 6, 3), resnet_stem, groups=32, width_per_group=4
    ),
    "resnext101_32x8d": partial(
        ResNet, Bottleneck, (3, 4, 23, 3), resnet_stem, groups=32, width_per_group=8
    ),
    "resnetp18": partial(ResNet, BasicBlock, (2, 2, 2, 2), resnetp_stem),
    "resnetp34": partial(ResNet, BasicBlock, (3, 4, 6, 3), resnetp_stem),
    "resnetp50": partial(ResNet, Bottleneck, (3, 4, 6, 3), resnetp_stem),
    "resnetp101": partial(ResNet, Bottleneck, (3, 4, 23, 3), resnetp_stem),
    "resnetp152": partial(ResNet, Bottleneck, (3, 8, 36, 3), resnetp_stem),
    "resnextp50_32x4d": partial(
        ResNet, Bottleneck, (3, 4, 6, 3), resnetp_stem, groups=32, width_per_group=4
    ),
    "resnextp101_32x8d": partial(
        ResNet, Bottleneck, (3, 4, 23, 3), resnetp_stem, groups=32, width_per_group=8
    ),
}
