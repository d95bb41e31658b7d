"""What is decided about each place: a plan, to leave it, or that nothing is equivalent."""

from __future__ import annotations

from torch import Tensor, nn

from .by_channels import PlanByChannels
from .equivalents import reason_against_inputs
from .left_alone import reason_by_channels, reason_by_use
from .places import Place
from .plans import Plan, PlanOfPooling
from .refusals import Refusal
from .selection import Selection
from .strided_convs import plan_of_conv
from .table import Left
from .trace import Trace
from .window import Window

__all__ = ["Decision", "decide"]

Decision = Plan | Left


def decide(place: Place, trace: Trace, selection: Selection) -> Decision:
    """What becomes of ``place``.

    Args:
        place: one that ``selection`` has.
        trace: what was seen of the network's forward.
    """
    inputs = trace.inputs.get(place.path, [])
    channel = -1 - (place.window.axes if place.window else 2)
    channels = sorted({input.shape[channel] for input in inputs})
    if isinstance(place.module, nn.Conv2d):
        channels = [place.module.out_channels]
    reason = place.window and reason_by_use(place.window, inputs, selection.stride_one)
    if reason := reason or reason_by_channels(channels, selection.min_channels):
        return Left(place.path, place.was, reason)
    if place.obstacle is not None:
        return Refusal(place.path, place.was, place.obstacle)
    if place.path in trace.called_otherwise:
        return Refusal(place.path, place.was, "is not called with one tensor alone")
    if reason := reason_against_inputs(inputs, place.path in trace.infinite):
        return Refusal(place.path, place.was, reason)
    if isinstance(place.module, nn.Conv2d):
        # All that is asked of it stands in it, unless a forward seen to its end has not called it.
        known = trace.failure is not None or place.path in trace.sizes
        return plan_of_conv(place.path, place.module) if known else _unseen(place, trace)
    assert place.window is not None  # or there were an obstacle
    if not inputs:
        return _unseen(place, trace)
    return _plan(place, place.window, inputs[0], channels, selection.min_channels)


def _plan(
    place: Place, window: Window, input: Tensor, channels: list[int], min_channels: int
) -> PlanOfPooling:
    plan = PlanOfPooling(
        path=place.path,
        module=place.module,
        window=window,
        num_features=channels[-1],
        device=input.device,
        dtype=input.dtype,
        training=place.module.training,
    )
    if len(channels) == 1:
        return plan
    replaced = tuple(number for number in channels if number >= min_channels)
    kept = tuple(number for number in channels if number < min_channels)
    return PlanByChannels(**vars(plan), replaced=replaced, kept=kept)


def _unseen(place: Place, trace: Trace) -> Left:
    failure = trace.failure
    if failure is None:
        reason = "the network's forward does not call it"
        if trace.failure_in_training is not None:
            reason += f" in evaluation, and in training is not seen: {trace.failure_in_training}"
        return Left(place.path, place.was, reason)
    reason = f"its number of channels cannot be found, because {failure}: {failure.way_out}"
    return Refusal(place.path, place.was, reason, failure.error)
