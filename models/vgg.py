"""VGG with exchangeable pooling, and its "bow" variant ("mod" in the paper).

VGG: Simonyan and Zisserman, ICLR 2015. The bow variant and the normalised classifier:
Kobayashi, ICCV 2019, https://github.com/tk1980/GFGP.

The bow variant puts a 1×1 convolution in place of the last pooling and averages its output
over the whole map (a bag of visual words), which leaves one hidden layer to the classifier.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from models.network import Network
from models.pooling import create_pooling

STAGE_CHANNELS = (64, 128, 256, 512, 512)
HIDDEN_FEATURES = 4096
NORM_EPS = 1e-4


def conv_layers(
    in_channels: int, out_channels: int, kernel_size: int, batch_norm: bool
) -> list[nn.Module]:
    """A convolution that keeps the map's size, its BatchNorm if any, and its ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    norm = [nn.BatchNorm2d(out_channels, eps=NORM_EPS)] if batch_norm else []
    return [conv, *norm, nn.ReLU(inplace=True)]


def hidden_layers(in_features: int, batch_norm: bool) -> list[nn.Module]:
    """A hidden layer of the classifier, its BatchNorm if any, and its ReLU."""
    linear = nn.Linear(in_features, HIDDEN_FEATURES)
    norm = [nn.BatchNorm1d(HIDDEN_FEATURES, eps=NORM_EPS)] if batch_norm else []
    return [linear, *norm, nn.ReLU(inplace=True)]


def stage_layers(
    in_channels: int, out_channels: int, depth: int, batch_norm: bool
) -> list[nn.Module]:
    """``depth`` 3×3 convolutions: [N, in_channels, H, W] -> [N, out_channels, H, W]."""
    layers = conv_layers(in_channels, out_channels, 3, batch_norm)
    for _ in range(depth - 1):
        layers += conv_layers(out_channels, out_channels, 3, batch_norm)
    return layers


def feature_layers(
    depths: tuple[int, int, int, int, int], bow: bool, batch_norm: bool, pool: str
) -> list[nn.Module]:
    """The five stages, each with its pooling; under ``bow`` a 1×1 convolution ends the last."""
    layers: list[nn.Module] = []
    in_channels = 3
    for stage, (channels, depth) in enumerate(zip(STAGE_CHANNELS, depths, strict=True), start=1):
        layers += stage_layers(in_channels, channels, depth, batch_norm)
        if bow and stage == len(depths):
            layers += conv_layers(channels, HIDDEN_FEATURES, 1, batch_norm)
        else:
            layers.append(create_pooling(pool, channels, kernel_size=2, stride=2))
        in_channels = channels
    return layers


class VGG(Network):
    """A VGG network: images [N, 3, H, W] -> logits [N, num_classes].

    Args:
        depths: 3×3 convolutions in each of the five stages.
        bow: the bow variant.
        batch_norm: normalise every convolution and hidden layer.
        pool: one of ``models.pooling.POOL_TYPES``; under ``skip`` the map keeps the image's
            size up to the last layers.
        num_classes: length of the logits.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int, int],
        bow: bool,
        batch_norm: bool,
        pool: str,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*feature_layers(depths, bow, batch_norm, pool))
        if bow:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            hidden = hidden_layers(HIDDEN_FEATURES, batch_norm)
        else:
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            hidden = hidden_layers(STAGE_CHANNELS[-1] * 7 * 7, batch_norm)
            hidden += hidden_layers(HIDDEN_FEATURES, batch_norm)
        self.classifier = nn.Sequential(*hidden, nn.Linear(HIDDEN_FEATURES, num_classes))
        self.reset_weights()

    def reset_weights(self) -> None:
        """Normal with standard deviation 0.01, zero bias, for every convolution and linear layer.

        The convolutions of the GFGP heads are among them.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


VGG11 = (1, 1, 2, 2, 2)
VGG13 = (2, 2, 2, 2, 2)
VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)

NETWORKS: dict[str, Callable[..., Network]] = {
    "vgg11orig": partial(VGG, VGG11, bow=False, batch_norm=False),
    "vgg11orig_bn": partial(VGG, VGG11, bow=False, batch_norm=True),
    "vgg11bow": partial(VGG, VGG11, bow=True, batch_norm=False),
    "vgg11bow_bn": partial(VGG, VGG11, bow=True, batch_norm=True),
    "vgg13orig": partial(VGG, VGG13, bow=False, batch_norm=False),
    "vgg13orig_bn": partial(VGG, VGG13, bow=False, batch_norm=True),
    "vgg13bow": partial(VGG, VGG13, bow=True, batch_norm=False),
    "vgg13bow_bn": partial(VGG, VGG13, bow=True, batch_norm=True),
    "vgg16orig": partial(VGG, VGG16, bow=False, batch_norm=False),
    "vgg16orig_bn": partial(VGG, VGG16, bow=False, batch_norm=True),
    "vgg16bow": partial(VGG, VGG16, bow=True, batch_norm=False),
    "vgg16bow_bn": partial(VGG, VGG16, bow=True, batch_norm=True),
    "vgg19orig": partial(VGG, VGG19, bow=False, batch_norm=False),
    "vgg19orig_bn": partial(VGG, VGG19, bow=False, batch_norm=True),
    "vgg19bow": partial(VGG, VGG19, bow=True, batch_norm=False),
    "vgg19bow_bn": partial(VGG, VGG19, bow=True, batch_norm=True),
}
