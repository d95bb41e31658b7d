"""How ``torch.fx`` records the layers whose forward asks questions of its input: as one call."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import Proxy

__all__ = ["leaf_call"]


def leaf_call(layer: nn.Module, input: Proxy) -> Any:
    """Records the call of a ``layer`` that would be a leaf, were it one of ``torch.nn``.

    Raises:
        NameError: ``layer`` is no part of the network that is traced.
        ValueError: it is the whole of it.
    """
    tracer: Any = input.tracer
    path = tracer.path_of_module(layer)
    if not path:
        raise ValueError(
            f"torch.fx records {type(layer).__name__} as one call of a module in the network that "
            "is traced, and this is the whole of it: trace torch.nn.Sequential(layer)"
        )
    return tracer.create_proxy("call_module", path, (input,), {})
