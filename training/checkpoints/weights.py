"""Weights without a run: torchvision's pre-trained ones, or those of a file."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from training.checkpoints.fitting import take_all, take_fitting
from training.checkpoints.format import class_count, refuse_other_network
from training.checkpoints.safe_file import one_line, read_file, safetensors_texts
from training.errors import UserError
from training.images.datasets import Data
from training.processes.ranks import Process, broadcast_from_main, object_from_main
from training.run import Run
from training.settings import Settings

VARIANTS = {"netp": "net", "nextp": "next"}
"""What the published names of networks with larger first poolings add to torchvision's."""

ADDITIONS = ("orig", "bow")
"""What the published names of VGG add to torchvision's."""

CLASSIFIER_BIAS = re.compile(r"(?:^|\.)(?:fc|classifier)(?:\.(\d+))?\.bias$")
"""Of the layers at the end, the one with the largest number is the last."""

WORDNET_ID = re.compile(r"n\d{8}")

TORCHVISION_POOLS = {"resnet": "skip", "resnext": "skip", "vgg": "max"}
"""The poolings that make torchvision's own networks of those whose names begin so."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what is known of the network that they are of.

    Attributes:
        origin: the option that they are from and its value, for lines and errors.
        source: the file's whole path, or its address.
        outputs: length of the network's logits.
        tensors: by name; only the main process has them.
        arch, pool: of the network, None where nothing says them.
        classes: names of the outputs, None where nothing says them.
        averaged: they are the averaged ones of ``--ema``.
        args: the options of their run by their names, None where nothing says them.
        of_imagenet: the outputs are ImageNet's 1000 classes in the order of their WordNet IDs.
    """

    origin: str
    source: str
    outputs: int
    tensors: Mapping[str, Tensor] = field(repr=False)
    arch: str | None = None
    pool: str | None = None
    classes: tuple[str, ...] | None = None
    averaged: bool = False
    args: Mapping[str, Any] | None = None
    of_imagenet: bool = False


def weights_to_evaluate(settings: Settings, process: Process) -> Weights:
    """Return the weights of ``--resume``, ``--weights`` or ``--pretrained``, the first given.

    Only the main process reads them. Every process must call it.

    Raises:
        UserError: they cannot be had.
    """
    found = None
    if process.is_main:
        if settings.resume is not None:
            found = weights_of_file("--resume", settings.resume)
        else:
            found = weights_to_start_from(settings)
    described = object_from_main(None if found is None else replace(found, tensors={}), process)
    return found or described


def weights_to_start_from(settings: Settings) -> Weights:
    """Return the weights of ``--weights`` or ``--pretrained``.

    Raises:
        UserError: they cannot be had.
    """
    if settings.weights is not None:
        return weights_of_file("--weights", settings.weights)
    return torchvision_weights(settings.with_network().arch)


def with_wordnet_names(weights: Weights, data: Data) -> Weights:
    """Return ``weights`` of ImageNet with names of their classes, where ``data`` has such names.

    They are the WordNet IDs, ``n01440764`` and so on, as ImageNet's folders have them.
    """
    if not weights.of_imagenet or not all(map(WORDNET_ID.fullmatch, data.classes)):
        return weights
    from timm.data import ImageNetInfo

    return replace(weights, classes=tuple(ImageNetInfo("imagenet-1k").label_names()))


def load_weights(model: nn.Module, weights: Weights, run: Run) -> None:
    """Give ``model``, the network of ``run``, the tensors of ``weights``, which are all of its own.

    Every process must call it; those of the main process count.

    Raises:
        UserError: the weights are of another network.
    """
    settings = run.settings
    refuse_other_network(
        weights.origin, weights.arch, weights.pool, arch=settings.arch, pool=settings.pool
    )
    if run.process.is_main:
        try:
            take_all(model, weights.tensors)
        except ValueError as error:
            says = "" if weights.arch and weights.pool else ", as the file does not say them"
            raise UserError(
                f"{weights.origin}: its tensors are not those of --arch {settings.arch} --pool "
                f"{settings.pool} ({error}); pass the --arch and --pool that they are of{says}"
            ) from error
    broadcast_from_main(list(model.state_dict().values()), run.process)


def start_from_weights(model: nn.Module, data: Data, run: Run) -> None:
    """Give ``model`` the weights of ``--weights`` or ``--pretrained``; print what was taken.

    Only the main process reads them; the others get its tensors.

    Args:
        model: the network.
        data: the classifier is taken where it has the classes of ``data``, or as many where
            nothing says which it has.
        run: this run.

    Raises:
        UserError: the weights cannot be had, or none of them fits.
    """
    if run.process.is_main:
        weights = with_wordnet_names(weights_to_start_from(run.settings), data)
        try:
            classes = data.classes if data.classes_have_names else None
            taken = take_fitting(model, weights.tensors, weights.classes, classes)
        except ValueError as error:
            raise UserError(
                f"{weights.origin}: {error}; pass the --arch that they are of"
            ) from error
        print(f"{weights.origin}: {taken}", flush=True)
    broadcast_from_main(list(model.state_dict().values()), run.process)


def torchvision_name(arch: str) -> str:
    """Return torchvision's name of the network that ``arch`` is, or is a variant of.

    Example:
        >>> torchvision_name("resnextp50_32x4d"), torchvision_name("vgg16orig_bn")
        ('resnext50_32x4d', 'vgg16_bn')
    """
    arch = without_variant(arch)
    for addition in ADDITIONS:
        arch = arch.replace(addition, "")
    return arch


def without_variant(arch: str) -> str:
    """Return the one of ``arch`` and its variants that torchvision has, under its name here.

    Example:
        >>> without_variant("resnetp50"), without_variant("vgg16orig")
        ('resnet50', 'vgg16orig')
    """
    for variant, original in VARIANTS.items():
        arch = arch.replace(variant, original)
    return arch


def torchvision_weights(arch: str) -> Weights:
    """Return torchvision's ImageNet weights for ``arch``, downloaded unless they are in its cache.

    They are ``IMAGENET1K_V1``, which there is for each of the networks, trained on images as our
    recipe has them; the later ``V2`` of some were trained with other sizes and for much longer.

    Raises:
        UserError: they cannot be downloaded, or the file cannot be read.
    """
    name = torchvision_name(arch)
    weights = get_model_weights(name).IMAGENET1K_V1
    try:
        tensors = weights.get_state_dict(map_location="cpu", check_hash=True, weights_only=True)
    except Exception as error:  # the network, the disk or a damaged file can raise anything
        kept = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
        if kept.exists():  # so that it is not downloaded again
            raise UserError(
                f"--pretrained: {kept} cannot be read ({one_line(error)}); remove it, then it is "
                "downloaded anew"
            ) from error
        raise UserError(
            f"--pretrained: {weights.url} cannot be downloaded and read ({one_line(error)}); "
            "download it elsewhere and pass it with --weights FILE"
        ) from error
    return Weights(
        origin=f"--pretrained {name}",
        source=weights.url,
        outputs=len(weights.meta["categories"]),
        tensors=tensors,
        arch=without_variant(arch),
        pool=next((p for family, p in TORCHVISION_POOLS.items() if name.startswith(family)), None),
        of_imagenet=True,
    )


def weights_of_file(option: str, path: str) -> Weights:
    """Return the tensors of a state dict, or of a checkpoint that has one as ``state_dict``.

    Where a checkpoint has averaged weights (``--ema``) that did better, they are these. No code of
    the file is run: ``torch.load`` with ``weights_only=True``.

    Args:
        option: that names the file, for errors.
        path: of the file.

    Raises:
        UserError: there is no such file, or there are no tensors in it.
    """
    content = read_file(option, path)
    about: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    if texts := safetensors_texts(path):
        # As training.export writes them; its classes are names for readers, not those of folders.
        about = {"state_dict": about, "arch": texts.get("arch"), "pool": texts.get("pool")}
    averaged = "ema" in about and about.get("averaged_is_better") is not False
    named = about["ema"] if averaged else about.get("state_dict", about)
    tensors = {}
    if isinstance(named, Mapping):
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(
            f"{option} {path}: holds no tensors by name; it must be a state dict, or a dict that "
            "has one as 'state_dict'"
        )
    is_published = isinstance(about.get("args"), argparse.Namespace)
    args = vars(about["args"]) if is_published else about.get("args")
    args = args if isinstance(args, Mapping) else {}
    args = {name: value for name, value in args.items() if not isinstance(value, Tensor)}
    pool = args.get("pool", about.get("pool"))
    return Weights(
        origin=f"{option} {path}",
        source=str(Path(path).resolve()),
        outputs=output_count(tensors),
        tensors=tensors,
        arch=about["arch"] if isinstance(about.get("arch"), str) else None,
        pool=pool if isinstance(pool, str) else None,
        classes=_names(about.get("classes")),
        averaged=averaged,
        args=None if is_published else args or None,
    )


def output_count(tensors: Mapping[str, Tensor]) -> int:
    """Return the length of the logits of a network with ``tensors``, in whatever order.

    Example:
        >>> output_count({"fc.bias": torch.zeros(10), "conv1.weight": torch.zeros(64, 3, 7, 7)})
        10
    """
    found = {name: CLASSIFIER_BIAS.search(name) for name in tensors}
    biases = {name: int(match[1] or 0) for name, match in found.items() if match}
    if not biases:
        return class_count(tensors)
    return tensors[max(biases, key=lambda name: biases[name])].numel()


def _names(classes: object) -> tuple[str, ...] | None:
    if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
        return tuple(classes)
    return None
