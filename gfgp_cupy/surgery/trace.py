"""What the poolings of a network are given, found by a forward without data."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # no public name, but documented

from ..autocast import mean_dtype
from ..tracing import explained, fake_images, skeleton_of

__all__ = ["trace_inputs"]


def trace_inputs(
    model: nn.Module, paths: list[str], sample_shape: tuple[int, ...]
) -> dict[str, list[Tensor]]:
    """The inputs, as tensors without data, that the modules at ``paths`` get from images.

    The trace runs through a copy of the network that holds no data, so that nothing is computed,
    and the network, its buffers and the random state stay as they are.

    Args:
        model: any network of one argument.
        paths: names of modules in ``model.named_modules()``; those of one module in two attributes
            are told apart.
        sample_shape: of the images, which have the type and device of the network.

    Returns:
        The input of each call of the module, by path; the calls in evaluation mode and, if there
        is a module that has none, those in training mode. What autocast made a half type is
        float32.

    Raises:
        ValueError: the network cannot be copied, or its forward fails.
    """
    inputs: dict[str, list[Tensor]] = {path: [] for path in paths}
    if not paths:
        return inputs
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    unknown = f"the number of channels of {paths[0]!r} cannot be found"
    with explained(
        f"{unknown}, because the network cannot be copied",
        "pass a batch through it first if it is lazy, or call replace_pooling on the part of it "
        "that can be copied",
    ):
        skeleton = skeleton_of(model, fake)
    for path in paths:
        parent, _, name = path.rpartition(".")
        # One module in two places becomes two, to be told apart.
        probe = deepcopy(skeleton.get_submodule(path))
        setattr(skeleton.get_submodule(parent), name, probe)
        probe.register_forward_pre_hook(partial(_record, inputs[path]), with_kwargs=True)
    # Auxiliary branches may be used in training only.
    for training in (False, True):
        if all(inputs[path] for path in paths):
            break
        forward_fails = explained(
            f"{unknown}, because the forward fails on images of sample_shape={sample_shape} "
            "without data",
            "pass the shape that it takes, or call replace_pooling on the part of it that takes "
            "images",
        )
        with fake, torch.no_grad(), forward_fails:
            skeleton.train(training)(fake_images(model, sample_shape))
    return inputs


def _record(
    inputs: list[Tensor], module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]
) -> None:
    (input,) = (*args, *named.values())
    # As for a head's mean: autocast's half type is not that of the weights.
    inputs.append(input.to(mean_dtype(input)))
