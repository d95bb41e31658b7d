"""What was replaced and what was left, as a list and as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Left", "Replacement", "Replacements"]


@dataclass(frozen=True)
class Replacement:
    """One change of :func:`replace_pooling`.

    Attributes:
        path: the module's name in ``model.named_modules()``.
        num_features: number of channels that are pooled; of several, the largest.
        was, is_now: what was there and what is there now, with kernel size, stride and (if any)
            padding, as in ``MaxPool2d(3/2/1)``.
    """

    path: str
    num_features: int
    was: str
    is_now: str


@dataclass(frozen=True)
class Left:
    """A pooling that :func:`replace_pooling` left as it was.

    Attributes:
        path: the name, in ``model.named_modules()``, of the module, or of the one that calls the
            function.
        was: what is there, with its window, as in ``MaxPool2d(3/2/1)``.
        reason: why it was left.
    """

    path: str
    was: str
    reason: str


class Replacements(list[Replacement]):
    """The changes of :func:`replace_pooling`, in the network's order; as a string, a table.

    Attributes:
        left: the poolings that stay as they were, with the reason, but for modules that ``where``
            leaves out; calls inside the forwards of those are listed. The table has them below,
            those alike in one row.
    """

    def __init__(self, changes: Iterable[Replacement] = (), left: Iterable[Left] = ()) -> None:
        super().__init__(changes)
        self.left = list(left)

    def __str__(self) -> str:
        changed = [(_named(row.path), str(row.num_features), row.was, row.is_now) for row in self]
        text = _aligned([("path", "channels", "was", "is"), *changed])
        alike: dict[tuple[str, str], list[str]] = {}
        for row in self.left:
            alike.setdefault((row.was, row.reason), []).append(row.path)
        left = [
            (_named(paths[0]) + f" and {len(paths) - 1} more" * bool(paths[1:]), was, reason)
            for (was, reason), paths in alike.items()
        ]
        if not left:
            return text
        below = _aligned([("path", "left", "why"), *left])
        return f"{text}\n\n{below}" if changed else below


def _named(path: str) -> str:
    return path or "(model)"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
