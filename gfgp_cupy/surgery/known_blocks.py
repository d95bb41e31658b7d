"""The blocks and stems of torchvision and timm whose last ReLU is known, by name alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

__all__ = ["BlockKind", "kind_of", "stems_of"]


@dataclass(frozen=True)
class BlockKind:
    """A block that ends in ``activation(branch(x) + shortcut(x))``.

    Attributes:
        last_conv: path in the block of the convolution whose channels are the block's.
        activation: of the last step.
        shortcut: of what strides beside the branch. None: the block is all branches, and each of
            its convolutions strides.
    """

    last_conv: str
    activation: str
    shortcut: str | None


# By the function that is their forward, which a subclass may inherit.
BLOCKS = {
    "torchvision.models.resnet.BasicBlock": BlockKind("conv2", "relu", "downsample"),
    "torchvision.models.resnet.Bottleneck": BlockKind("conv3", "relu", "downsample"),
    "torchvision.models.regnet.ResBottleneckBlock": BlockKind("f.c.0", "activation", "proj"),
    "timm.models.resnet.BasicBlock": BlockKind("conv2", "act2", "downsample"),
    "timm.models.resnet.Bottleneck": BlockKind("conv3", "act3", "downsample"),
    "timm.models.senet.Bottleneck": BlockKind("conv3", "relu", "downsample"),
    "timm.models.senet.SEResNetBlock": BlockKind("conv2", "relu", "downsample"),
    "timm.models.regnet.Bottleneck": BlockKind("conv3.conv", "act3", "downsample"),
    "timm.models.byobnet.BasicBlock": BlockKind("conv2_kxk.conv", "act", "shortcut"),
    "timm.models.byobnet.BottleneckBlock": BlockKind("conv3_1x1.conv", "act", "shortcut"),
    "timm.models.byobnet.RepVggBlock": BlockKind("conv_kxk.conv", "act", None),
    "timm.models.byobnet.MobileOneBlock": BlockKind("conv_kxk.0.conv", "act", None),
}

# Networks that run a stem's convolution, norm and activation one after the other.
STEM_OWNERS = {
    "torchvision.models._utils.IntermediateLayerGetter",
    "torchvision.models.densenet.DenseNet",
    "torchvision.models.regnet.RegNet",
    "torchvision.models.resnet.ResNet",
    "timm.models._features.FeatureDictNet",
    "timm.models._features.FeatureHookNet",
    "timm.models.byobnet.ByobNet",
    "timm.models.densenet.DenseNet",
    "timm.models.regnet.RegNet",
    "timm.models.resnet.ResNet",
    "timm.models.senet.SENet",
}

# The convolution, and the module behind whose output a pooling stands in place of its stride.
STEMS = (
    ("conv1", "relu"),
    ("conv1", "act1"),
    ("conv1.0", "conv1.2"),  # of three convolutions
    ("maxpool.0", "maxpool.2"),  # of timm's replace_stem_pool=True
    ("layer0.conv1", "layer0.relu1"),
    ("features.conv0", "features.relu0"),
    # timm's norm has the ReLU in it, which stays where the norm is made anew, to be synchronised.
    ("features.conv0", "features.norm0.act"),
    ("features_conv0", "features_norm0.act"),  # as flattened by timm's features_only
    ("stem.0", "stem.2"),
    ("stem.conv", "stem"),
    ("stem.conv1.conv", "stem.conv1"),
    ("stem.conv2.conv", "stem.conv2"),
    ("stem.conv3.conv", "stem.conv3"),
)

ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")


def kind_of(block: nn.Module) -> BlockKind | None:
    """What is known of a block, from its class's name and module: no library is imported."""
    forward = getattr(type(block), "forward", None)
    name = getattr(forward, "__qualname__", "").removesuffix(".forward")
    return BLOCKS.get(f"{getattr(forward, '__module__', '')}.{name}")


def stems_of(network: nn.Module) -> dict[str, str]:
    """Paths, in a network whose stem is known, of strided convolutions; where each pools."""
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(network).__mro__}
    if names.isdisjoint(STEM_OWNERS):
        return {}
    modules = dict(network.named_modules())
    return {
        conv: behind
        for conv, behind in STEMS
        if isinstance(module := modules.get(conv), nn.Conv2d)
        and max(module.stride) > 1
        and _ends_in_activation(modules.get(behind))
    }


def _ends_in_activation(module: nn.Module | None) -> bool:
    """An activation itself, or what ends in one: timm's norms and convolutions have theirs."""
    if module is None:
        return False
    if type(module).__module__.startswith(ACTIVATIONS):
        return True
    if getattr(module, "aa", None) is not None:  # which strides, too
        return False
    norm = getattr(module, "bn", module)
    act = getattr(norm, "act", None)
    return isinstance(act, nn.Module) and not isinstance(act, nn.Identity)
