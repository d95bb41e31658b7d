"""Whether a network's forward does with its new poolings what it did with the old ones."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

from torch import nn

from .call_trace import Course
from .equivalents import AVERAGES, MAXIMA
from .trace import Failure, Trace, trace_forward

__all__ = ["warn_of_changes"]

HINT = (
    "it may ask for isinstance(…, nn.MaxPool2d), which the new poolings are not, read an attribute "
    "of a pooling, or use the weight or stride of a convolution itself. Have it ask for the new "
    "class as well, and take kernel_size, stride and padding as tuples; or build the network "
    "anew and leave that module out with where="
)


def warn_of_changes(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    before: Trace,
    sample_shape: tuple[int, ...],
) -> None:
    """Traces ``model`` again, and warns if its forward fails or does something else.

    Nothing is compared where the first trace did not see the forward to its end.

    Args:
        model: with its new poolings.
        modules: by path, what it consisted of without them.
        before: what was seen of its forward then.
        sample_shape: of the images.
    """
    if before.failure is not None:
        return
    now = dict(model.named_modules(remove_duplicate=False))
    # Those that one attribute shares with another are told apart as in the first trace.
    poolings = [path for path in before.inputs if isinstance(now.get(path), (*MAXIMA, *AVERAGES))]
    stay = {path for path, module in modules.items() if now.get(path) is module}
    after = trace_forward(model, poolings, sample_shape)
    difference = _failure(before, after, stay)
    for training in before.courses.keys() & after.courses.keys():
        difference = difference or _difference(
            before.courses[training],
            after.courses[training],
            called=modules.keys() & now.keys(),
            # A tensor that the network's code has kept is not made again.
            calling=set() if before.failure_in_training or before.keeps_tensors() else stay,
        )
    if difference is not None:
        warnings.warn(
            f"with the new poolings the network's forward {difference}: {HINT}", stacklevel=3
        )


def _failure(before: Trace, after: Trace, stay: Collection[str]) -> str | None:
    """That the forward fails now, and where."""
    if after.failure is not None:
        # An operator of a caller's own pooling may have no version without data.
        return None if after.failure.for_want_of_data else _raises(after.failure)
    failure = after.failure_in_training
    if failure is None or before.failure_in_training is not None or failure.for_want_of_data:
        return None
    # A new pooling itself can refuse to be trained on a single sample.
    return f"{_raises(failure)}, in training" if failure.path in stay else None


def _raises(failure: Failure) -> str:
    said = str(failure.error).strip().partition("\n")[0]
    inside = f" in {failure.path!r}" if failure.path else ""
    return f"raises {type(failure.error).__name__}{inside} ({said})"


def _difference(
    before: Course, after: Course, called: Collection[str], calling: Collection[str]
) -> str | None:
    """What one forward does otherwise than before, in words.

    Args:
        before, after: of the same mode.
        called: the paths of modules that are there before and after.
        calling: the paths of those whose forwards are to call the same functions.
    """
    if after.outputs != before.outputs:
        return f"returns {_listed(after.outputs)}, and returned {_listed(before.outputs)}"
    gone = [path for path in before.runs if path in called and not after.runs[path]]
    if gone:
        return f"no longer calls {', '.join(map(repr, gone))}"
    for path in before.runs | after.runs:
        if path in called and after.runs[path] != before.runs[path]:
            return f"calls {path!r} {_times(after.runs[path], before.runs[path])}"
    for path, name in before.functions | after.functions:
        # Attributes of tensors, such as shapes, which may be asked for any number of times.
        if path in calling and name != "__get__":
            now, then = after.functions[path, name], before.functions[path, name]
            if now != then:
                inside = f" in {path!r}" if path else ""
                return f"calls {name}{inside} {_times(now, then)}"
    return None


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return f"tensors of {', '.join(map(str, map(list, shapes)))}" if shapes else "no tensor"


def _times(now: int, then: int) -> str:
    return f"{now} time{'s' * (now != 1)}, and called it {then} time{'s' * (then != 1)}"
