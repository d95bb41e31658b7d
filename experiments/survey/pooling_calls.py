"""The poolings that a forward pass calls, counted without ``gfgp_cupy``.

PyTorch is asked, not the network's modules: every pooling function that is called, by a module of
``torch.nn`` or in anyone's ``forward``, passes a ``TorchFunctionMode``; what would pass it by (code
compiled by ``torch.jit``, functions of ``torch._C``) still passes a ``TorchDispatchMode``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_all
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

FUNCTION = re.compile(
    r"_?(?P<kind>adaptive_avg|adaptive_max|fractional_max|avg|max|lp)_pool(?P<dims>[123])d"
)
BELOW = re.compile(r"(avg|max)_pool[23]d(_with_indices)?$")


@dataclass(frozen=True)
class Pooling:
    """A place that pools: a module that is a pooling, or one of the calls in a module's forward.

    Attributes:
        path: of the innermost module that calls it; of a pooling module, its own.
        function: such as ``"max_pool2d"``.
        window: kernel size, stride and padding, or the size of an adaptive pooling's output.
        ordinal: which of the calls of this function in one forward of the module.
        in_module: whether the module is one of ``torch.nn``'s poolings, or a subclass.
        extent: ``"part"`` of the map; ``"map"``: all of it; ``"pixel"``: windows of one element;
            ``"same"``: an adaptive pooling to the size that the map has.
        stride_one: whether no size is lowered.
        dims: 1, 2 or 3.
    """

    path: str
    function: str
    window: str
    ordinal: int
    in_module: bool
    extent: str
    stride_one: bool
    dims: int

    def __str__(self) -> str:
        return f"{self.path or '(root)'} {self.function}({self.window})"


@dataclass
class Calls:
    """What forward passes called.

    Attributes:
        poolings: the places, in the order of their first calls.
        sizes: of the outputs of poolings of a part of the map, one a call.
        replaced: number of calls of each replacing layer by its path.
        modules: paths of all modules that were called.
    """

    poolings: dict[Pooling, None] = field(default_factory=dict)
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    modules: set[str] = field(default_factory=set)

    @property
    def partial(self) -> list[Pooling]:
        """Those of a part of the map, which the survey is about."""
        return [each for each in self.poolings if each.extent == "part"]


@contextmanager
def recorded(
    model: nn.Module, calls: Calls, replacing: type[nn.Module] | tuple[type[nn.Module], ...] = ()
) -> Iterator[None]:
    """Add what ``model`` calls inside the block to ``calls``.

    Calls inside modules of the types ``replacing`` are their own business.
    """
    recorder = _Recorder(model, calls, replacing)
    enter = hooks_of_all.register_module_forward_pre_hook(recorder.enter)
    leave = hooks_of_all.register_module_forward_hook(recorder.leave, always_call=True)
    try:
        with recorder.functions(), recorder.operators():
            yield
    finally:
        enter.remove()
        leave.remove()


@dataclass
class _Forward:
    """A module's forward that is running, and how often it has called each function."""

    path: str
    module: nn.Module | None
    called: Counter[str] = field(default_factory=Counter)


class _Recorder:
    def __init__(self, model: nn.Module, calls: Calls, replacing: Any) -> None:
        self.calls = calls
        self.replacing = replacing
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.running = [_Forward("", None)]
        self.inside = 0
        """How many recorded functions or replacing modules are running."""

    def enter(self, module: nn.Module, args: Any) -> None:
        # A module made in a forward is its maker's.
        path = self.paths.get(id(module), self.running[-1].path)
        self.running.append(_Forward(path, module))
        self.calls.modules.add(path)
        self.inside += isinstance(module, self.replacing)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        forward = self.running.pop()
        if isinstance(module, self.replacing):
            self.inside -= 1
            if not self.inside:
                self.calls.replaced[forward.path] += 1
                self.calls.sizes[tuple(output.shape)] += 1

    def functions(self) -> TorchFunctionMode:
        recorder = self

        class Functions(TorchFunctionMode):
            def __torch_function__(self, function, types, args=(), kwargs=None):
                name = getattr(function, "__name__", "")
                # An operator comes from below, where the other mode records it.
                is_operator = isinstance(function, torch._ops.OpOverload)
                if recorder.inside or is_operator or not FUNCTION.match(name):
                    return function(*args, **(kwargs or {}))
                recorder.inside += 1
                try:
                    output = function(*args, **(kwargs or {}))
                finally:
                    recorder.inside -= 1
                recorder.add(name, output, *args, **(kwargs or {}))
                return output

        return Functions()

    def operators(self) -> TorchDispatchMode:
        recorder = self

        class Operators(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                output = function(*args, **(kwargs or {}))
                name = function.overloadpacket.__name__
                if not recorder.inside and BELOW.match(name):
                    recorder.add(name, output, *args, **(kwargs or {}))
                return output

        return Operators()

    def add(self, name: str, output: Any, input: Tensor, *args: Any, **named: Any) -> None:
        match = FUNCTION.match(name)
        assert match is not None
        output = output[0] if isinstance(output, tuple) else output
        dims = int(match["dims"])
        forward = self.running[-1]
        window = _window(match["kind"], dims, args, named)
        function = match.group().removeprefix("_")
        self.calls.poolings[
            Pooling(
                path=forward.path,
                function=function,
                window=window.text,
                ordinal=forward.called[function],
                in_module=isinstance(forward.module, POOLING_MODULES),
                extent=window.extent(input.shape[-dims:], output.shape[-dims:]),
                stride_one=set(window.stride) == {1},
                dims=dims,
            )
        ] = None
        forward.called[function] += 1
        if window.extent(input.shape[-dims:], output.shape[-dims:]) == "part":
            self.calls.sizes[tuple(output.shape)] += 1


@dataclass(frozen=True)
class _Window:
    text: str
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()

    def extent(self, size: torch.Size, pooled: torch.Size) -> str:
        if set(self.kernel) == {1}:
            return "pixel"
        if not self.kernel and pooled == size:
            return "same"
        if set(pooled) == {1}:
            covered = not self.kernel or all(
                kernel - padding >= length
                for kernel, padding, length in zip(self.kernel, self.padding, size, strict=True)
            )
            return "map" if covered else "part"
        return "part"


def _window(kind: str, dims: int, args: tuple[Any, ...], named: dict[str, Any]) -> _Window:
    names = {
        "adaptive_avg": ("output_size",),
        "adaptive_max": ("output_size",),
        "fractional_max": ("kernel_size",),
        "lp": ("norm_type", "kernel_size", "stride"),
    }.get(kind, ("kernel_size", "stride", "padding"))
    given = {**dict(zip(names, args, strict=False)), **named}
    if "output_size" in names:
        return _Window(f"to {given['output_size']}")
    kernel = _sizes(given["kernel_size"], dims)
    stride = _sizes(given.get("stride") or kernel, dims) if kind != "fractional_max" else ()
    padding = _sizes(given.get("padding") or 0, dims)
    sizes = [size for size in (kernel, stride, padding) if any(size)]
    return _Window("/".join(map(_text, sizes)), kernel, stride, padding)


def _sizes(value: Any, dims: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(each) for each in (values * dims if len(values) == 1 else values))


def _text(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))


POOLING_MODULES = tuple(
    getattr(nn, name) for name in dir(nn) if re.search(r"(Max|Avg|LP)Pool[123]d$", name)
)
