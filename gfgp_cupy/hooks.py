"""The hooks of a module, and whose they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from types import MethodType, NoneType
from typing import Any

from torch import nn

__all__ = [
    "FORWARD_HOOKS",
    "HOOKS",
    "HOW_CALLED",
    "LIBRARIES",
    "hook_of_copy",
    "libraries_of",
    "library_of",
    "no_hooks",
]

FORWARD_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
HOOKS = (
    *FORWARD_HOOKS,
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
"""The attributes of a module that hold hooks, by the keys that their handles have."""

HOW_CALLED = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Those that tell by the same keys how the hooks are called."""

LIBRARIES = ("torch", "gfgp_cupy")
"""Those whose hooks the forward of every network may need."""

VALUES = (str, int, float, NoneType)


def no_hooks(model: nn.Module) -> dict[int, Any]:
    """What ``copy.deepcopy`` is to take for copies of hooks that are made already.

    What hooks are bound to may keep what cannot be copied, such as maps of the last forward.
    """
    return {
        id(getattr(module, kind)): OrderedDict() for module in model.modules() for kind in HOOKS
    }


def library_of(what: object) -> str:
    """Where a class, or a hook, is from."""
    while isinstance(what, partial):
        what = what.func
    return (getattr(what, "__module__", None) or "").partition(".")[0]


def libraries_of(model: nn.Module) -> set[str]:
    """Those whose hooks the forward of ``model`` may need: its modules', PyTorch's and this one."""
    return {*LIBRARIES, *(library_of(type(module)) for module in model.modules())}


def hook_of_copy(
    hook: Callable[..., Any], copies: dict[int, Any], libraries: set[str]
) -> Callable[..., Any] | None:
    """What the copy of a network has for a ``hook``, without which its forward may be another.

    Such are the hooks of PyTorch, which compute weights for instance, of this library, and of the
    network's own, as those of transformers and timm that collect hidden states.

    Args:
        hook: of a module of the network.
        copies: of all that the network consists of, by their ids.
        libraries: the network's :func:`libraries_of`.

    Returns:
        The hook, bound to what is the copy's; None if it is someone else's.
    """
    if isinstance(hook, partial):
        given = (*hook.args, *hook.keywords.values())
        if not all(id(arg) in copies or isinstance(arg, VALUES) for arg in given):
            return None  # it may keep what it sees in someone else's object
        kept = hook_of_copy(hook.func, copies, libraries)
        args = (copies.get(id(arg), arg) for arg in hook.args)
        named = {name: copies.get(id(arg), arg) for name, arg in hook.keywords.items()}
        return kept and partial(kept, *args, **named)
    if isinstance(hook, MethodType):
        copy = copies.get(id(hook.__self__))
        return None if copy is None else MethodType(hook.__func__, copy)
    of_network = id(hook) in copies or library_of(hook) in libraries
    return copies.get(id(hook), hook) if of_network else None
