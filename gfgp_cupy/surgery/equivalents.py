"""Which poolings and convolutions have an equivalent, and the reason against the others."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .places import Replaceable
from .window import pair

__all__ = ["check_equivalents_exist", "leaving_out"]


def check_equivalents_exist(modules: Mapping[str, Replaceable]) -> None:
    """Raise ValueError unless poolings of the same output sizes can take the modules' places."""
    if "" in modules and not isinstance(modules[""], nn.Conv2d):
        raise ValueError(
            f"model is a {type(modules['']).__name__} itself, which cannot be replaced in place: "
            "wrap it in nn.Sequential"
        )
    refused = [(path, reason) for path, m in modules.items() if (reason := _reason_against(m))]
    if refused:
        path, reason = refused[0]
        more = sum(other == reason for _, other in refused) - 1
        like_it = f", and {more} more like it," if more else ""
        raise ValueError(
            f"{path!r} ({type(modules[path]).__name__}){like_it} {reason}; or {leaving_out(path)}"
        )


def _reason_against(module: Replaceable) -> str | None:
    if type(module) not in (nn.MaxPool2d, nn.AvgPool2d, nn.Conv2d):
        return "is of a class of its own, whose forward may do anything"
    if isinstance(module, nn.MaxPool2d):
        if pair(module.dilation) != (1, 1):
            return f"has dilation={module.dilation}, and the new one's windows have no gaps"
        if module.return_indices:
            return "has return_indices=True, and a mean has no index"
    elif isinstance(module, nn.AvgPool2d):
        if module.divisor_override is not None:
            return f"has divisor_override={module.divisor_override}, and weights sum to 1"
        if module.count_include_pad and pair(module.padding) != (0, 0):
            return (
                f"has padding={module.padding} that counts in the mean, which it no longer would; "
                "set its count_include_pad = False if that is all right"
            )
    return None


def leaving_out(path: str) -> str:
    return f"leave it out with where=lambda path, module: path != {path!r}"
