"""Modules whose forward calls pooling functions, made to pool with modules of their own instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import (
    TorchFunctionMode,
    # No public name tells which modes are running; 2.6 to 2.14 have this one.
    _get_current_function_mode_stack,
)

from .call_arguments import CALLS, PoolingCall, covers_the_map

__all__ = ["NAME", "PoolingCalls", "give_pooling_calls", "shield", "without_pooling_calls"]

NAME = "pooling_calls"
"""The attribute of a calling module that holds its :class:`PoolingCalls`."""


class PoolingCalls(nn.ModuleList):
    """The poolings that take the place of a module's calls of pooling functions.

    Attributes:
        path: the calling module's, when they were replaced.
        sites: for each call with its arguments, the calls by their number of channels, in the order
            in which one forward makes them: a pooling's index, or None where the function stays.
        whole_map: the kinds of calls that pool whole maps, whose windows are as large as these.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.sites: dict[PoolingCall, dict[int, list[int | None]]] = {}
        self.whole_map: set[str] = set()

    def forward(self, input: Any) -> Any:
        """``input``: a network that runs all of its children in a row is not to run these."""
        return input

    def find(
        self, call: PoolingCall, input: Tensor, made: dict[tuple[PoolingCall, int], int]
    ) -> int | None:
        """Which pooling takes the place of a call; None where the function stays.

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
        sites = by_channels.get(channels, [])
        ordinal = made.get((call, channels), 0)
        made[(call, channels)] = ordinal + 1
        if ordinal < len(sites):
            return sites[ordinal]
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
            f"stride={call.stride}, padding={call.padding}, ceil_mode={call.ceil_mode}){of}{again}, "
            "which it did not when replace_pooling(…, functional=True) replaced its calls: replace "
            "them with a sample_shape for which it does, or leave it out with "
            f"where=lambda path, module: path != {self.path!r}"
        )


class _Running(TorchFunctionMode):
    """One forward of a module with :class:`PoolingCalls`.

    A call belongs to the innermost module that is running. So while another one runs inside, or a
    pooling, or a call has been dealt with, ``inside`` is not 0, and calls are passed on.
    """

    def __init__(self, poolings: PoolingCalls) -> None:
        super().__init__()
        self.poolings = poolings
        self.made: dict[tuple[PoolingCall, int], int] = {}
        self.inside = 0

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.inside or func not in CALLS:
            return func(*args, **kwargs)
        input, call = CALLS[func](*args, **kwargs)
        if call is None:
            found = self.poolings.find_unknown(func)
        else:
            found = self.poolings.find(call, input, self.made)
        _step(1)
        try:
            return func(*args, **kwargs) if found is None else self.poolings[found](input)
        finally:
            _step(-1)


def _channels(input: Tensor) -> int:
    if not torch.jit.is_tracing():
        return input.shape[-3]
    with warnings.catch_warnings():  # a fixed number of channels is what is meant
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(input.shape[-3])


def _step(by: int) -> None:
    """Into a module, or out of it again."""
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, _Running):
            mode.inside += by


def _step_in(module: nn.Module, args: Any) -> None:
    _step(1)


def _step_out(module: nn.Module, args: Any, output: Any) -> None:
    _step(-1)


def shield(module: nn.Module) -> None:
    """Calls of pooling functions that ``module`` makes stay, whatever module runs it."""
    if _step_in not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_step_in)
        module.register_forward_hook(_step_out, always_call=True)


def give_pooling_calls(module: nn.Module, path: str) -> PoolingCalls:
    """The poolings for the calls of ``module``, which has none at first: fill in ``sites``."""
    poolings = getattr(module, NAME, None)
    if not isinstance(poolings, PoolingCalls):
        poolings = PoolingCalls(path).train(module.training)
        module.add_module(NAME, poolings)
        # Its name in the state dict, its hooks, and whoever holds it need not know.
        module.__class__ = _calling(type(module))
    return poolings


def without_pooling_calls(module: nn.Module) -> None:
    """Takes back what :func:`give_pooling_calls` did to the class: the functions are called."""
    base = getattr(type(module), "_called_by", None)
    if base is not None:
        module.__class__ = base


@cache
def _calling(base: type[nn.Module]) -> type[nn.Module]:
    """``base`` with a forward whose calls are dealt with by its :class:`PoolingCalls`."""

    @wraps(base.forward)  # torch.fx and torch.export read the arguments' names
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _Running(getattr(self, NAME)):
            return base.forward(self, *args, **kwargs)

    def reduce(self: nn.Module, protocol: Any) -> Any:
        make, arguments, *state = base.__reduce_ex__(self, protocol)
        arguments = tuple(base if argument is calling else argument for argument in arguments)
        return (_made_calling, (make, arguments), *state)

    def refuse_to_be_scripted(self: nn.Module) -> nn.Module:
        raise RuntimeError(
            f"the pooling calls of {base.__name__} were replaced, which TorchScript cannot see: "
            "use torch.jit.trace, torch.export or torch.compile"
        )

    calling = type(
        base.__name__,
        (base,),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
            "__reduce_ex__": reduce,
            "__prepare_scriptable__": refuse_to_be_scripted,
            "forward": forward,
            "_called_by": base,
        },
    )
    return calling


def _made_calling(make: Callable[..., nn.Module], arguments: tuple[Any, ...]) -> nn.Module:
    """A module as pickle makes it before it has a state, with the class of :func:`_calling`."""
    module = make(*arguments)
    module.__class__ = _calling(type(module))
    return module
