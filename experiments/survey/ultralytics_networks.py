"""ultralytics: its detectors and classifiers, from their configuration files."""

import os
from collections.abc import Iterator
from functools import partial

from torch import nn

os.environ.setdefault("YOLO_OFFLINE", "1")
from ultralytics import RTDETR, YOLO

from experiments.survey.network import Network

NAMES = (
    "yolov3-spp", "yolov3-tiny", "yolov5n", "yolov5n-p6", "yolov6n", "yolov8n",
    "yolov8n-cls", "yolov8-cls-resnet50", "yolov8n-ghost", "yolov8n-obb", "yolov8n-pose",
    "yolov8n-seg", "yolov9t", "yolov9c", "yolov10n", "yolo11n", "yolo11n-seg", "yolo11n-cls",
    "yolo12n", "yolo26n", "rtdetr-l", "rtdetr-resnet50",
)  # fmt: skip


def networks() -> Iterator[Network]:
    """Yield them by version."""
    for name in NAMES:
        yield Network("ultralytics", name, partial(_build, name), "ultralytics", (2, 3, 256, 256))


def _build(name: str) -> nn.Module:
    kind = RTDETR if name.startswith("rtdetr") else YOLO
    return kind(f"{name}.yaml").model
