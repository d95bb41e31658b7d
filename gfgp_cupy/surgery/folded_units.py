"""Strided convolutions that their library folds with others into one, and would lose a pooling of.

RepVGG's blocks, MobileOne's, FastViT's, LeViT's, ultralytics' and others become one convolution
when they are deployed (``timm.utils.reparameterize_model``, ``model.fuse()``). What stands behind
one of their convolutions would be lost, so the pooling stands behind the whole unit.
"""

from __future__ import annotations

from torch import nn

from .moved_stride import PlanOfStride, Strides, folding_method, keeps_size, plan_of_stride
from .selection import Selection
from .window import pair

__all__ = ["strides_of_folded_units"]

ATTENTION = ("se", "attn")  # its convolutions are of single points


def strides_of_folded_units(model: nn.Module, selection: Selection) -> Strides:
    """What becomes of the strides in units that are folded, with ``strided_convs=True``.

    Args:
        model: any network. Nothing is changed.
        selection: of each strided convolution. A unit whose convolutions are selected in part
            cannot be pooled.
    """
    paths = {module: path for path, module in model.named_modules()}
    units: dict[str, list[nn.Conv2d]] = {}
    for module, path in paths.items():
        if isinstance(module, nn.Conv2d) and max(module.stride) == 2:
            unit = _unit_of(model, path)
            if unit is not None:
                units.setdefault(unit, []).append(module)
    found = Strides()
    for path, convs in units.items():
        unit = model.get_submodule(path)
        selected = [conv for conv in convs if selection.has(paths[conv], conv)]
        plan = _plan_of_unit(path, unit, convs, whole=len(selected) == len(convs))
        if isinstance(plan, str):
            for conv in selected:
                found.add(paths[conv], "Conv2d(stride 2)", plan, selection.min_channels)
                found.moved.add(conv)
        elif selected:
            was = f"{type(unit).__name__}(stride 2)"
            found.add(path, was, plan, selection.min_channels)
            found.moved.update(convs)
    return found


def _unit_of(model: nn.Module, path: str) -> str | None:
    """The innermost module around ``path`` that is folded, but for the network itself."""
    parent = path.rpartition(".")[0]
    while parent:
        if folding_method(model.get_submodule(parent)):
            return parent
        parent = parent.rpartition(".")[0]
    return None


def _plan_of_unit(
    path: str, unit: nn.Module, convs: list[nn.Conv2d], *, whole: bool
) -> PlanOfStride | str:
    """The plan, or the reason why there is none."""
    inside = [
        module
        for name, module in unit.named_modules()
        if isinstance(module, nn.Conv2d) and not set(name.split(".")) & set(ATTENTION)
    ]
    alike = all(
        conv.out_channels == convs[0].out_channels and pair(conv.stride) == (2, 2)
        for conv in inside
    )
    if whole and alike and all(keeps_size(conv) for conv in convs):
        return plan_of_stride(path, unit, convs[0], unit, tuple(convs))
    return (
        f"is part of {path!r}, whose {folding_method(unit)}() would lose a pooling behind one "
        "convolution of it, and behind all of it there is no equivalent: call that first (in "
        "timm, timm.utils.reparameterize_model)"
    )
