"""transformers: image models of its families, small, from configurations alone."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import transformers
from torch import Tensor, nn

from experiments.survey.network import IMAGES, Network

STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
BACKBONE_OF_RESNET = {
    "backbone_config": transformers.ResNetConfig(depths=[1, 1, 1, 1], **STAGES),
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}
SMALL_DETR = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "num_queries": 10}
SMALL_VIT = {
    "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "BeitForImageClassification": SMALL_VIT,
    "BitForImageClassification": {"depths": [1, 1, 1, 1]},
    "ConvNextForImageClassification": {"depths": [1, 1, 2, 1]},
    "ConvNextV2ForImageClassification": {"depths": [1, 1, 2, 1]},
    "CvtForImageClassification": {},
    "Data2VecVisionForImageClassification": SMALL_VIT,
    "DeiTForImageClassification": SMALL_VIT,
    "Dinov2ForImageClassification": SMALL_VIT,
    "DINOv3ConvNextModel": {"depths": [1, 1, 2, 1]},
    "DonutSwinForImageClassification": {},
    "EfficientNetForImageClassification": {
        "image_size": 224,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
    },
    "FocalNetForImageClassification": {},
    "HGNetV2ForImageClassification": {},
    "HieraForImageClassification": {},
    "LevitForImageClassification": {},
    "MobileNetV1ForImageClassification": {},
    "MobileNetV2ForImageClassification": {},
    "MobileNetV2ForSemanticSegmentation": {},
    "MobileViTForImageClassification": {},
    "MobileViTForSemanticSegmentation": {},
    "MobileViTV2ForImageClassification": {},
    "MobileViTV2ForSemanticSegmentation": {},
    "PoolFormerForImageClassification": {},
    "PPLCNetForImageClassification": {},
    "PPLCNetV3Backbone": {},
    "PPLCNetV4Backbone": {},
    "PvtForImageClassification": {},
    "PvtV2ForImageClassification": {},
    "RegNetForImageClassification": {"depths": [1, 1, 2, 1]},
    "ResNetForImageClassification": {},
    "ResNetBackbone": {"layer_type": "basic", "hidden_sizes": [32, 64, 128, 256]},
    "RTDetrResNetBackbone": {},
    "SegformerForImageClassification": {},
    "SegformerForSemanticSegmentation": {},
    "SwiftFormerForImageClassification": {},
    "SwinForImageClassification": {},
    "Swinv2ForImageClassification": {},
    "TextNetForImageClassification": {},
    "UVDocBackbone": {},
    "ViTForImageClassification": SMALL_VIT,
    "ViTMSNForImageClassification": SMALL_VIT,
    "BeitForSemanticSegmentation": {
        **SMALL_VIT,
        "num_hidden_layers": 4,
        "out_indices": [1, 2, 3, 4],
    },
    "Data2VecVisionForSemanticSegmentation": {
        **SMALL_VIT,
        "num_hidden_layers": 4,
        "out_indices": [1, 2, 3, 4],
    },
    "DPTForDepthEstimation": {
        **SMALL_VIT,
        "image_size": 224,
        "num_hidden_layers": 4,
        "backbone_out_indices": [0, 1, 2, 3],
    },
    "GLPNForDepthEstimation": {},
    "UperNetForSemanticSegmentation": {
        "backbone_config": transformers.ResNetConfig(depths=[1, 1, 1, 1], **STAGES)
    },
    "SuperPointForKeypointDetection": {},
    "ConditionalDetrForObjectDetection": {**SMALL_DETR, **BACKBONE_OF_RESNET},
    "DeformableDetrForObjectDetection": {**SMALL_DETR, "decoder_layers": 2, **BACKBONE_OF_RESNET},
    "DetrForObjectDetection": {**SMALL_DETR, **BACKBONE_OF_RESNET},
    "DetrForSegmentation": {**SMALL_DETR, **BACKBONE_OF_RESNET},
    "TableTransformerForObjectDetection": {**SMALL_DETR, **BACKBONE_OF_RESNET},
    "RTDetrForObjectDetection": {},
    "RTDetrV2ForObjectDetection": {},
    "DFineForObjectDetection": {},
    "MaskFormerForInstanceSegmentation": {},
    "Mask2FormerForUniversalSegmentation": {},
    "PPOCRV5MobileDetForObjectDetection": {},
    "YolosForObjectDetection": {**SMALL_VIT, "image_size": [224, 224]},
}


def networks() -> Iterator[Network]:
    """Yield them by class."""
    for name, options in MODELS.items():
        model = getattr(transformers, name)
        config = model.config_class
        size = getattr(config(), "image_size", None)
        shape = (2, 3, size, size) if isinstance(size, int) and size > 224 else IMAGES
        shape = IMAGES if "image_size" in options or size is None else shape
        build = partial(_build, name, options)
        yield Network("transformers", name, build, "transformers", shape, _call)


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    model = getattr(transformers, name)
    return model(model.config_class(**options))


def _call(model: nn.Module, images: Tensor) -> Any:
    output = model(pixel_values=images)
    # What superpoints and proposals there are depends on the weights.
    return None if "SuperPoint" in type(model).__name__ else output
