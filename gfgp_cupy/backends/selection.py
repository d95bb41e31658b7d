"""Which backend serves a device, and how to ask for another."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import platform
import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar
from types import ModuleType
from typing import Any, TypeVar

import torch

__all__ = [
    "automatic_backend",
    "backend_module",
    "backend_report",
    "resolved",
    "select_backend",
    "use_backend",
]

BACKENDS = ("cupy", "numba", "torch")
"""By preference: the first that can serve a device does."""

MADE_FOR = {"cuda": "cupy", "cpu": "numba"}
"""The backend that is made for a type of device; ``torch`` serves any, and slowly."""

ENVIRONMENT_VARIABLE = "GFGP_CUPY_BACKEND"

Function = TypeVar("Function", bound=Callable[..., Any])

RUNS_LATER = (
    inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction,
)  # fmt: skip

# PyTorch 2.6 has none. There is_compiling says the same where Python itself calls it, not Dynamo.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

_requested: ContextVar[tuple[str, ...]] = ContextVar("gfgp_cupy_backend", default=())
"""By each block that is open, the innermost last."""


class use_backend(ContextDecorator):
    """Chooses the backend for calls inside the ``with`` block or the decorated function, in this
    thread or task.

    Called by itself, it chooses nothing. A forward pass's backward pass runs on the same backend,
    wherever it is called; but ``torch.utils.checkpoint`` makes the forward pass again there, so a
    checkpointed function has the block inside it. A function of ``torch.compile`` keeps the backend
    of the call that compiled it, whatever block a later call is in.

    Args:
        name: ``"auto"`` (the fastest that works for the tensor's device), ``"cupy"``, ``"numba"``
            or ``"torch"``. A backend asked for by name that cannot serve the tensor's device raises
            an error; ``"auto"`` falls back, and warns once where that is slow. The environment
            variable ``GFGP_CUPY_BACKEND`` sets the same for code outside any such block.

    Raises:
        ValueError: ``name`` is none of these.
        TypeError: what is decorated is a generator or a coroutine function, whose body runs after
            its call; it can have the block inside it.

    Example:
        >>> import torch
        >>> from gfgp_cupy.functional import max_ent_pool2d
        >>> with use_backend("torch"):
        ...     max_ent_pool2d(torch.ones(1, 1, 2, 2), 1.0, kernel_size=2)
        tensor([[[[1.]]]])
    """

    # It may be entered again, also inside itself: all that it has is a name.
    def __init__(self, name: str) -> None:
        _check_name("name", name)
        self._name = name

    def __enter__(self) -> None:
        _requested.set((*_requested.get(), self._name))

    def __exit__(self, *_: object) -> None:
        _requested.set(_requested.get()[:-1])

    def __call__(self, func: Function) -> Function:
        if any(runs_later(func) for runs_later in RUNS_LATER):
            raise TypeError(
                f"use_backend({self._name!r}) cannot decorate {func.__qualname__}, whose body runs "
                f"after its call: begin the body with the block, with use_backend({self._name!r})"
            )
        return super().__call__(func)


def select_backend(device: torch.device) -> str:
    """The name of the backend that serves ``device`` now.

    While a program is exported, which may run on other devices and machines, that is ``"auto"``
    unless a backend is asked for by name: it is for :func:`resolved` there.

    Raises:
        RuntimeError: a backend asked for by name cannot serve the device.
        ValueError: ``GFGP_CUPY_BACKEND`` names no backend.
    """
    name = _asked_for()
    if name != "auto":
        return resolved(name, device)
    return name if _is_exporting() else automatic_backend(device)


# torch.compiler.assume_constant_result does this and nothing else, but imports all of Dynamo.
select_backend._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def resolved(name: str, device: torch.device) -> str:
    """The name of the backend that serves ``device`` where an operator is told ``name``.

    ``"auto"``, of an exported program, is what ``GFGP_CUPY_BACKEND`` says where it runs. Not what
    ``use_backend`` says: its block is not that of the thread in which the backward pass runs.

    Raises:
        RuntimeError: it is a backend's, which cannot serve the device.
        ValueError: ``GFGP_CUPY_BACKEND`` names no backend.
    """
    if name == "auto":
        name = _asked_for_of_all()
    if name == "auto":
        return automatic_backend(device)
    reason = backend_module(name).unavailable(device)
    if reason is not None:
        raise RuntimeError(
            f"backend '{name}' was asked for but cannot serve {device} tensors: {reason}. "
            f"Use 'auto' to fall back to another backend: unset {ENVIRONMENT_VARIABLE} where that "
            "asks for it; of an exported program that holds it, export it anew with 'auto'."
        )
    return name


@functools.cache
def backend_module(name: str) -> ModuleType:
    """The module that implements backend ``name``.

    Raises:
        ValueError: there is none of that name.
    """
    _check_name("backend", name)
    return importlib.import_module(f"{__package__}.{name}")


def backend_report() -> str:
    """Says in words which backend serves each device of this machine, and why not the others.

    It is the report of here and now: inside a ``use_backend`` block, that of the backend named.

    Raises:
        ValueError: ``GFGP_CUPY_BACKEND`` names no backend.

    Example:
        >>> print(backend_report())  # doctest: +ELLIPSIS
        torch ..., Python ...
        backend requested: ...
        cpu: ...
          cupy: no (...)
        ...
    """
    count = torch.cuda.device_count()
    devices = [torch.device("cpu")] + [torch.device("cuda", index) for index in range(count)]
    requested = _asked_for()
    lines = [
        f"torch {torch.__version__}, Python {platform.python_version()}",
        f"backend requested: {requested}",
    ]
    for device in devices:
        reasons = {name: _reason_now(name, device) for name in BACKENDS}
        if requested == "auto":
            able = (name for name, reason in reasons.items() if reason is None)
            served_by = next(able, "none")
        elif reasons[requested] is None:
            served_by = requested
        else:
            served_by = f"none, for '{requested}' cannot serve it"
        what = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
        lines.append(f"{device}{what}: {served_by}")
        lines += [f"  {name}: no ({reason})" for name, reason in reasons.items() if reason]
    if count == 0:
        lines.append("cuda: torch sees no device")
    return "\n".join(lines)


def _reason_now(name: str, device: torch.device) -> str | None:
    """Why a backend cannot serve ``device`` at the moment: its memory may be full."""
    try:
        return backend_module(name).unavailable(device)
    except torch.OutOfMemoryError as error:
        return str(error)


@functools.cache
def automatic_backend(device: torch.device) -> str:
    """The name of the first backend that can serve ``device``, found out once.

    Warns, once, where that is not the one made for devices of this kind.
    """
    able = (name for name in BACKENDS if backend_module(name).unavailable(device) is None)
    # Tensors without data may be on a device that is not there.
    name = next(able, BACKENDS[-1])
    wanted = MADE_FOR.get(device.type, name)
    if name != wanted:
        warnings.warn(
            f"pooling on {device} runs on the slower '{name}' backend, because '{wanted}' "
            f"cannot: {backend_module(wanted).unavailable(device)}",
            RuntimeWarning,
            stacklevel=7,
        )
    return name


def _asked_for() -> str:
    names = _requested.get()
    return names[-1] if names else _asked_for_of_all()


def _asked_for_of_all() -> str:
    """What the environment asks for, of all blocks and threads of the program."""
    name = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    _check_name(ENVIRONMENT_VARIABLE, name)
    return name


def _check_name(argument: str, name: str) -> None:
    if name != "auto" and name not in BACKENDS:
        choices = ", ".join(repr(choice) for choice in ("auto", *BACKENDS))
        raise ValueError(f"{argument} must be one of {choices}, got {name!r}")
