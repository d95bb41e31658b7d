"""Which pooling functions the modules of a network call in their forwards."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..autocast import mean_dtype
from .call_arguments import CALLS, PoolingCall, covers_the_map
from .functional_calls import NAME

__all__ = ["CallSite", "CallTrace"]

POOLING = re.compile(r"(adaptive_|fractional_|lp_)?(max_|avg_)?pool[123]d(_with_indices)?")


@dataclass
class CallSite:
    """A place in a forward where a module calls a pooling function.

    Attributes:
        path: the module's, whose forward is the innermost that runs.
        function: the name, as in ``torch.nn.functional``.
        call: its arguments; None if it is none of those that can be replaced.
        output_size: of an adaptive pooling, as given.
        ordinal: how many calls with these arguments and channels come before it in one forward.
        inputs: tensors without data, one for each time that it was called.
        around: paths of the modules whose forwards were running around the innermost.
        checkpointed: whether it is called by ``torch.utils.checkpoint``, inside the module.
    """

    path: str
    function: str
    call: PoolingCall | None
    output_size: Any
    ordinal: int
    inputs: list[Tensor] = field(default_factory=list)
    around: set[str] = field(default_factory=set)
    checkpointed: bool = False

    @property
    def num_features(self) -> int:
        return self.inputs[0].shape[-3]

    @property
    def covers_the_map(self) -> bool:
        """Whether its window is the whole map in each of its uses."""
        call = self.call
        return call is not None and all(covers_the_map(call, input) for input in self.inputs)


@dataclass
class _Forward:
    path: str
    made: dict[object, int] = field(default_factory=dict)


class CallTrace(TorchFunctionMode):
    """Records the calls of pooling functions while a network runs under it.

    Args:
        network: a copy that may be changed: each of its modules gets hooks.

    Attributes:
        sites: what was recorded.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._running: list[_Forward] = []
        self._sites: dict[object, CallSite] = {}
        for path, module in network.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                self._follow(path, module)

    @property
    def sites(self) -> list[CallSite]:
        return list(self._sites.values())

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._running and POOLING.fullmatch(name):
            self._record(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _follow(self, path: str, module: nn.Module) -> None:
        def enter(module: nn.Module, args: Any) -> None:
            self._running.append(_Forward(path))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._running.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)

    def _record(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        forward = self._running[-1]
        if f".{NAME}." in f".{forward.path}.":
            return  # the new pooling in an earlier call's place
        if func in CALLS:
            input, call = CALLS[func](*args, **kwargs)
            asked: object = call
        else:
            input, call = args[0] if args else kwargs["input"], None
            asked = (name, str(args[1:]), str(kwargs))
        if input.dim() < 3:
            channels = 0
        else:
            channels = input.shape[-3]
        same = (asked, channels)
        ordinal = forward.made.get(same, 0)
        forward.made[same] = ordinal + 1
        site = self._sites.setdefault(
            (forward.path, same, ordinal),
            CallSite(forward.path, name, call, _output_size(args, kwargs), ordinal),
        )
        # As for a head's mean: autocast's half type is not that of the weights.
        site.inputs.append(input.to(mean_dtype(input)))
        site.around.update(other.path for other in self._running[:-1])
        site.checkpointed |= _inside_checkpoint()


def _output_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("output_size")


def _inside_checkpoint() -> bool:
    """Whether torch.utils.checkpoint runs between the innermost module's forward and here."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not nn.Module._call_impl.__code__:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
        frame = frame.f_back
    return False
