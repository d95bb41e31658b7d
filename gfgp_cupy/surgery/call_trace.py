"""Which pooling functions the modules of a network call in their forwards."""

from __future__ import annotations

import inspect
import math
import re
import sys
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..autocast import mean_dtype
from ..tracing import alike
from .call_arguments import CALLS, PoolingCall, covers_the_map, read_call
from .pooling_calls import NAME, CallKey, PoolingCalls, Slot
from .window import describe

__all__ = ["CallSite", "CallTrace", "Course"]

POOLING = re.compile(r"((adaptive_|fractional_)?(max|avg)|lp)_pool(?P<axes>[123])d(_with_indices)?")

FILLING = {"pad", "constant_pad_nd", "masked_fill", "masked_fill_", "where"}
"""The functions by which forwards write a number into a map."""


def channels_of(function: str, input: Tensor) -> int | None:
    """How many channels the pooling function of this name has in its input; None without any."""
    matched = POOLING.fullmatch(function)
    assert matched is not None
    axes = int(matched["axes"])
    return input.shape[-1 - axes] if input.dim() > axes else None


@dataclass
class CallSite:
    """A place in a forward where a module calls a pooling function.

    Attributes:
        path: the module's, whose forward is the innermost that runs.
        function: its name in ``torch.nn.functional``.
        call: its arguments; None if it is none of those that can be replaced.
        stand_in: the module of PyTorch that does the same.
        slots: the mode of the module, and how many calls with these arguments and channels come
            before it in one forward.
        positions: likewise, but that calls of other numbers of channels count as well.
        inputs: tensors without data, one for each time that it was called.
        around: paths of the modules whose forwards were running around the innermost.
        methods: of the module, in which it is called, if they are not its forward itself.
        checkpointed: whether it is called by ``torch.utils.checkpoint``, inside the module.
        infinite: whether it is given a map that was padded or filled with infinity.
    """

    path: str
    function: str
    call: PoolingCall | None
    stand_in: nn.Module
    slots: set[Slot] = field(default_factory=set)
    positions: set[Slot] = field(default_factory=set)
    inputs: list[Tensor] = field(default_factory=list)
    around: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    checkpointed: bool = False
    infinite: bool = False

    @property
    def num_features(self) -> int:
        channels = channels_of(self.function, self.inputs[0])
        assert channels is not None
        return channels

    @property
    def key(self) -> CallKey:
        """What tells it, and its slots, from the module's other calls.

        Raises:
            TypeError: ``call`` is None.
        """
        if self.call is None:
            raise TypeError(f"{self.description} has no key")
        return CallKey(self.call, self.num_features)

    @property
    def covers_the_map(self) -> bool:
        """Whether its window is the whole map in each of its uses."""
        call = self.call
        return call is not None and all(covers_the_map(call, input) for input in self.inputs)

    @property
    def description(self) -> str:
        """``F.max_pool2d(3/2/1)``."""
        return describe(f"F.{self.function}", self.stand_in)

    def pooling_in(self, module: nn.Module) -> str | None:
        """The path in the calling ``module`` of the pooling that has taken the call's place."""
        poolings = getattr(module, NAME, None)
        if self.call is None or not isinstance(poolings, PoolingCalls):
            return None
        index = poolings.index_of(self.key, self.slots)
        return None if index is None else f"{NAME}.{index}"


@dataclass
class _Forward:
    path: str
    module: nn.Module
    counts: dict[object, int] = field(default_factory=dict)

    def count(self, what: object) -> int:
        """How many of these there were before."""
        self.counts[what] = self.counts.get(what, -1) + 1
        return self.counts[what]


@dataclass
class Course:
    """What one forward of a network did.

    Attributes:
        runs: how often each module ran, by path.
        functions: how often it called each of PyTorch's functions, by path and the function's name.
        outputs: of the tensors that the network returned.
    """

    runs: Counter[str] = field(default_factory=Counter)
    functions: Counter[tuple[str, str]] = field(default_factory=Counter)
    outputs: list[tuple[int, ...]] = field(default_factory=list)


class CallTrace(TorchFunctionMode):
    """Records the calls of pooling functions while a network runs under it.

    Attributes:
        course: of the forward that is running, or was the last.
        sites: what was recorded.
        made: the tensors that functions have returned, of those that are still there.
        filled: likewise, those among them that were padded or filled with infinity.
        running: the forwards that are running now, the innermost last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.course = Course()
        self.sites: list[CallSite] = []
        self.made: list[weakref.ref[Tensor]] = []
        self.filled: list[weakref.ref[Tensor]] = []
        self._found: dict[object, CallSite] = {}
        self.running: list[_Forward] = []

    @contextmanager
    def forward_of(self, path: str, module: nn.Module) -> Iterator[None]:
        """The block is the forward of the module at ``path``."""
        self.running.append(_Forward(path, module))
        self.course.runs[path] += 1
        try:
            yield
        finally:
            self.running.pop()

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.running:
            self.course.functions[self.running[-1].path, name] += 1
        if self.running and POOLING.fullmatch(name):
            if func in CALLS:
                input, call = read_call(func, args, kwargs)
            else:
                input, call = args[0] if args else kwargs["input"], None
            stand_in = _stand_in(name, args, kwargs) if call is None else call.as_module()
            self._record(name, input, call, stand_in)
        output = func(*args, **kwargs)
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        made = [weakref.ref(each) for each in outputs if isinstance(each, Tensor)]
        self.made += made
        if name in FILLING and any(map(_is_infinite, (*args, *kwargs.values()))):
            self.filled += made
        return output

    def has_filled(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` itself was padded or filled with infinity."""
        # By identity, for == of tensors compares their elements.
        return any(reference() is tensor for reference in self.filled)

    def _record(
        self, name: str, input: Tensor, call: PoolingCall | None, stand_in: nn.Module
    ) -> None:
        forward = self.running[-1]
        if f".{NAME}." in f".{forward.path}.":
            return  # inside the pooling that has taken a call's place already
        key = (call or repr(stand_in), channels_of(name, input))
        frames = list(_frames_of_forward())
        line = (key, *((frame.f_code, frame.f_lasti) for frame in frames))
        training = forward.module.training
        slot = (training, forward.count(key))
        # The same line, in the other mode perhaps, is the same call; so is the same slot, for a
        # forward that runs cannot tell.
        by_line = (forward.path, line, forward.count(line))
        by_slot = (forward.path, key, slot)
        site = self._found.get(by_slot) or self._found.get(by_line)
        if site is None:
            site = CallSite(forward.path, name, call, stand_in)
            self.sites.append(site)
        self._found[by_slot] = self._found[by_line] = site
        site.slots.add(slot)
        site.positions.add((training, forward.count(call)))
        # As for a head's mean: autocast's half type is not that of the weights.
        site.inputs.append(alike(input, mean_dtype(input)))
        site.infinite |= self.has_filled(input)
        site.around.update(around.path for around in self.running[:-1])
        for frame in frames:
            site.checkpointed |= frame.f_code.co_filename == torch.utils.checkpoint.__file__
            if method := _name_of_method(forward.module, frame):
                site.methods.add(method)


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _stand_in(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """The module of PyTorch that does what a call of the function ``name`` does."""
    words = name.removesuffix("_with_indices").replace("lp_", "LP_").split("_")
    cls = getattr(nn, "".join(word[0].upper() + word[1:] for word in words))
    return cls(*args[1:], **{key: value for key, value in kwargs.items() if key != "input"})


def _frames_of_forward() -> Iterator[FrameType]:
    """The frames between the innermost module's forward and here, but those of this file: the
    variables of a frame, read from inside it, are a circle, which keeps the tensors among them.
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not nn.Module.__call__.__code__:
        if frame.f_globals is not globals():
            yield frame
        frame = frame.f_back


def _name_of_method(module: nn.Module, frame: FrameType) -> str | None:
    """The method of ``module`` that runs in ``frame``, if one does but its forward."""
    name, arguments = frame.f_code.co_name, frame.f_code.co_varnames
    if name == "forward" or not arguments or frame.f_locals.get(arguments[0]) is not module:
        return None
    method = getattr(type(module), name, None)
    is_it = callable(method) and getattr(inspect.unwrap(method), "__code__", None) is frame.f_code
    return name if is_it else None
