"""Networks run without data: shapes and types alone, nothing is computed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (  # no public names, but documented
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
    unset_fake_temporarily,
)
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves  # likewise

from .hooks import FORWARD_HOOKS, hook_of_copy, libraries_of, no_hooks

__all__ = [
    "WANT_OF_DATA",
    "alike",
    "check_sample_shape",
    "explained",
    "fake_images",
    "skeleton_of",
    "wants_data",
    "way_to_copy",
    "without_data",
]

WANT_OF_DATA = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
"""What is raised where code asks for a tensor's values, or an operator has no version without."""


def wants_data(error: BaseException) -> bool:
    """Whether code has asked for a tensor's values, of which there are none."""
    # That is how a format string does.
    return isinstance(error, WANT_OF_DATA) or "FakeTensor.__format__" in str(error)


ARRAYS = (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)


@contextmanager
def explained(problem: str, way_out: str, for_want_of_data: str = "") -> Iterator[None]:
    """Raises whatever the block raises as a ValueError that tells ``problem`` and ``way_out``.

    For what a network's own code does: it can refuse in any way to be copied or run. Another way
    out may be given for code that asks for data.
    """
    try:
        yield
    except Exception as error:
        if for_want_of_data and wants_data(error):
            way_out = for_want_of_data
        raise ValueError(f"{problem} ({type(error).__name__}: {error}): {way_out}") from error


def skeleton_of(model: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """A copy of ``model`` whose tensors hold no data, without the hooks that others have set."""
    copies = no_hooks(model)
    for module in model.modules():
        for tensor in _tensors_of(module):
            copies[id(tensor)] = fake.from_tensor(tensor)
    skeleton = deepcopy(model, copies)
    own = {id(module) for module in model.modules()}
    for path, module in skeleton.named_modules():
        if id(module) in own:
            raise TypeError(f"{path!r} gives itself in place of a copy, as its __deepcopy__ says")
    libraries = libraries_of(model)
    for module in model.modules():
        copy = copies.get(id(module))  # none of what a part that copies itself has made anew
        for kind in FORWARD_HOOKS:
            hooks = getattr(module, kind)
            kept = copies[id(hooks)]
            if getattr(copy, kind, None) is not kept:
                continue  # copies of a torch.fx.GraphModule are without hooks, and what they need
            for key, hook in hooks.items():
                if of_copy := hook_of_copy(hook, copies, libraries):
                    kept[key] = of_copy
    return skeleton


def _tensors_of(module: nn.Module) -> list[Tensor]:
    """Those in the attributes of ``module`` and their containers, which may hold themselves."""
    seen: dict[int, object] = {}  # the objects, too, so that no other one gets the id

    def was_seen(what: object) -> bool:
        known = id(what) in seen
        seen[id(what)] = what
        return known

    leaves = tree_leaves(vars(module), is_leaf=was_seen)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def way_to_copy(model: nn.Module) -> str:
    """What to do where :func:`skeleton_of` fails."""
    if any(map(is_lazy, chain(model.parameters(), model.buffers()))):
        return "pass a batch through it first, for it is lazy"
    return (
        "take off it first what copy.deepcopy(model) fails on, such as a lock or an object that "
        "keeps tensors of the last forward"
    )


def check_sample_shape(name: str, shape: object) -> None:
    """Checks a shape of images, for :func:`fake_images`.

    Raises:
        TypeError: ``shape`` is no tuple or list of ints.
    """
    if not isinstance(shape, (tuple, list)) or not all(
        isinstance(size, SupportsIndex) for size in shape
    ):
        of_a_tensor = isinstance(shape, Tensor)
        got = "a tensor: pass its .shape" if of_a_tensor else repr(shape)
        raise TypeError(
            f"{name} must be ints [N, C, H, W], such as (2, 3, 224, 224), of a network for volumes "
            f"[N, C, D, H, W], got {got}"
        )


def fake_images(
    model: nn.Module,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """An image batch on the device of the model's first floating-point tensor, and of its type
    unless another is given. To be called under a fake mode."""
    like = torch.empty(())
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            like = tensor
            break
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format
    )


def alike(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Another tensor of the same shape, strides and device, to be kept: a view would keep what it
    is a view of. To be called under a fake mode."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=tensor.device)


@contextmanager
def without_data(fake: FakeTensorMode) -> Iterator[None]:
    """The block runs on tensors without data: one of :data:`WANT_OF_DATA` where it asks for values,
    of which PyTorch is kept from logging a traceback, and no gradients, unless it enables them."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addFilter(_tells_no_error)
    try:
        with fake, torch.no_grad(), _Arrays():
            yield
    finally:
        logger.removeFilter(_tells_no_error)


class _Arrays(TorchFunctionMode):
    """Tensors become arrays where they have data; PyTorch blames the class of one without, or makes
    an array of chance numbers."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in ARRAYS:
            return func(*args, **kwargs)
        if isinstance(args[0], FakeTensor):
            raise DataDependentOutputException(func)
        with unset_fake_temporarily():
            return func(*args, **kwargs)


def _tells_no_error(record: logging.LogRecord) -> bool:
    return record.exc_info is None
