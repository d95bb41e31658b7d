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

from .call_arguments import CALLS, read_call
from .pooling_calls import NAME, PoolingCalls
from .subclasses import class_of, give_class, reduced_by

__all__ = ["called_by", "calling_class", "give_pooling_calls", "shield", "without_pooling_calls"]


class _Running(TorchFunctionMode):
    """A forward, or another method, of a module with :class:`PoolingCalls` while it runs.

    A call belongs to the innermost module that is running. So while another one runs inside, or a
    pooling, or a call has been dealt with, ``inside`` is not 0, and calls are passed on.
    """

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        poolings: PoolingCalls = getattr(module, NAME)
        self.poolings = poolings
        self.training = module.training
        self.made = dict(poolings.made_before.get((module.training, method), {}))
        self.inside = 0

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.inside or func not in CALLS:
            return func(*args, **kwargs)
        input, call = read_call(func, args, kwargs)
        if call is None:
            found = self.poolings.find_unknown(func)
        else:
            found = self.poolings.find(call, input, self.training, self.made)
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


def give_pooling_calls(module: nn.Module, path: str, methods: Iterable[str]) -> PoolingCalls:
    """The poolings for the calls of ``module``, of which none is known at first.

    Args:
        module: whose forward calls pooling functions.
        path: the module's.
        methods: those in which it does, if they are not its forward itself. Someone may call them
            without it.
    """
    poolings = getattr(module, NAME, None)
    if not isinstance(poolings, PoolingCalls):
        poolings = PoolingCalls(path).train(module.training)
        module.add_module(NAME, poolings)
    base, known = called_by(module) or (class_of(module), ())
    # The same object: its hooks, and whoever holds it, need not know.
    give_class(module, calling_class(base, tuple(sorted({*known, *methods}))))
    return poolings


def without_pooling_calls(module: nn.Module) -> None:
    """Takes back what :func:`give_pooling_calls` did: the functions are called."""
    if called_by(module) is not None:
        module._modules.pop(NAME, None)


def called_by(module: nn.Module) -> tuple[type[nn.Module], tuple[str, ...]] | None:
    """What the class of ``module`` was made of by :func:`calling_class`; None if it was not."""
    return vars(class_of(module)).get("_called_by")


@cache
def calling_class(base: type[nn.Module], methods: tuple[str, ...] = ()) -> type[nn.Module]:
    """``base`` with a forward, and other methods, whose calls its :class:`PoolingCalls` answer."""

    def refuse_to_be_scripted(self: nn.Module) -> nn.Module:
        raise RuntimeError(
            f"the pooling calls of {base.__name__} were replaced, which TorchScript cannot see: "
            "use torch.jit.trace, torch.export or torch.compile"
        )

    return type(
        base.__name__,
        (base,),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
            "__reduce_ex__": reduced_by(base, _made_calling, methods),
            "__prepare_scriptable__": refuse_to_be_scripted,
            "_called_by": (base, methods),
            "forward": _answering_forward(base),
            **{name: _answering_method(base, name) for name in methods},
        },
    )


def _answering_forward(base: type[nn.Module]) -> Callable[..., Any]:
    @wraps(base.forward)  # torch.fx and torch.export read the arguments' names
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not _has_pooling_calls(self):
            return base.forward(self, *args, **kwargs)
        with _Running(self, "forward"):
            return base.forward(self, *args, **kwargs)

    return forward


def _answering_method(base: type[nn.Module], name: str) -> Callable[..., Any]:
    original = getattr(base, name)

    @wraps(original)
    def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not _has_pooling_calls(self) or _is_running(getattr(self, NAME)):
            return original(self, *args, **kwargs)
        with _Running(self, name):
            return original(self, *args, **kwargs)

    return method


def _has_pooling_calls(module: nn.Module) -> bool:
    """Whether it has what its class lets it have: a new instance, or a slice of one, has not."""
    return NAME in module._modules


def _is_running(poolings: PoolingCalls) -> bool:
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, _Running) and mode.poolings is poolings:
            return True
    return False


def _made_calling(module: nn.Module, methods: tuple[str, ...]) -> nn.Module:
    """A module as pickle makes it, before it has a state, but of its :func:`calling_class`."""
    module.__class__ = calling_class(type(module), methods)
    return module
