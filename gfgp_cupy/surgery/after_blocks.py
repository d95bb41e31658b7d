"""The published placement: strides move behind the last ReLU of the block that they are in.

Source: T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019.
"""

from __future__ import annotations

from torch import nn

from ..hooks import library_of
from .known_blocks import BlockKind, kind_of, stems_of
from .moved_stride import PlanOfStride, Strides, keeps_size, plan_of_stride
from .selection import Selection
from .trace import Trace
from .window import pair

__all__ = ["strides_after_blocks"]

STEM_LIBRARIES = ("torchvision", "timm")
FORWARDS = {"forward", "forward_features", "_forward_impl"}
"""Methods that run a stem, for which a network may have been given others."""

WAY_OUT = "strided_convs=True, instead, pools directly behind the convolution"


def strides_after_blocks(model: nn.Module, selection: Selection, trace: Trace) -> Strides:
    """What becomes of each stride of ``model`` with ``strides="after_blocks"``.

    Args:
        model: any network. Nothing is changed.
        selection: of each block, stem convolution and other convolution that strides.
        trace: what was seen of the forward, which may use the modules of a stem otherwise.
    """
    found = Strides()
    paths = {module: path for path, module in model.named_modules()}
    settled: set[nn.Module] = set()

    def settle(module: nn.Module, plan: PlanOfStride | str) -> None:
        path = paths[module]
        settled.update(module.modules())
        if selection.has(path, module):
            found.selected.append(path)
            was = f"{type(module).__name__}(stride 2)"
            found.add(path, was, plan, selection.min_channels)

    for module, path in paths.items():
        kind = kind_of(module)
        if kind is not None and (strided := _strided(module)):
            settle(module, _plan_of_block(path, module, kind, strided))
    for network, conv, host in _stems(model):
        if conv not in settled and _is_in_one_place(model, host) and keeps_size(conv):
            reason = _reason_against_stem(trace, network, paths[conv], paths[host])
            settle(conv, reason or plan_of_stride(paths[conv], conv, conv, host, (conv,)))
    for module in paths:
        if isinstance(module, nn.Conv2d) and max(module.stride) == 2 and module not in settled:
            settle(module, f"strides in a block whose last ReLU is not known ({WAY_OUT})")
    return found


def _strided(block: nn.Module) -> list[nn.Conv2d | nn.AvgPool2d]:
    return [
        module
        for module in block.modules()
        if isinstance(module, (nn.Conv2d, nn.AvgPool2d)) and pair(module.stride) != (1, 1)
    ]


def _plan_of_block(
    path: str, block: nn.Module, kind: BlockKind, strided: list[nn.Conv2d | nn.AvgPool2d]
) -> PlanOfStride | str:
    """The plan, or the reason why there is none."""
    reason = _reason_against(block, kind, strided)
    if reason is not None:
        return f"{reason} ({WAY_OUT})"
    last = block.get_submodule(kind.last_conv)
    assert isinstance(last, nn.Conv2d)
    convs = tuple(module for module in strided if isinstance(module, nn.Conv2d))
    poolings = tuple(
        (parent, name)
        for parent in block.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.AvgPool2d) and child in strided
    )
    return plan_of_stride(path, block, last, block, convs, poolings)


def _reason_against(
    block: nn.Module, kind: BlockKind, strided: list[nn.Conv2d | nn.AvgPool2d]
) -> str | None:
    if "forward" in vars(block):
        return "has a forward of its own, which may do anything"
    if isinstance(block.get_submodule(kind.activation), nn.Identity):
        return "has no ReLU behind its sum"
    if {pair(module.stride) for module in strided} != {(2, 2)}:
        return "has strides other than 2"
    if any(isinstance(module, nn.Conv2d) and not keeps_size(module) for module in strided):
        return "has a convolution that would not keep its map's size without its stride"
    if kind.shortcut is None:
        return None
    shortcut = getattr(block, kind.shortcut)
    beside = set(shortcut.modules()) if isinstance(shortcut, nn.Module) else set()
    in_shortcut = sum(module in beside for module in strided)
    if (len(strided) - in_shortcut, in_shortcut) != (1, int(bool(beside))):
        return "strides by something other than one convolution or AvgPool2d in each branch"
    return None


def _stems(model: nn.Module) -> list[tuple[nn.Module, nn.Conv2d, nn.Module]]:
    """Networks of known stems, each with a strided convolution and the activation behind it."""
    found = []
    for network in model.modules():
        for conv_path, host_path in stems_of(network).items():
            conv = network.get_submodule(conv_path)
            assert isinstance(conv, nn.Conv2d)
            if pair(conv.stride) == (2, 2):
                found.append((network, conv, network.get_submodule(host_path)))
    return found


def _reason_against_stem(trace: Trace, network: nn.Module, conv: str, host: str) -> str | None:
    """Why a pooling of ``host`` is not in place of the stride of ``conv``; None if it is."""
    maps = trace.sizes.get(conv)
    if maps is None and trace.failure is not None:
        if library_of(type(network)) in STEM_LIBRARIES and not FORWARDS & vars(network).keys():
            return None  # its forward is known
        return f"its forward is not seen, because {trace.failure}: {trace.failure.way_out}"
    if maps is None or maps != trace.sizes.get(host):
        return f"is not of a stem that {host!r} ends: the forward calls them otherwise ({WAY_OUT})"
    return None


def _is_in_one_place(model: nn.Module, module: nn.Module) -> bool:
    return sum(other is module for _, other in model.named_modules(remove_duplicate=False)) == 1
