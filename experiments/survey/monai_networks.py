"""MONAI: its networks of two dimensions, and some of three."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from monai.networks import nets

from experiments.survey.network import Network

IN_AND_OUT = {"in_channels": 3, "out_channels": 2}
RESNET = {"spatial_dims": 2, "n_input_channels": 3, "num_classes": 10}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "AHNet": ("AHNet", {"spatial_dims": 2, **IN_AND_OUT}),
    "AttentionUnet": (
        "AttentionUnet",
        {"spatial_dims": 2, **IN_AND_OUT, "channels": (8, 16, 32), "strides": (2, 2)},
    ),
    "BasicUNet": ("BasicUNet", {"spatial_dims": 2, **IN_AND_OUT}),
    "BasicUNet-3d": ("BasicUNet", {"spatial_dims": 3, **IN_AND_OUT}),
    "BasicUNetPlusPlus": ("BasicUNetPlusPlus", {"spatial_dims": 2, **IN_AND_OUT}),
    "DenseNet121": ("DenseNet121", {"spatial_dims": 2, **IN_AND_OUT}),
    "DenseNet121-3d": ("DenseNet121", {"spatial_dims": 3, **IN_AND_OUT}),
    "DynUNet": (
        "DynUNet",
        {
            "spatial_dims": 2, **IN_AND_OUT, "kernel_size": (3, 3, 3), "strides": (1, 2, 2),
            "upsample_kernel_size": (2, 2),
        },
    ),
    "EfficientNetBN": ("EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": False}),
    "FlexibleUNet-efficientnet": (
        "FlexibleUNet", {**IN_AND_OUT, "backbone": "efficientnet-b0"}
    ),
    "FlexibleUNet-resnet": ("FlexibleUNet", {**IN_AND_OUT, "backbone": "resnet18"}),
    "GlobalNet": (
        "GlobalNet",
        {
            "image_size": [128, 128], "spatial_dims": 2, "in_channels": 3,
            "num_channel_initial": 8, "depth": 3,
        },
    ),
    "HighResNet": ("HighResNet", {"spatial_dims": 2, **IN_AND_OUT}),
    "HoVerNet": ("HoVerNet", {"in_channels": 3}),
    "LocalNet": (
        "LocalNet",
        {
            "spatial_dims": 2, "in_channels": 3, "num_channel_initial": 8,
            "extract_levels": (0, 1, 2),
        },
    ),
    "MedNeXtSmall": ("MedNeXtSmall", {"spatial_dims": 2, **IN_AND_OUT}),
    "Quicknat": ("Quicknat", {"num_classes": 2, "num_channels": 3, "num_filters": 16}),
    "RegUNet": (
        "RegUNet",
        {"spatial_dims": 2, "in_channels": 3, "num_channel_initial": 8, "depth": 3},
    ),
    "ResNet18": ("resnet18", RESNET),
    "ResNet18-3d": ("resnet18", {**RESNET, "spatial_dims": 3}),
    "ResNet50": ("resnet50", RESNET),
    "SegResNet": ("SegResNet", {"spatial_dims": 2, **IN_AND_OUT}),
    "SEResNet50": ("SEResNet50", {"spatial_dims": 2, "in_channels": 3, "num_classes": 10}),
    "SEResNet50-3d": ("SEResNet50", {"spatial_dims": 3, "in_channels": 3, "num_classes": 10}),
    "SEResNeXt50": ("SEResNext50", {"spatial_dims": 2, "in_channels": 3, "num_classes": 10}),
    "TorchVisionFCModel": ("TorchVisionFCModel", {}),
    "UNet": (
        "UNet", {"spatial_dims": 2, **IN_AND_OUT, "channels": (8, 16, 32), "strides": (2, 2)}
    ),
    "VNet": ("VNet", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "dropout_dim": 2}),
    "VoxelMorphUNet": (
        "VoxelMorphUNet",
        {
            "spatial_dims": 2, "in_channels": 4, "unet_out_channels": 8,
            "channels": (8, 16, 16, 16, 16, 16), "final_conv_channels": (8,),
        },
    ),
}  # fmt: skip
SHAPES = {
    "VNet": (2, 1, 128, 128),
    "VoxelMorphUNet": (2, 4, 128, 128),
    "HoVerNet": (2, 3, 256, 256),
    "TorchVisionFCModel": (2, 3, 224, 224),
}


def networks() -> Iterator[Network]:
    """Yield them by name; a network of three dimensions is given cubes of 64."""
    for title, (name, options) in MODELS.items():
        shape = (2, 3, 64, 64, 64) if title.endswith("-3d") else (2, 3, 128, 128)
        build = partial(getattr(nets, name), **options)
        yield Network("monai", title, build, "MONAI", SHAPES.get(title, shape))
