"""segmentation-models-pytorch: every decoder, and encoders of every family."""

from collections.abc import Iterator
from functools import partial

import segmentation_models_pytorch as smp

from experiments.survey.network import Network

ENCODERS = (
    "resnet18", "resnext50_32x4d", "timm-skresnet18", "dpn68", "vgg11_bn", "se_resnet50",
    "densenet121", "inceptionresnetv2", "inceptionv4", "efficientnet-b0", "mobilenet_v2",
    "xception", "timm-efficientnet-b0", "mit_b0", "mobileone_s0", "tu-resnest14d",
    "tu-hgnetv2_b0", "tu-regnetx_002", "tu-dla34", "tu-resnet18d",
)  # fmt: skip
DECODERS = (
    "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN",
    "UPerNet", "Segformer",
)  # fmt: skip


def networks() -> Iterator[Network]:
    """Yield ``Unet`` on each encoder, and the other decoders on a ResNet-18."""
    pairs = [("Unet", encoder) for encoder in ENCODERS]
    pairs += [(decoder, "resnet18") for decoder in DECODERS]
    for decoder, encoder in pairs:
        build = partial(smp.create_model, decoder, encoder, encoder_weights=None)
        name = f"{decoder}-{encoder}"
        yield Network("smp", name, build, "segmentation-models-pytorch", (2, 3, 256, 256))
