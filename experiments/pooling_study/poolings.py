"""The poolings that are compared, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gfgp_cupy import GFGPGaussianPool2d, GFGPMaxEntPool2d


@dataclass(frozen=True)
class Pooling:
    """A pooling under comparison.

    Attributes:
        title: for tables.
        make: what ``gfgp_cupy.replace_pooling`` puts in max pooling's place; None leaves it.
        head_decays: whether weight decay acts on the head, or on what is learned in its place.
    """

    title: str
    make: str | Callable[..., nn.Module] | None = None
    head_decays: bool = True


class ConstantHeadPool2d(GFGPMaxEntPool2d):
    """Guided Max-Ent pooling whose head sees ones in the place of the map's mean.

    It has the same parameters as the guided one, and the same range of λ, but no guidance: λ is the
    same for every image.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head.register_forward_pre_hook(_sees_ones)


def _sees_ones(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (torch.ones_like(args[0]),)


SOFTPLUS = partial(GFGPMaxEntPool2d, activation="softplus")

POOLINGS = {
    "skip": Pooling("none: convolutions stride"),
    "max": Pooling("max"),
    "avg": Pooling("average", "avg"),
    "mixed": Pooling("mixed, a proportion learned per channel", "mixed"),
    "gem": Pooling("generalised mean, p learned per channel", "gem"),
    "soft": Pooling("Max-Ent, λ = 1 (SoftPool)", "soft"),
    "max_ent_unguided": Pooling("Max-Ent, λ learned per channel", "max_ent_unguided"),
    "max_ent": Pooling("**Max-Ent, guided** (sigmoid)", "max_ent"),
    "max_ent_constant": Pooling("Max-Ent, the head sees a constant", ConstantHeadPool2d),
    "max_ent_softplus": Pooling("Max-Ent, guided, softplus", SOFTPLUS),
    "max_ent_no_decay": Pooling(
        "Max-Ent, guided, head without weight decay", "max_ent", head_decays=False
    ),
    "max_ent_softplus_no_decay": Pooling(
        "Max-Ent, guided, softplus, head without weight decay", SOFTPLUS, head_decays=False
    ),
    "gauss": Pooling("Gaussian, guided", GFGPGaussianPool2d),
}
