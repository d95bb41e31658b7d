"""Weights to start from: torchvision's pre-trained ones, or those of a file, as far as they fit."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from gfgp_cupy.published_names import MAX_ENT_NAMES
from models.state_dict import drop_wrapper_names
from training.checkpoints.format import one_line, read_file
from training.errors import UserError
from training.processes.ranks import broadcast_from_main
from training.run import Run

VARIANTS = {"netp": "net", "nextp": "next", "orig": "", "bow": ""}
"""What the published names of networks add to torchvision's."""

OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""As in the files that torchvision downloads: ``denselayer1.norm.1.weight``."""

VGG_CLASSIFIER_NAMES = {"classifier.3.": "classifier.2.", "classifier.6.": "classifier.4."}
"""torchvision's, which has dropout between the linear layers, and those of a VGG without any."""


def start_from_weights(model: nn.Module, run: Run) -> None:
    """Give ``model`` the weights of ``--weights`` or ``--pretrained``; print what was taken.

    Only the main process reads them; the others get its tensors.

    Raises:
        UserError: the weights cannot be had, or none of them fits.
    """
    settings = run.settings
    if run.process.is_main:
        if settings.pretrained:
            origin = f"--pretrained {torchvision_name(settings.arch)}"
            weights = torchvision_weights(settings.arch)
        else:
            origin = f"--weights {settings.weights}"
            weights = weights_of_file(settings.weights)
        print(f"{origin}: {take_weights(model, weights, origin)}", flush=True)
    broadcast_from_main(list(model.state_dict().values()), run.process)


def torchvision_name(arch: str) -> str:
    """Return torchvision's name of the network that ``arch`` is, or is a variant of.

    Example:
        >>> torchvision_name("resnextp50_32x4d"), torchvision_name("vgg16orig_bn")
        ('resnext50_32x4d', 'vgg16_bn')
    """
    for addition, original in VARIANTS.items():
        arch = arch.replace(addition, original)
    return arch


def torchvision_weights(arch: str) -> dict[str, Tensor]:
    """Return torchvision's ImageNet weights for ``arch``, downloaded unless they are in its cache.

    They are ``IMAGENET1K_V1``, which there is for each of the networks, trained on images as our
    recipe has them; the later ``V2`` of some were trained with other sizes and for much longer.

    Raises:
        UserError: they cannot be downloaded, or the file cannot be read.
    """
    weights = get_model_weights(torchvision_name(arch)).IMAGENET1K_V1
    try:
        return weights.get_state_dict(map_location="cpu", check_hash=True, weights_only=True)
    except Exception as error:  # the network, the disk or a damaged file can raise anything
        raise UserError(
            f"--pretrained: {weights.url} cannot be downloaded and read ({one_line(error)}); "
            "download it elsewhere and pass it with --weights FILE"
        ) from error


def weights_of_file(path: str) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of a checkpoint that has one as ``state_dict``.

    Where a checkpoint has averaged weights (``--ema``) that did better, these are returned.

    No code of the file is run: ``torch.load`` with ``weights_only=True``.

    Raises:
        UserError: there is no such file, or there are no tensors in it.
    """
    content = read_file("--weights", path)
    if isinstance(content, Mapping):
        name = "ema" if content.get("averaged_is_better", "ema" in content) else "state_dict"
        content = content.get(name, content)
    if not isinstance(content, Mapping) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(
            f"--weights {path}: holds no tensors by name; it must be a state dict, or a dict that "
            "has one as 'state_dict'"
        )
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def take_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> str:
    """Copy those of ``weights`` that fit into ``model``; return how many, and what is left.

    A layer is taken as a whole or not at all: by its name, and if all of its tensors have the
    shapes of the model's. What is not taken keeps its fresh weights.

    Args:
        model: the network.
        weights: tensors under its own names, those of the published implementation, or
            torchvision's.
        origin: where they are from, for the error.

    Raises:
        UserError: nothing fits.
    """
    weights, own = with_own_names(model, weights), model.state_dict()
    layers, own_layers = layer_shapes(weights), layer_shapes(own)
    fitting = {layer for layer, shapes in layers.items() if own_layers.get(layer) == shapes}
    taken = {name: weights[name] for name in weights if layer_of(name) in fitting}
    if not taken:
        raise UserError(
            f"{origin}: none of its tensors, {_count(list(weights))}, fits the network's, "
            f"{_count(list(own))}; pass the --arch that they are of"
        )
    model.load_state_dict(taken, strict=False)
    left = [name for name in weights if name not in taken]
    fresh = [name for name in own if layer_of(name) not in fitting]
    return (
        f"{len(taken)} of {len(weights)} tensors taken, {_count(left)} left; "
        f"{_count(fresh)} of the network's start fresh"
    )


def with_own_names(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` with the names that ``model`` has for them, where it has any."""
    named = dict(weights)
    drop_wrapper_names(model, named, "")
    renames = dict(MAX_ENT_NAMES)
    if "classifier.6.weight" in named and "classifier.6.weight" not in model.state_dict():
        renames |= VGG_CLASSIFIER_NAMES
    renamed = {}
    for name, tensor in named.items():
        for theirs, ours in renames.items():
            name = name.replace(theirs, ours)
        renamed[OLD_DENSENET_NAME.sub(r"\1\2.", name)] = tensor
    return renamed


def layer_shapes(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, torch.Size]]:
    """Return each layer's shapes by name, without the counters that old files lack."""
    shapes: dict[str, dict[str, torch.Size]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if not name.endswith("num_batches_tracked"):
            shapes[layer_of(name)][name] = tensor.shape
    return shapes


def layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def _count(names: Sequence[str]) -> str:
    """Return how many there are, and the first of them."""
    more = ", …" if len(names) > 3 else ""
    return f"{len(names)} ({', '.join(names[:3])}{more})" if names else "none"
