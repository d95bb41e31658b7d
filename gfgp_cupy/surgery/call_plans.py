"""Plans for the calls of pooling functions inside the forwards of modules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch.fx
from torch import nn

from .call_arguments import PoolingCall
from .call_trace import CallSite
from .decisions import Decision
from .equivalents import (
    AVERAGES,
    MAXIMA,
    OWN_FORWARD,
    equivalent_window,
    reason_against_inputs,
)
from .functional_calls import called_by, calling_class, give_pooling_calls, shield
from .left_alone import reason_by_channels, reason_by_kind, reason_by_use
from .moved_stride import Pooled
from .plans import Plan
from .pooling_calls import NAME, PoolingCalls
from .refusals import Refusal
from .selection import Selection
from .start import Was, was_of
from .subclasses import class_of
from .table import Left, Replacement
from .window import Window, describe, window_of

__all__ = ["PlanOfCall", "decide_calls", "shield_others"]

LIBRARIES = ("torch.nn.modules.pooling", "gfgp_cupy.")
NOT_ASKED_FOR = "a call inside a forward (functional=True replaces it)"


@dataclass(frozen=True, kw_only=True)
class PlanOfCall(Plan):
    """A call that ``module`` makes gives way to a pooling that it gets for it.

    Attributes:
        module: whose forward calls the function.
        site: the call.
        sites: all calls that the module makes and that can be told apart.
    """

    module: nn.Module
    site: CallSite
    sites: list[CallSite]

    @property
    def found(self) -> str:
        return self.site.description

    @property
    def was(self) -> Was | None:
        return was_of(self.site.stand_in)

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        methods = {name for site in self.sites for name in site.methods}
        poolings = give_pooling_calls(self.module, self.path, methods)
        for site in self.sites:
            poolings.expect(
                site.key, site.slots, site.positions, site.methods, whole_map=site.covers_the_map
            )
        poolings.put(self.site.key, self.site.slots, pooling)
        is_now = describe(type(pooling).__name__, self.window)
        return Replacement(self.path, self.num_features, self.found, is_now)


def decide_calls(
    model: nn.Module, sites: Iterable[CallSite], selection: Selection
) -> tuple[list[Decision], list[str]]:
    """What becomes of the calls at ``sites``, by the rules for modules of the same windows.

    Args:
        model: the network.
        sites: as :class:`CallTrace` has recorded them.
        selection: of the modules of whose forwards the calls are.

    Returns:
        A decision on each, and the paths of the modules that are selected.
    """
    of_module: dict[str, list[CallSite]] = {}
    for site in sites:
        of_module.setdefault(site.path, []).append(site)
    decisions: list[Decision] = []
    selected = []
    for path, calls in of_module.items():
        module = model.get_submodule(path)
        calls = [site for site in calls if site.pooling_in(module) is None]
        if _is_pooling(module) or not calls:
            continue
        why_not = None
        if not selection.functional:
            why_not = NOT_ASKED_FOR
        elif selection.has(path, module):
            selected.append(path)
        else:
            why_not = "where leaves it out"
        told_apart = [site for site in of_module[path] if site.call is not None]
        for site in calls:
            decision = _decide(path, module, site, told_apart, selection)
            if why_not is not None and not _is_left(decision):
                reason = why_not if isinstance(decision, Plan) else decision.reason
                decision = Left(path, site.description, reason)
            decisions.append(decision)
    return decisions, selected


def _is_left(decision: Decision) -> bool:
    return isinstance(decision, Left) and not isinstance(decision, Refusal)


def _is_pooling(module: nn.Module) -> bool:
    """Whether ``module`` is a pooling itself, so that what it calls is no business of its own.

    PyTorch's, this library's, and classes derived from them; none that pools besides.
    """
    return not isinstance(module, Pooled) and any(
        cls.__module__.startswith(LIBRARIES) for cls in type(module).__mro__
    )


def shield_others(model: nn.Module, sites: Iterable[CallSite], new: Iterable[nn.Module]) -> None:
    """Has whatever else calls pooling functions call them, also inside a module that does not.

    Args:
        model: with its new poolings.
        sites: all that were recorded.
        new: the poolings that have taken the place of modules, or stand behind them.
    """
    calling = {path for path, module in model.named_modules() if called_by(module)}
    if not calling:
        return
    inside = [
        model.get_submodule(site.path)
        for site in sites
        if site.around & calling and site.path not in calling
    ]
    for module in (*inside, *new):
        shield(module)


def _window(module: nn.Module, call: PoolingCall, site: CallSite) -> Window | str:
    """The window of the pooling that can take a call's place, or the reason against one."""
    if site.checkpointed:
        return (
            "is made in torch.utils.checkpoint, which makes it again outside of the forward, where "
            "no pooling could take its place: checkpoint a module that makes it"
        )
    if reason := reason_against_inputs(site.inputs, site.infinite):
        return reason
    if "forward" in vars(module):
        return OWN_FORWARD
    if isinstance(module, torch.fx.GraphModule):
        return "is in a graph of torch.fx: replace the poolings before the network is traced"
    if not isinstance(getattr(module, NAME, PoolingCalls("")), PoolingCalls):
        return f"its module has an attribute {NAME} of its own"
    if called_by(module) is None:
        # A class can refuse to be a base: before anything is touched.
        calling_class(class_of(module))
    if call.kind == "lp":  # a norm of each window: as little a mean as a maximum is
        return window_of(call.kernel_size, call.stride, ceil_mode=call.ceil_mode)
    assert isinstance(site.stand_in, (*MAXIMA, *AVERAGES))
    return equivalent_window(site.stand_in)


def _decide(
    path: str, module: nn.Module, site: CallSite, sites: list[CallSite], selection: Selection
) -> Decision:
    if site.call is None:
        return Left(
            path, site.description, reason_by_kind(site.stand_in) or "no window of one size"
        )
    if type(module).__name__.startswith("DropBlock"):  # timm's, torchvision's, MMCV's
        return Left(path, site.description, "a mask of elements to drop, no feature map")
    window = _window(module, site.call, site)
    if isinstance(window, str):
        return Refusal(path, site.description, window)
    reason = reason_by_use(window, site.inputs, selection.stride_one)
    if reason := reason or reason_by_channels([site.num_features], selection.min_channels):
        return Left(path, site.description, reason)
    return PlanOfCall(
        path=path,
        num_features=site.num_features,
        window=window,
        device=site.inputs[0].device,
        dtype=site.inputs[0].dtype,
        training=module.training,
        module=module,
        site=site,
        sites=sites,
    )
