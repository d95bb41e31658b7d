"""The hooks of a module, and whose they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

__all__ = ["FORWARD_HOOKS", "HOOKS", "HOW_CALLED", "hook_of_copy", "library_of", "no_hooks"]

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


def no_hooks(model: nn.Module) -> dict[int, Any]:
    """What ``copy.deepcopy`` is to take for copies of hooks that are made already.

    What hooks are bound to may keep what cannot be copied, such as maps of the last forward.
    """
    return {
        id(getattr(module, kind)): OrderedDict() for module in model.modules() for kind in HOOKS
    }


def library_of(what: object) -> str:
    """Where a class, or a hook, is from."""
    return (getattr(what, "__module__", None) or "").partition(".")[0]


def hook_of_copy(
    module: nn.Module, hook: Callable[..., Any], copies: dict[int, Any]
) -> Callable[..., Any] | None:
    """What a copy of ``module`` has for its ``hook``, without which the forward may be another.

    Such are the hooks of PyTorch, which compute weights for instance, of this library, and of the
    module's own, as transformers' that collect hidden states.

    Args:
        module: that has the hook.
        copies: of all modules of its network, by their ids.

    Returns:
        The hook, of the copy if it is a module's method; None if it is someone else's.
    """
    if library_of(hook) not in (*LIBRARIES, library_of(type(module))):
        return None
    bound_to = getattr(hook, "__self__", None)
    if bound_to is None:
        return hook
    copy = copies.get(id(bound_to))
    return MethodType(hook.__func__, copy) if isinstance(copy, nn.Module) else None
