"""torchvision whole: every network that it lists."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection, optical_flow, quantization, segmentation, video

from experiments.survey.network import IMAGES, Network, call_with_images

SLOW_TO_INITIALISE = ("googlenet", "inception_v3", "quantized_googlenet", "quantized_inception_v3")
VIDEO_SHAPES = {
    "mvit_v1_b": (2, 3, 16, 224, 224),
    "mvit_v2_s": (2, 3, 16, 224, 224),
    "s3d": (2, 3, 16, 224, 224),
}


def networks() -> Iterator[Network]:
    """Yield them by task."""
    module = torchvision.models
    for name in module.list_models(module=module):
        shape = (2, 3, 299, 299) if name == "inception_v3" else IMAGES
        yield _network(name, "classification", shape)
    for name in module.list_models(module=quantization):
        # In floating point, ready to be quantised.
        shape = (2, 3, 299, 299) if "inception_v3" in name else IMAGES
        yield _network(name, "classification, quantisable", shape, quantize=False)
    for name in module.list_models(module=segmentation):
        yield _network(name, "segmentation", IMAGES, weights_backbone=None)
    for name in module.list_models(module=detection):
        yield _network(name, "detection", IMAGES, call=_call_detector, weights_backbone=None)
    for name in module.list_models(module=video):
        yield _network(name, "video", VIDEO_SHAPES.get(name, (2, 3, 8, 112, 112)))
    for name in module.list_models(module=optical_flow):
        yield _network(name, "optical flow", (2, 3, 128, 128), call=_call_with_two_images)


def _network(
    name: str,
    task: str,
    shape: tuple[int, ...],
    call: Callable[[nn.Module, Tensor], Any] = call_with_images,
    **options: Any,
) -> Network:
    if name in SLOW_TO_INITIALISE:
        options["init_weights"] = False
    build = partial(torchvision.models.get_model, name, weights=None, **options)
    return Network("torchvision", name, build, f"torchvision, {task}", shape, call)


def _call_detector(model: nn.Module, images: Tensor) -> Any:
    if not model.training:
        model(list(images))  # how much it finds, and so its outputs' sizes, depends on the weights
        return None
    corner = images.shape[-1] // 2
    target = {
        "boxes": torch.tensor([[8.0, 8.0, corner, corner]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": torch.ones(1, *images.shape[-2:], dtype=torch.uint8),
        "keypoints": torch.tensor([[[16.0, 16.0, 1.0]] * 17]),
    }
    return model(list(images), [target for _ in images])


def _call_with_two_images(model: nn.Module, images: Tensor) -> Any:
    return model(images, images.flip(-1))
