"""The published placement: strides move behind the last ReLU of the block that they are in.

Source: T. Kobayashi, "Global Feature Guided Local Pooling", ICCV 2019.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from ..choices import check_choice
from .known_blocks import BlockKind, kind_of, stems_of
from .moved_stride import PlanOfStride
from .window import pair, window_of

__all__ = ["Strides", "find_strides", "strides_to_move"]

Where = Callable[[str, nn.Module], bool]


@dataclass
class Strides:
    """What there is to be done about a network's strides.

    Attributes:
        plans: those to be moved, in the network's order.
        moved: the convolutions and poolings that the plans take care of.
        unknown: by path, blocks and convolutions that stride and have no known place where a
            pooling could do so, and the reason.
    """

    plans: list[PlanOfStride] = field(default_factory=list)
    moved: set[nn.Module] = field(default_factory=set)
    unknown: dict[str, tuple[nn.Module, str]] = field(default_factory=dict)


def strides_to_move(
    model: nn.Module, strides: str | None, strided_convs: bool, where: Where | None
) -> Strides:
    """What :func:`replace_pooling` does about strides: nothing unless ``strides`` asks for it.

    Raises:
        ValueError: an unknown ``strides``, both arguments, or a stride that has no known place to
            move to.
    """
    if strides is None:
        return Strides()
    check_choice("strides", strides, ["after_blocks"])
    if strided_convs:
        raise ValueError(
            "strided_convs=True pools directly behind each strided convolution, and "
            f"strides={strides!r} behind the block that it is in: choose one of them"
        )
    found = find_strides(model, where)
    if found.unknown:
        raise ValueError(
            f"strides={strides!r} moves the strides of residual blocks and stems of torchvision "
            f"and timm, but {_told(found.unknown)}: use strided_convs=True instead, or leave them "
            f"as they are with where=lambda path, module: path not in {list(found.unknown)}"
        )
    return found


def _told(unknown: dict[str, tuple[nn.Module, str]]) -> str:
    """The first of each reason, and how many more it has."""
    reasons = Counter(reason for _, reason in unknown.values())
    first = {
        reason: f"{path!r} ({type(module).__name__})"
        for path, (module, reason) in reversed(unknown.items())
    }
    return "; ".join(
        f"{first[reason]}{f', and {count - 1} more like it,' if count > 1 else ''} {reason}"
        for reason, count in reasons.items()
    )


def find_strides(model: nn.Module, where: Where | None) -> Strides:
    """The strides of convolutions in ``model``, and where the published placement has poolings.

    Args:
        model: any network. Nothing is changed.
        where: is called with the path and the module of each block, stem convolution and other
            convolution that strides; what it returns False for is left out.
    """
    paths = {module: path for path, module in model.named_modules()}
    found = Strides()
    settled: set[nn.Module] = set()  # moved, left out or unknown
    for module, path in paths.items():
        kind = kind_of(module)
        if kind is None or not (strided := _strided(module)):
            continue
        settled.update(module.modules())
        if where is None or where(path, module):
            _add_block(found, path, module, kind, strided)
    for conv, host in _stems(model):
        if conv not in settled and _moves(model, conv, host):
            settled.add(conv)
            if where is None or where(paths[conv], conv):
                found.plans.append(_plan(paths[conv], conv, conv, host, (conv,)))
                found.moved.add(conv)
    for module, path in paths.items():
        if module in settled or not isinstance(module, nn.Conv2d) or max(module.stride) != 2:
            continue
        if where is None or where(path, module):
            found.unknown[path] = module, "strides in a block whose last ReLU is not known"
    order = list(paths.values())
    found.plans.sort(key=lambda plan: order.index(plan.path))
    return found


def _strided(block: nn.Module) -> list[nn.Conv2d | nn.AvgPool2d]:
    return [
        module
        for module in block.modules()
        if isinstance(module, (nn.Conv2d, nn.AvgPool2d)) and pair(module.stride) != (1, 1)
    ]


def _add_block(
    found: Strides,
    path: str,
    block: nn.Module,
    kind: BlockKind,
    strided: list[nn.Conv2d | nn.AvgPool2d],
) -> None:
    reason = _reason_against(block, kind, strided)
    if reason is not None:
        found.unknown[path] = block, reason
        return
    last = block.get_submodule(kind.last_conv)
    assert isinstance(last, nn.Conv2d)
    convs = tuple(module for module in strided if isinstance(module, nn.Conv2d))
    poolings = tuple(
        (parent, name)
        for parent in block.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.AvgPool2d) and child in strided
    )
    found.plans.append(_plan(path, block, last, block, convs, poolings))
    found.moved.update(strided)


def _reason_against(
    block: nn.Module, kind: BlockKind, strided: list[nn.Conv2d | nn.AvgPool2d]
) -> str | None:
    if "forward" in vars(block):
        return "has a forward of its own, which may do anything"
    if isinstance(block.get_submodule(kind.activation), nn.Identity):
        return "has no ReLU behind its sum"
    if {pair(module.stride) for module in strided} != {(2, 2)}:
        return "has strides other than 2"
    if any(isinstance(module, nn.Conv2d) and not _keeps_size(module) for module in strided):
        return "has a convolution that would not keep its map's size without its stride"
    if kind.shortcut is None:
        return None
    shortcut = getattr(block, kind.shortcut)
    beside = set(shortcut.modules()) if isinstance(shortcut, nn.Module) else set()
    in_shortcut = sum(module in beside for module in strided)
    if (len(strided) - in_shortcut, in_shortcut) != (1, int(bool(beside))):
        return "strides by something other than one convolution or AvgPool2d in each branch"
    return None


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Whether its output has its input's size once its stride is 1."""
    if isinstance(conv.padding, str):
        return False
    reach = ((k - 1) * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    return all(2 * p == r for p, r in zip(conv.padding, reach, strict=True))


def _stems(model: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Strided convolutions of known stems, each with the activation behind it."""
    found = []
    for network in model.modules():
        for conv_path, host_path in stems_of(network).items():
            conv = network.get_submodule(conv_path)
            assert isinstance(conv, nn.Conv2d)
            found.append((conv, network.get_submodule(host_path)))
    return found


def _moves(model: nn.Module, conv: nn.Conv2d, host: nn.Module) -> bool:
    uses = sum(other is host for _, other in model.named_modules(remove_duplicate=False))
    return uses == 1 and pair(conv.stride) == (2, 2) and _keeps_size(conv)


def _plan(
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
