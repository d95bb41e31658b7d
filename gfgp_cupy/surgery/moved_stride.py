"""A stride that moves: a pooling behind a module in which nothing strides any more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Tensor, nn

from .decisions import Decision
from .functional_calls import called_by, calling_class
from .left_alone import reason_by_channels
from .plans import Plan
from .refusals import Refusal
from .subclasses import class_of, give_class, reduced_by
from .table import Left, Replacement
from .window import describe, window_of

__all__ = ["PlanOfStride", "Strides", "folding_method", "keeps_size", "plan_of_stride"]

FOLDING = ("fuse", "reparameterize", "switch_to_deploy", "forward_fuse")


class Pooled(nn.Module):
    """Pools what a module returns: to be put before the module's own class."""

    pooling: nn.Module

    def forward(self, *args: Tensor, **named: Tensor) -> Tensor:
        output = super().forward(*args, **named)
        # A new instance of the class, or a slice of one, has none.
        return self.pooling(output) if "pooling" in self._modules else output


def pooled(module: nn.Module) -> nn.Module:
    """``module``, made an instance of its class and :class:`Pooled`.

    The same object, as ``torch.nn.utils.parametrize`` does it: its hooks, its attributes and
    whoever holds it or its tensors, an optimizer for instance, need not know.
    """
    called = called_by(module)
    if called is None:
        give_class(module, _pooled_class(class_of(module)))
    else:  # which stays the outermost, where it is looked for
        base, methods = called
        give_class(module, calling_class(_pooled_class(base), methods))
    return module


@cache
def _pooled_class(base: type[nn.Module]) -> type[nn.Module]:
    own: dict[str, Any] = {
        # With a name of torch.nn's, torch.fx would not look into it.
        "__module__": __name__,
        "__doc__": base.__doc__,
        "__reduce_ex__": reduced_by(base, pooled),
    }
    if hasattr(base, "fuse"):
        own["fuse"] = _fuse_of(base)
    if hasattr(base, "forward_fuse"):
        own["forward_fuse"] = _forward_fuse_of(base)
    if issubclass(base, nn.Sequential):
        if base.__getitem__ is nn.Sequential.__getitem__:
            own["__getitem__"] = _getitem
        own["__iter__"] = _iterate
        own["__len__"] = _count
    return type(f"Pooled{base.__name__}", (Pooled, base), own)


def folding_method(module: nn.Module) -> str | None:
    """The method by which its library folds its branches and norms into one convolution."""
    return next((name for name in FOLDING if hasattr(type(module), name)), None)


def _fuse_of(base: Any) -> Callable[[Any], nn.Module]:
    def fuse(self: Any) -> nn.Module:
        """What the module's own ``fuse`` returns, to take its place, and pools as it does."""
        pooling = self._modules.pop("pooling")
        try:
            fused = base.fuse(self)
        finally:
            self._modules["pooling"] = pooling
        if fused is not self:
            pooled(fused).pooling = pooling
        return fused

    return fuse


def _forward_fuse_of(base: Any) -> Callable[..., Tensor]:
    def forward_fuse(self: Any, *args: Tensor) -> Tensor:
        """What ultralytics makes the forward of what it has folded."""
        return self.pooling(base.forward_fuse(self, *args))

    return forward_fuse


def _getitem(self: Any, index: int | slice) -> nn.Module:
    """What nn.Sequential has there; a slice that ends as it does pools as it does."""
    if not isinstance(index, slice):
        return nn.Sequential.__getitem__(self, index)
    own = [item for item in self._modules.items() if item[0] != "pooling"]
    taken = own[index]
    if "pooling" in self._modules and taken[-1:] == own[-1:]:
        taken.append(("pooling", self.pooling))
    return type(self)(OrderedDict(taken))


def _iterate(self: Any) -> Iterator[nn.Module]:
    """What nn.Sequential's forward runs."""
    return (module for name, module in self._modules.items() if name != "pooling")


def _count(self: Any) -> int:
    return sum(1 for _ in self)


@dataclass(frozen=True, kw_only=True)
class PlanOfStride(Plan):
    """The stride of ``convs`` and ``poolings`` moves behind the output of ``host``.

    Attributes:
        name: of what loses its stride: the class of a block or convolution.
        host: the block, or the activation behind the convolution.
        convs: what stays, without its stride.
        poolings: what goes: parent and name of average poolings in a block's branches.
    """

    name: str
    host: nn.Module
    convs: tuple[nn.Conv2d, ...]
    poolings: tuple[tuple[nn.Module, str], ...] = ()

    @property
    def found(self) -> str:
        return f"{self.name}(stride 2)"

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        for conv in self.convs:
            conv.stride = (1, 1)
        if folding_method(self.host) and hasattr(self.host, "stride"):
            vars(self.host)["stride"] = 1  # which what it is folded into takes from it
        for parent, name in self.poolings:
            setattr(parent, name, nn.Identity().train(self.training))
        pooled(self.host).pooling = pooling
        is_now = f"{self.name}(stride 1) + {describe(type(pooling).__name__, self.window)}"
        return Replacement(self.path, self.num_features, self.found, is_now)


@dataclass
class Strides:
    """What becomes of strides that move.

    Attributes:
        decisions: about those that are to move.
        moved: the convolutions and poolings that the plans among them take care of.
        selected: the paths that ``where`` was called with, and has selected.
    """

    decisions: list[Decision] = field(default_factory=list)
    moved: set[nn.Module] = field(default_factory=set)
    selected: list[str] = field(default_factory=list)

    def add(self, path: str, was: str, plan: PlanOfStride | str, min_channels: int) -> None:
        """A plan, or the reason why there is none, for what has a stride at ``path``."""
        if isinstance(plan, str):
            self.decisions.append(Refusal(path, was, plan))
        elif reason := reason_by_channels([plan.num_features], min_channels):
            self.decisions.append(Left(path, was, reason))
        else:
            self.decisions.append(plan)
            self.moved.update(plan.convs, (getattr(*place) for place in plan.poolings))


def keeps_size(conv: nn.Conv2d) -> bool:
    """Whether its output has its input's size once its stride is 1."""
    if isinstance(conv.padding, str):
        return False
    reach = ((k - 1) * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    return all(2 * p == r for p, r in zip(conv.padding, reach, strict=True))


def plan_of_stride(
    path: str,
    named: nn.Module,
    last: nn.Conv2d,
    host: nn.Module,
    convs: tuple[nn.Conv2d, ...],
    poolings: tuple[tuple[nn.Module, str], ...] = (),
) -> PlanOfStride:
    return PlanOfStride(
        path=path,
        # In ceil mode the output is of the strided one's size for odd sizes, too.
        window=window_of(2, ceil_mode=True),
        num_features=last.out_channels,
        device=last.weight.device,
        dtype=last.weight.dtype,
        training=host.training,
        name=type(named).__name__,
        host=host,
        convs=convs,
        poolings=poolings,
    )
