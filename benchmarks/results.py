"""What the benchmarks measure, and the JSON files that hold it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from benchmarks.environment import Environment

__all__ = [
    "FirstCall",
    "InputPipelineResults",
    "InputPipelineSettings",
    "InputPipelineTime",
    "LaunchCost",
    "LayerTime",
    "MemoryUse",
    "NetworkPart",
    "NetworkParts",
    "NetworkPartsSettings",
    "NetworkResults",
    "NetworkSettings",
    "NetworkTime",
    "PassTime",
    "PoolingResults",
    "PoolingSettings",
    "Spread",
    "Unavailable",
    "read_results",
    "write_results",
]

SCHEMA = 1
"""Version of the files' form; raise it with every change that older readers would misread."""


@dataclass(frozen=True)
class Spread:
    """How the repeats of one measurement lie, in seconds; ``q1`` and ``q3`` are quartiles."""

    median: float
    q1: float
    q3: float
    min: float
    max: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        smallest, q1, median, q3, largest = np.quantile(seconds, (0, 0.25, 0.5, 0.75, 1)).tolist()
        return cls(median=median, q1=q1, q3=q3, min=smallest, max=largest, repeats=len(seconds))


@dataclass(frozen=True)
class OfRun:
    """What is told of one run of a benchmark."""

    environment: Environment


@dataclass(frozen=True)
class PoolingSettings:
    """What a run of ``operators.py`` was asked for.

    Attributes:
        shapes: in the form of :class:`benchmarks.shapes.Shape`.
        repeats: the most repeats of one measurement.
        seconds: the time the whole run may take, kept as far as a few repeats of each allow.
        cache_bytes: the cache that inputs are kept out of.
        rotated_bytes: the memory that inputs are taken from in turn.
    """

    device: str
    dtype: str
    layout: str
    batch_size: int
    shapes: list[str]
    repeats: int
    seconds: float
    cache_bytes: int
    rotated_bytes: int


@dataclass(frozen=True)
class OfContender:
    """What is told of one contender at one shape, in the form of
    :class:`benchmarks.shapes.Shape`."""

    shape: str
    contender: str


@dataclass(frozen=True)
class FirstCall(OfContender):
    """The first forward and backward pass.

    Attributes:
        seconds: that they took, with their compilation if it was not on disk yet.
    """

    seconds: float


@dataclass(frozen=True)
class PassTime(OfContender):
    """The time of one pass.

    Attributes:
        direction: ``"forward"``, ``"backward"`` or ``"both"``, the sum of the two in each repeat.
        floor_bytes: the least that the pass has to read and write.
        bytes_per_second: ``floor_bytes`` over the median time.
        fraction_of_copy: ``bytes_per_second`` over that of a copy of the input.
    """

    direction: str
    seconds: Spread
    floor_bytes: int
    bytes_per_second: float
    fraction_of_copy: float


@dataclass(frozen=True)
class MemoryUse(OfContender):
    """The memory of one forward and backward pass.

    Attributes:
        input_bytes, output_bytes: sizes of the pooled tensor and of the result.
        peak_bytes: the most that was allocated at one time, the output and the gradients
            included, the input and everything else that was there before not.
        saved_bytes: what the forward pass keeps for the backward pass, the input, the output and
            the parameters not counted.
    """

    input_bytes: int
    output_bytes: int
    peak_bytes: int
    saved_bytes: int


@dataclass(frozen=True)
class Unavailable(OfContender):
    """Why there are no times.

    Attributes:
        failed: whether it is a fault, not only that the machine or the time does not allow it.
    """

    reason: str
    failed: bool


@dataclass(frozen=True)
class LaunchCost:
    """What the host does for one forward call, the GPU's work not waited for."""

    contender: str
    host_seconds: Spread


@dataclass(frozen=True)
class PoolingResults(OfRun):
    """Everything that one run of ``operators.py`` measured."""

    settings: PoolingSettings
    times: list[PassTime]
    memory: list[MemoryUse]
    first_calls: list[FirstCall]
    launches: list[LaunchCost]
    unavailable: list[Unavailable]


@dataclass(frozen=True)
class NetworkSettings:
    """What a run of ``networks.py`` was asked for.

    Attributes:
        amp: the type of ``torch.autocast``, or ``None`` for float32 throughout.
        image_size: height and width of the images, in pixels.
    """

    device: str
    arch: str
    pools: list[str]
    layout: str
    amp: str | None
    batch_size: int
    image_size: int
    repeats: int
    seconds: float


@dataclass(frozen=True)
class NetworkTime:
    """The time of one batch of one network.

    Attributes:
        task: ``"training"`` (forward, backward, SGD step) or ``"inference"``.
        images_per_second: at the median time.
    """

    arch: str
    pool: str
    task: str
    seconds: Spread
    images_per_second: float


@dataclass(frozen=True)
class NetworkResults(OfRun):
    """Everything that one run of ``networks.py`` measured."""

    settings: NetworkSettings
    times: list[NetworkTime]


@dataclass(frozen=True)
class NetworkPartsSettings:
    """What a run of ``network_parts.py`` was asked for.

    Attributes:
        image_size: height and width of the images, in pixels.
    """

    archs: list[str]
    pools: list[str]
    batch_size: int
    image_size: int
    repeats: int
    seconds: float


@dataclass(frozen=True)
class NetworkPart:
    """The time of one part of a network in one batch.

    Attributes:
        task: ``"training"`` (forward, backward, SGD step) or ``"inference"``.
        part: ``"convolutions"``, ``"poolings"`` (without the heads that predict their parameters,
            with the mean), ``"heads"``, ``"rest"`` or ``"all"``.
    """

    arch: str
    pool: str
    task: str
    part: str
    seconds: Spread


@dataclass(frozen=True)
class LayerTime:
    """The time of one guided pooling of a network in one batch.

    Attributes:
        path: its name in the network.
        shape: in the form of :class:`benchmarks.shapes.Shape`.
        layer, head: seconds of the whole layer and of its head alone.
    """

    arch: str
    pool: str
    task: str
    path: str
    shape: str
    layer: Spread
    head: Spread


@dataclass(frozen=True)
class NetworkParts(OfRun):
    """Everything that one run of ``network_parts.py`` measured."""

    settings: NetworkPartsSettings
    parts: list[NetworkPart]
    layers: list[LayerTime]


@dataclass(frozen=True)
class InputPipelineSettings:
    """What a run of ``input_pipeline.py`` was asked for, and the libraries it went through.

    Attributes:
        images: of a batch; ``size`` their width and height, ``None`` for ImageNet's.
        bytes_per_image: mean size of the JPEG files.
    """

    images: int
    size: list[int] | None
    bytes_per_image: float
    repeats: int
    seconds: float
    torchvision: str
    pillow: str
    libjpeg_turbo: str | None


@dataclass(frozen=True)
class InputPipelineTime:
    """The CPU time of one pipeline for a batch on one core.

    Attributes:
        images_per_second: at the median time.
        speedup: the plain pipeline's time over this one's, within each round; no seconds.
    """

    pipeline: str
    seconds: Spread
    images_per_second: float
    speedup: Spread


@dataclass(frozen=True)
class InputPipelineResults(OfRun):
    """Everything that one run of ``input_pipeline.py`` measured."""

    settings: InputPipelineSettings
    times: list[InputPipelineTime]


Results = PoolingResults | NetworkResults | NetworkParts | InputPipelineResults

RESULTS = {
    "pooling": PoolingResults,
    "networks": NetworkResults,
    "network_parts": NetworkParts,
    "input_pipeline": InputPipelineResults,
}
"""By what a file calls the benchmark."""


def write_results(results: Results, path: Path) -> None:
    """Writes ``results`` to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)  # rather than lose what was measured
    temporary = path.with_name(path.name + ".part")
    (benchmark,) = (name for name, kind in RESULTS.items() if type(results) is kind)
    content = {"schema": SCHEMA, "benchmark": benchmark, **asdict(results)}
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def read_results(path: Path) -> Results:
    """The results in the file ``path``.

    Raises:
        ValueError: the file is not of this version of the benchmarks.
        TypeError: an entry is missing or unknown.
    """
    content = json.loads(path.read_text())
    schema, benchmark = (content.pop(name, None) for name in ("schema", "benchmark"))
    if schema != SCHEMA or benchmark not in RESULTS:
        raise ValueError(
            f"{path} holds no results of schema {SCHEMA}: schema {schema!r}, "
            f"benchmark {benchmark!r}; run the benchmark again"
        )
    return _decoded(RESULTS[benchmark], content)


def _decoded(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _decoded(hints.get(name), item) for name, item in value.items()})
    if get_origin(kind) is list:
        (element,) = get_args(kind)
        return [_decoded(element, item) for item in value]
    return value
