"""Replace the poolings of any network, and the strides of its convolutions, in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn

from .choices import check_choice
from .geometry import PoolGeometry, pool_geometry
from .poolings import create_pooling, list_poolings
from .tracing import trace_inputs

__all__ = ["PooledConv2d", "Replacement", "Replacements", "replace_pooling"]

Replaceable = nn.MaxPool2d | nn.AvgPool2d | nn.Conv2d


def replace_pooling(
    model: nn.Module,
    pool: str | Callable[..., nn.Module] = "max_ent",
    *,
    strided_convs: bool = False,
    where: Callable[[str, nn.Module], bool] | None = None,
    sample_shape: tuple[int, ...] = (2, 3, 224, 224),
) -> Replacements:
    r"""Replaces the poolings of ``model``, in place, by poolings that learn what to keep.

    Every ``nn.MaxPool2d`` and ``nn.AvgPool2d`` gives way to a pooling of the same windows, so that
    all sizes stay as they were. With ``strided_convs``, every ``nn.Conv2d`` of stride 2 becomes a
    :class:`PooledConv2d`: stride 1, and directly behind it a pooling of kernel and stride 2, as in
    T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019 (where it stands behind the
    block's last ReLU, which only the network's author can tell). Such a convolution then costs
    four times as much.

    Global poolings are left alone: ``nn.AdaptiveAvgPool2d``, and poolings of one window that covers
    the whole map. So are calls of ``F.max_pool2d`` inside a ``forward``, which are no modules.

    Every other tensor, its name in the state dict, and ``requires_grad`` stay as they were; a new
    pooling has the device and type of the tensors around it and the training mode of what it
    replaces, and fresh weights from PyTorch's random state. To start from pre-trained weights, load
    them first, and create the optimizer last. In training the new poolings take two samples or
    more. Either everything is replaced or, with an error, nothing.

    Args:
        model: any network.
        pool: a name that :func:`gfgp_cupy.poolings.create_pooling` takes, such as ``"max_ent"``
            (:class:`gfgp_cupy.GFGPMaxEntPool2d`), or a callable that is given
            ``(num_features, kernel_size, stride, padding, ceil_mode, device=…, dtype=…)`` and
            returns the pooling.
        strided_convs: replace the strides of convolutions, too.
        where: is called with the path and the module of each pooling (and strided convolution), as
            ``model.named_modules()`` gives them; those for which it returns False are left alone.
            Default: all.
        sample_shape: [N, C, H, W] of images that the network takes. Shapes and types alone are
            traced through a copy of the network that holds no data, to find the number of channels
            of each pooling: nothing is computed, and the network, its buffers and the random state
            stay as they are.

    Returns:
        What was changed; ``print`` shows it as a table. Empty, with a warning, if nothing was.

    Raises:
        TypeError: ``model`` is no module, or ``pool`` is one.
        ValueError: ``pool`` is unknown, ``model`` is compiled by ``torch.jit``, a pooling has no
            equivalent (``dilation``, ``return_indices=True``, ``divisor_override``, padding that
            counts in a mean, a subclass of its own), or its channels cannot be found. The message
            names the module's path.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU())
        >>> print(replace_pooling(model, sample_shape=(2, 3, 32, 32)))
        path  channels  was             is
        1     8         MaxPool2d(2/2)  GFGPMaxEntPool2d(2/2)
        >>> model(torch.randn(4, 3, 32, 32)).shape
        torch.Size([4, 8, 16, 16])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "model was compiled by torch.jit, and its modules are fixed: replace its poolings "
            "before it is compiled"
        )
    make_pooling = _maker(pool)
    found = {
        path: module
        for path, module in _places(model).items()
        if _is_replaceable(module, strided_convs) and (where is None or where(path, module))
    }
    _check_equivalents_exist(found)
    poolings = [path for path, module in found.items() if not isinstance(module, nn.Conv2d)]
    inputs = trace_inputs(model, poolings, sample_shape)
    plans = [
        _plan_of_conv(path, module)
        if isinstance(module, nn.Conv2d)
        else _plan_of_pooling(path, module, inputs[path])
        for path, module in found.items()
    ]
    plans = [plan for plan in plans if plan is not None]
    if not plans:
        _warn_that_nothing_changed(model, strided_convs, where)
    made = [plan.make(make_pooling) for plan in plans]
    # Nothing has been touched so far, and nothing below can fail.
    return Replacements(plan.apply(model, new) for plan, new in zip(plans, made, strict=True))


class PooledConv2d(nn.Conv2d):
    """A convolution of stride 1 and the pooling of its output, in a strided convolution's place.

    Its weight and bias keep their names in the state dict; the pooling's begin with ``pool``.
    :func:`replace_pooling` makes them.
    """

    pool: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.pool(super().forward(input))


@dataclass(frozen=True)
class Replacement:
    """One change of :func:`replace_pooling`.

    Attributes:
        path: the module's name in ``model.named_modules()``.
        num_features: number of channels that are pooled.
        was, is_now: what was there and what is there now, with kernel size, stride and (if any)
            padding, as in ``MaxPool2d(3/2/1)``.
    """

    path: str
    num_features: int
    was: str
    is_now: str


class Replacements(list[Replacement]):
    """The changes of :func:`replace_pooling`, in the network's order; as a string, a table."""

    def __str__(self) -> str:
        rows = [("path", "channels", "was", "is")]
        rows += [(row.path, str(row.num_features), row.was, row.is_now) for row in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


@dataclass(frozen=True)
class _Plan:
    """A replacement to be made: ``module`` at ``path``, by a pooling of ``geometry``."""

    path: str
    module: Replaceable
    geometry: PoolGeometry
    num_features: int
    device: torch.device
    dtype: torch.dtype

    def make(self, make_pooling: Callable[..., nn.Module]) -> nn.Module:
        g = self.geometry
        pooling = make_pooling(
            self.num_features,
            g.kernel_size,
            g.stride,
            g.padding,
            g.ceil_mode,
            device=self.device,
            dtype=self.dtype,
        )
        return pooling.train(self.module.training)

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        was = _describe(type(self.module).__name__, self.module)
        is_now = _describe(type(pooling).__name__, self.geometry)
        if isinstance(self.module, nn.Conv2d):
            # The same object, as torch.nn.utils.parametrize does it: its hooks, and whoever holds
            # it or its tensors, an optimizer for instance, need not know.
            self.module.stride = (1, 1)
            self.module.__class__ = PooledConv2d
            self.module.pool = pooling
            is_now = f"{_describe('Conv2d', self.module)} + {is_now}"
        else:
            parent, _, name = self.path.rpartition(".")
            setattr(model.get_submodule(parent), name, pooling)
        return Replacement(self.path, self.num_features, was, is_now)


def _maker(pool: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    if isinstance(pool, nn.Module):
        raise TypeError(
            f"pool must be a name or a callable that makes a pooling, got a {type(pool).__name__}: "
            "each place needs one of its own; pass its class"
        )
    if callable(pool):
        return pool
    check_choice("pool", pool, list_poolings())
    return partial(create_pooling, pool)


def _places(model: nn.Module) -> dict[str, nn.Module]:
    """The modules by path, each attribute of each parent once.

    A pooling in two attributes is in two places, and can become two. A convolution stays itself
    and so is in one, as is what a block in two attributes consists of.
    """
    places: dict[object, tuple[str, nn.Module]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        parent, _, name = path.rpartition(".")
        attribute = (id(model.get_submodule(parent)), name)
        place = module if isinstance(module, nn.Conv2d) else attribute
        places.setdefault(place, (path, module))
    return dict(places.values())


def _is_replaceable(module: nn.Module, strided_convs: bool) -> TypeGuard[Replaceable]:
    if isinstance(module, nn.Conv2d):
        return strided_convs and max(module.stride) == 2
    return isinstance(module, (nn.MaxPool2d, nn.AvgPool2d))


def _check_equivalents_exist(modules: Mapping[str, Replaceable]) -> None:
    """Raise ValueError unless poolings of the same output sizes can take the modules' places."""
    if "" in modules and not isinstance(modules[""], nn.Conv2d):
        raise ValueError(
            f"model is a {type(modules['']).__name__} itself, which cannot be replaced in place: "
            "wrap it in nn.Sequential"
        )
    refused = [(path, reason) for path, m in modules.items() if (reason := _reason_against(m))]
    if refused:
        path, reason = refused[0]
        more = sum(other == reason for _, other in refused) - 1
        like_it = f", and {more} more like it," if more else ""
        raise ValueError(
            f"{path!r} ({type(modules[path]).__name__}){like_it} {reason}; or {_leaving_out(path)}"
        )


def _reason_against(module: Replaceable) -> str | None:
    if type(module) not in (nn.MaxPool2d, nn.AvgPool2d, nn.Conv2d):
        return "is of a class of its own, whose forward may do anything"
    if isinstance(module, nn.MaxPool2d):
        if _pair(module.dilation) != (1, 1):
            return f"has dilation={module.dilation}, and the new one's windows have no gaps"
        if module.return_indices:
            return "has return_indices=True, and a mean has no index"
    elif isinstance(module, nn.AvgPool2d):
        if module.divisor_override is not None:
            return f"has divisor_override={module.divisor_override}, and weights sum to 1"
        if module.count_include_pad and _pair(module.padding) != (0, 0):
            return (
                f"has padding={module.padding} that counts in the mean, which it no longer would; "
                "set its count_include_pad = False if that is all right"
            )
    return None


def _leaving_out(path: str) -> str:
    return f"leave it out with where=lambda path, module: path != {path!r}"


def _plan_of_conv(path: str, conv: nn.Conv2d) -> _Plan:
    # In ceil mode the output is of the strided convolution's size for odd sizes, too.
    geometry = pool_geometry((conv.stride[0], conv.stride[1]), ceil_mode=True)
    return _Plan(
        path=path,
        module=conv,
        geometry=geometry,
        num_features=conv.out_channels,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )


def _plan_of_pooling(
    path: str, module: nn.MaxPool2d | nn.AvgPool2d, inputs: list[Tensor]
) -> _Plan | None:
    """The plan, or None if the pooling is global in each of its uses.

    Raises:
        ValueError: it is not used, or with different numbers of channels.
    """
    if not inputs:
        raise ValueError(
            f"the number of channels of {path!r} cannot be found, because the network's forward "
            f"does not call it: {_leaving_out(path)}"
        )
    geometry = pool_geometry(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    if all(_covers_the_map(geometry, input) for input in inputs):
        return None
    channels = sorted({input.shape[-3] for input in inputs})
    if len(channels) > 1:
        raise ValueError(
            f"{path!r} ({type(module).__name__}) is used in several places, with "
            f"{' and '.join(map(str, channels))} channels, and the new one takes one number of "
            f"them: give each place a module of its own, or {_leaving_out(path)}"
        )
    return _Plan(
        path=path,
        module=module,
        geometry=geometry,
        num_features=channels[0],
        device=inputs[0].device,
        dtype=inputs[0].dtype,
    )


def _covers_the_map(geometry: PoolGeometry, input: Tensor) -> bool:
    size = input.shape[-2:]
    covered = (
        kernel - padding >= length
        for kernel, padding, length in zip(
            geometry.kernel_size, geometry.padding, size, strict=True
        )
    )
    return geometry.output_size(*size) == (1, 1) and all(covered)


def _warn_that_nothing_changed(model: nn.Module, strided_convs: bool, where: object) -> None:
    advice = "" if strided_convs else "; strided_convs=True replaces the strides of convolutions"
    selected = "" if where is None else " that where selects"
    warnings.warn(
        f"replace_pooling changed nothing in {type(model).__name__}: it has no MaxPool2d or "
        f"AvgPool2d module{selected} but global ones (functions called inside a forward, like "
        f"F.max_pool2d, cannot be replaced){advice}",
        stacklevel=3,
    )


def _describe(name: str, window: PoolGeometry | Replaceable) -> str:
    """``name`` with kernel size, stride and padding, if any: ``MaxPool2d(3/2/1)``."""
    sizes = [_pair(size) for size in (window.kernel_size, window.stride, window.padding)]
    if sizes[-1] == (0, 0):
        sizes.pop()
    text = "/".join(str(h) if h == w else f"{h}x{w}" for h, w in sizes)
    ceil_mode = ", ceil_mode" if getattr(window, "ceil_mode", False) else ""
    return f"{name}({text}{ceil_mode})"


def _pair(value: int | str | tuple[int, ...]) -> tuple[int | str, int | str]:
    # A convolution's padding may be a word.
    return (value, value) if isinstance(value, (int, str)) else (value[0], value[-1])
