"""How poolings take part in PyTorch's ``__torch_function__`` protocol, as its own functions do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["overridable"]

P = ParamSpec("P")
R = TypeVar("R")


def overridable(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a public function: arguments that are no plain tensors, and modes, may override it.

    So ``torch.fx``, whose proxies are such arguments, records it as one call.
    """

    @functools.wraps(function)
    def overridden(*args: P.args, **kwargs: P.kwargs) -> R:
        arguments = (*args, *kwargs.values()) if kwargs else args
        if has_torch_function(arguments):
            return handle_torch_function(overridden, arguments, *args, **kwargs)
        return function(*args, **kwargs)

    return overridden
