"""What others have set on a pooling, and goes to the one that takes its place."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

from torch import nn

from ..hooks import HOOKS, HOW_CALLED
from .equivalents import AVERAGES, MAXIMA

__all__ = ["hand_over", "what_cannot_move", "without_hooks"]

TENSORS = ("_parameters", "_buffers")
OF_EVERY_MODULE = {*vars(nn.Module()), "_compiled_call_impl"}
OF_EVERY_POOLING = {*vars(nn.MaxPool2d(1)), *vars(nn.AvgPool2d(1))} | OF_EVERY_MODULE


def what_cannot_move(old: nn.Module, new: nn.Module) -> str | None:
    """Why ``new`` cannot take over what others have set on ``old``; None if it can."""
    defined = {
        name for cls in type(new).__mro__ if cls not in nn.Module.__mro__ for name in vars(cls)
    }
    taken = defined | {*vars(new), *new._parameters, *new._buffers, *new._modules} - OF_EVERY_MODULE
    for name in (*_attributes(old), *(name for _, name in _tensors_and_modules(old))):
        if name in taken:
            return f"has an attribute {name!r}, as a {type(new).__name__} has of its own: rename it"
    for kind in HOOKS:
        for hook in getattr(old, kind).values():
            if getattr(hook, "__self__", None) is old:
                return f"has its own method {hook.__name__!r} for a hook: remove it first"
    return None


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """Gives ``new`` the attributes, tensors, modules and hooks that others have set on ``old``.

    What ultralytics keeps on each module (``f``, ``i``, ``type``) and how features are read
    goes on working, and handles that were returned for hooks remove them from ``new``.
    """
    for name, value in _attributes(old).items():
        setattr(new, name, value)
    for kind, name in _tensors_and_modules(old):
        getattr(new, kind)[name] = getattr(old, kind)[name]
    new._non_persistent_buffers_set |= old._non_persistent_buffers_set
    if old._backward_hooks:
        new._is_full_backward_hook = old._is_full_backward_hook
    for kind in (*HOOKS, *HOW_CALLED):
        hooks = getattr(old, kind)
        if hooks:
            # The handles know this very dict. The old pooling may be in another place, too.
            setattr(old, kind, hooks.copy())
            own = getattr(new, kind)
            hooks.update({key: _bound_to(new, hook) for key, hook in hooks.items()})
            for key, hook in reversed(own.items()):
                hooks[key] = hook
                hooks.move_to_end(key, last=False)
            setattr(new, kind, hooks)


def without_hooks(old: nn.Module) -> nn.Module:
    """A pooling that pools as ``old`` does, whose hooks another one takes over."""
    # No deep copy, which fails on maps that others keep on it.
    pooling = copy(old)
    for kind in (*HOOKS, *HOW_CALLED):
        setattr(pooling, kind, OrderedDict())
    return pooling


def _attributes(old: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(old).items() if name not in OF_EVERY_POOLING}


def _tensors_and_modules(old: nn.Module) -> Iterator[tuple[str, str]]:
    plain = type(old).forward in [kind.forward for kind in (*MAXIMA, *AVERAGES)]
    # The modules of a forward of its own are part of it.
    for kind in (*TENSORS, "_modules") if plain else TENSORS:
        for name in getattr(old, kind):
            yield kind, name


def _bound_to(module: nn.Module, hook: Any) -> Callable[..., Any]:
    """``hook``, called with ``module`` if ``register_load_state_dict_pre_hook`` was given it."""
    return type(hook)(hook.hook, module) if getattr(hook, "with_module", False) else hook
