"""What is said of the places that have no equivalent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .table import Left
from .trace import Trace

__all__ = ["Refusal", "refuse", "refuse_to_guess"]


@dataclass(frozen=True)
class Refusal(Left):
    """A pooling that was to be replaced and has no equivalent.

    Attributes:
        path, was, reason: as of :class:`Left`.
        cause: the error that says so, if it is one's.
    """

    cause: Exception | None = None


def refuse_to_guess(trace: Trace) -> None:
    """Raise ValueError if the forward failed for another reason than that there are no data.

    What was seen may then be of images that the network does not take.
    """
    failure = trace.failure
    if failure is None or failure.for_want_of_data or not trace.inputs:
        return
    unseen = [repr(path) for path, inputs in trace.inputs.items() if not inputs]
    unknown = f"the channels of {', '.join(unseen)}" if unseen else "which poolings are global"
    raise ValueError(
        f"{unknown} cannot be found, because {failure}: {failure.way_out}, or go on without with "
        "unsupported='skip'"
    ) from failure.error


def refuse(
    refusals: list[Refusal], selected: Iterable[str], everywhere: bool, replaceable: set[str]
) -> None:
    """Raise ValueError if there are ``refusals``: it names all, and a ``where`` without them.

    Args:
        refusals: of one call of :func:`gfgp_cupy.replace_pooling`.
        selected: the paths of all places that ``where`` has selected.
        everywhere: whether those are all that there are.
        replaceable: the paths of what can be replaced. Several calls in one forward share a path.
    """
    if not refusals:
        return
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        by_reason.setdefault(refusal.reason, []).append(f"{refusal.path!r} ({refusal.was})")
    places = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
    refused = tuple(dict.fromkeys(refusal.path for refusal in refusals))
    one = len(refused) == 1
    past_all = "go on past all such places with unsupported='skip'"
    beside = sorted(replaceable.intersection(refused))
    if everywhere:
        condition = f"path != {refused[0]!r}" if one else f"path not in {refused!r}"
    else:
        # Whatever where says now, this says the same of all others.
        rest = tuple(path for path in selected if path not in refused)
        condition = f"path in {rest!r}"
    way_out = (
        f"leave {'it' if one else 'them'} out with where=lambda path, module: {condition}, or "
        f"{past_all}"
    )
    if beside:
        paths = ", ".join(map(repr, beside))
        way_out = f"{past_all} (a where would leave out the other calls of {paths}, too)"
    raise ValueError(
        f"{'a place' if one else f'{len(refused)} places'} that cannot be replaced: {places}; "
        f"{way_out}"
    ) from refusals[0].cause
