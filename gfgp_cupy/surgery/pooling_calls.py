"""The poolings that take the place of a module's calls of pooling functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .call_arguments import PoolingCall, covers_the_map

__all__ = ["NAME", "CallKey", "PoolingCalls"]

NAME = "pooling_calls"
"""The attribute of a calling module that holds its :class:`PoolingCalls`."""


class CallKey(NamedTuple):
    """What tells a call from the others of a module.

    Attributes:
        call: its arguments.
        num_features: the number of channels of its input.
        ordinal: how many calls with these come before it in one forward.
    """

    call: PoolingCall
    num_features: int
    ordinal: int


class PoolingCalls(nn.ModuleList):
    """The poolings that take the place of a module's calls of pooling functions.

    Attributes:
        path: the calling module's, when they were replaced.
        sites: for the arguments of each call, the calls by their number of channels, in the order
            in which one forward makes them: a pooling's index, or None where the function stays.
        whole_map: the kinds of calls that pool whole maps, with windows as large as those.
        made_before: for each method in which calls are made, how many of them the forward makes
            before it.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.sites: dict[PoolingCall, dict[int, list[int | None]]] = {}
        self.whole_map: set[str] = set()
        self.made_before: dict[str, dict[tuple[PoolingCall, int], int]] = {}

    def forward(self, input: Any) -> Any:
        """``input``: a network that runs all of its children in a row is not to run these."""
        return input

    def expect(self, key: CallKey, methods: Iterable[str], whole_map: bool) -> None:
        """The call is made; the function stays, if no pooling has been put there.

        Args:
            key: what tells it from the others; to be expected in the order of their ordinals.
            methods: in which it is made.
            whole_map: whether it pools whole maps.
        """
        ordinals = self.sites.setdefault(key.call, {}).setdefault(key.num_features, [])
        ordinals += [None] * (key.ordinal + 1 - len(ordinals))
        for method in methods:
            before = self.made_before.setdefault(method, {})
            before.setdefault((key.call, key.num_features), key.ordinal)
        if whole_map:
            self.whole_map.add(key.call.kind)

    def put(self, key: CallKey, pooling: nn.Module) -> None:
        """``pooling`` takes the place of an expected call."""
        self.sites[key.call][key.num_features][key.ordinal] = len(self)
        self.append(pooling)

    def index_of(self, key: CallKey) -> int | None:
        """The index of the pooling in the place of a call, if there is one."""
        ordinals = self.sites.get(key.call, {}).get(key.num_features, [])
        return ordinals[key.ordinal] if key.ordinal < len(ordinals) else None

    def find(
        self, call: PoolingCall, input: Tensor, made: dict[tuple[PoolingCall, int], int]
    ) -> int | None:
        """Which pooling takes the place of a call that is being made; None: the function stays.

        Args:
            call, input: its arguments.
            made: how many such calls this forward has made so far; counts this one.

        Raises:
            RuntimeError: there was no such call when the poolings were replaced.
        """
        by_channels = self.sites.get(call, {})
        if isinstance(input, Tensor):
            channels = _channels(input)
        elif len(by_channels) == 1:  # torch.fx knows no shapes
            channels = next(iter(by_channels))
        else:
            channels = 0
        ordinals = by_channels.get(channels, [])
        ordinal = made.get((call, channels), 0)
        made[(call, channels)] = ordinal + 1
        if ordinal < len(ordinals):
            return ordinals[ordinal]
        if isinstance(input, Tensor) and covers_the_map(call, input):
            return None
        raise RuntimeError(self._unseen(call, channels, ordinal))

    def find_unknown(self, function: Callable[..., Any]) -> None:
        """None, for a call whose window is not known, as one of the whole map.

        Raises:
            RuntimeError: there was none of the whole map when the poolings were replaced.
        """
        if function.__name__.partition("_")[0] not in self.whole_map:
            raise RuntimeError(
                f"{self._name()} calls {function.__name__} with a window that depends on the size "
                "of the image, and its calls were replaced for one size: trace or export the "
                "network before replace_pooling, or give the call a window of numbers"
            )

    def _name(self) -> str:
        return repr(self.path) if self.path else "the network"

    def _unseen(self, call: PoolingCall, channels: int, ordinal: int) -> str:
        again = f" {ordinal + 1} times in one forward" if ordinal else ""
        of = f" of {channels} channels" if channels else ""
        return (
            f"{self._name()} calls {call.kind}_pool2d(kernel_size={call.kernel_size}, "
            f"stride={call.stride}, padding={call.padding}, ceil_mode={call.ceil_mode}){of}"
            f"{again}, which it did not when replace_pooling(…, functional=True) replaced its "
            "calls: give that a sample_shape for which it does, or leave the module out with "
            f"where=lambda path, module: path != {self.path!r}"
        )


def _channels(input: Tensor) -> int:
    if not torch.jit.is_tracing():
        return input.shape[-3]
    with warnings.catch_warnings():  # a fixed number of channels is what is meant
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(input.shape[-3])
