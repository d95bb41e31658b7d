"""Plans for the calls of pooling functions inside the forwards of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch.fx
from torch import nn

from .call_trace import CallSite
from .equivalents import OWN_FORWARD, equivalent_window
from .functional_calls import calling_class, give_pooling_calls
from .left_alone import reason_by_kind, reason_by_use
from .plans import Plan
from .pooling_calls import NAME, PoolingCalls
from .refusals import Refusal
from .table import Left, Replacement
from .window import Window, describe, window_of

__all__ = ["CallPlans", "PlanOfCall", "plan_calls"]

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

    def apply(self, model: nn.Module, pooling: nn.Module) -> Replacement:
        poolings = give_pooling_calls(self.module, self.path)
        for site in self.sites:
            poolings.expect(site.key, whole_map=site.covers_the_map)
        poolings.put(self.site.key, pooling)
        is_now = describe(type(pooling).__name__, self.window)
        return Replacement(self.path, self.num_features, self.site.description, is_now)


@dataclass
class CallPlans:
    """What is to be done with the calls of a network.

    Attributes:
        plans: of the calls that are to be replaced.
        left: those that stay.
        refusals: those that were to be replaced and have no equivalent.
    """

    plans: list[PlanOfCall] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def plan_calls(
    model: nn.Module,
    sites: Iterable[CallSite],
    *,
    functional: bool,
    where: Callable[[str, nn.Module], bool] | None,
    stride_one: bool,
    min_channels: int,
) -> CallPlans:
    """Plans for the calls at ``sites``, under the rules for modules of the same windows.

    Args:
        model: the network.
        sites: as :class:`CallTrace` has recorded them.
        functional, where, stride_one, min_channels: as for :func:`gfgp_cupy.replace_pooling`;
            ``where`` is called with the path and the module of whose forward the call is.
    """
    of_module: dict[str, list[CallSite]] = {}
    for site in sites:
        of_module.setdefault(site.path, []).append(site)
    planned = CallPlans()
    for path, calls in of_module.items():
        module = model.get_submodule(path)
        asked_for = functional and (where is None or where(path, module))
        told_apart = [site for site in calls if site.call is not None]
        for site in calls:
            row = (path, site.description)
            window = _window(module, site)
            if _is_replaced(module, site):
                continue
            elif reason := _reason_to_leave(site, window, stride_one, min_channels):
                planned.left.append(Left(*row, reason))
            elif isinstance(window, str) and asked_for:
                planned.refusals.append(Refusal(*row, window))
            elif isinstance(window, str):
                planned.left.append(Left(*row, window))
            elif asked_for:
                planned.plans.append(_plan(path, module, site, told_apart, window))
            else:
                planned.left.append(Left(*row, "where" if functional else NOT_ASKED_FOR))
    return planned


def _is_replaced(module: nn.Module, site: CallSite) -> bool:
    poolings = getattr(module, NAME, None)
    return (
        site.call is not None
        and isinstance(poolings, PoolingCalls)
        and poolings.index_of(site.key) is not None
    )


def _window(module: nn.Module, site: CallSite) -> Window | str:
    """The window of the pooling that can take a call's place, or the reason against one."""
    if site.call is None:
        return "no windows of one size"  # which reason_by_kind tells better
    if site.checkpointed:
        return (
            "is made in torch.utils.checkpoint, which makes it again outside of the forward, where "
            "no pooling could take its place: checkpoint a module that makes it"
        )
    if not site.inputs[0].is_floating_point():
        return f"pools {site.inputs[0].dtype}, and the new one's weights are fractions"
    if "forward" in vars(module):
        return OWN_FORWARD
    if isinstance(module, torch.fx.GraphModule):
        return "is in a graph of torch.fx: replace the poolings before the network is traced"
    if not isinstance(getattr(module, NAME, PoolingCalls("")), PoolingCalls):
        return f"its module has an attribute {NAME} of its own"
    calling_class(type(module))  # which a class can refuse to be a base of: before all is touched
    if site.call.kind == "lp":
        return window_of(site.call.kernel_size, site.call.stride, ceil_mode=site.call.ceil_mode)
    assert isinstance(site.stand_in, (nn.MaxPool2d, nn.AvgPool2d))
    return equivalent_window(site.stand_in)


def _reason_to_leave(
    site: CallSite, window: Window | str, stride_one: bool, min_channels: int
) -> str | None:
    if site.call is None:
        return reason_by_kind(site.stand_in)
    if isinstance(window, str):
        return None
    return reason_by_use(window, site.inputs, stride_one=stride_one, min_channels=min_channels)


def _plan(
    path: str, module: nn.Module, site: CallSite, sites: list[CallSite], window: Window
) -> PlanOfCall:
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
