"""Networks as programs that run without their code: ONNX, and archives of ``torch.export``."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from training.errors import UserError
from training.export.deployment import Deployment
from training.export.packages import imported

DEPLOYMENT_NAME = "deployment.json"
"""The file in an archive of ``torch.export`` that holds the ``Deployment``."""

CHECKED_BATCHES = (1, 3)
"""Sizes of the batches that a program is checked with, neither of them that it was made with."""

TOLERANCE = 1e-4
"""How far a program's logits may be from the network's, relative to the largest of these."""


def images_for(deployment: Deployment, batch: int) -> Tensor:
    """Return ``batch`` random images as the network takes them, the same ones each time."""
    size = (batch, 3, deployment.image_size, deployment.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(batch))


def write_onnx(network: nn.Module, deployment: Deployment, path: Path) -> str:
    """Write ``network`` as an ONNX model, with ``deployment`` as its metadata; check the file.

    Its input ``images`` and its output ``logits`` are as in ``Deployment``, N is free.

    Returns:
        How it was checked, for a person.

    Raises:
        UserError: a package is missing, or ONNX Runtime computes something else.
    """
    onnx, runtime, _ = (
        imported(name, "--format onnx") for name in ("onnx", "onnxruntime", "onnxscript")
    )
    program = torch.onnx.export(
        network,
        (images_for(deployment, batch=2),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: Dim.DYNAMIC},),
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, deployment.as_texts())
    onnx.save(model, str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return f"ONNX Runtime {runtime.__version__}: {difference(network, run, deployment)}"


def write_archive(network: nn.Module, deployment: Deployment, path: Path) -> str:
    """Write ``network`` as an archive of ``torch.export``; check the file.

    The archive holds ``deployment`` as ``deployment.json``, and takes batches of any size. Who
    loads it imports gfgp_cupy first, whose operators it calls.

    Returns:
        How it was checked, for a person.

    Raises:
        UserError: the archive computes something else.
    """
    program = torch.export.export(
        network, (images_for(deployment, batch=2),), dynamic_shapes=({0: Dim.DYNAMIC},)
    )
    files = {DEPLOYMENT_NAME: json.dumps(deployment.as_texts())}
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files=files)
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()
    return f"torch.export.load: {difference(network, loaded, deployment)}"


def difference(
    network: nn.Module, program: Callable[[Tensor], Tensor], deployment: Deployment
) -> str:
    """Return the largest difference of the logits of ``program`` from those of ``network``.

    Raises:
        UserError: it is not due to rounding.
    """
    differences = []
    for batch in CHECKED_BATCHES:
        images = images_for(deployment, batch)
        with torch.no_grad():
            expected, logits = network(images), program(images)
        scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
        differences.append((logits - expected).abs().max() / scale)
    largest = torch.stack(differences).max().item()  # nan where one of them is
    if not largest <= TOLERANCE:
        raise UserError(
            f"the exported program's logits differ from the network's by {largest:.1e} of the "
            "largest: nothing was written; try another --format"
        )
    batches = " and ".join(map(str, CHECKED_BATCHES))
    return f"logits differ by at most {largest:.1e} of the largest, in batches of {batches}"
