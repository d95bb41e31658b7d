"""Modules whose forward calls pooling functions, made to pool with modules of their own instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any

from torch import nn
from torch.overrides import (
    TorchFunctionMode,
    # No public name tells which modes are running; 2.6 to 2.14 have this one.
    _get_current_function_mode_stack,
)

from .call_arguments import CALLS, PoolingCall
from .pooling_calls import NAME, PoolingCalls

__all__ = ["calling_class", "give_pooling_calls", "shield", "without_pooling_calls"]


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
        module.__class__ = calling_class(type(module))
    return poolings


def without_pooling_calls(module: nn.Module) -> None:
    """Takes back what :func:`give_pooling_calls` did to the class: the functions are called."""
    base = vars(type(module)).get("_called_by")
    if base is not None:
        module.__class__ = base


@cache
def calling_class(base: type[nn.Module]) -> type[nn.Module]:
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
    """A module as pickle makes it, before it has a state, but of its :func:`calling_class`."""
    module = make(*arguments)
    module.__class__ = calling_class(type(module))
    return module
