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
        decays: whether weight decay acts on what it learns: on the weights of heads, unless the
            name says otherwise, and not on a λ, p or proportion that is learned itself.
    """

    title: str
    make: str | Callable[..., nn.Module] | None = None
    decays: bool = True


class ConstantHeadPool2d(GFGPMaxEntPool2d):
    """Guided Max-Ent pooling whose head sees ones in the place of the map's mean.

    It has as many parameters as the guided one and the same range of λ, but no guidance: λ is the
    same for every image. Of a constant, the head's norms make their biases: in training, λ is the
    sigmoid of one learned number a channel. In evaluation it lags behind that while the learning
    rate is high (the norms divide the difference from their running mean by the root of their
    epsilon), and no longer when it has come down to 0.
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
    "mixed": Pooling("mixed, a proportion learned per channel", "mixed", decays=False),
    "gem": Pooling("generalised mean, p learned per channel", "gem", decays=False),
    "soft": Pooling("Max-Ent, λ = 1 (SoftPool)", "soft"),
    "max_ent_unguided": Pooling("Max-Ent, λ learned per channel", "max_ent_unguided", decays=False),
    "max_ent": Pooling("**Max-Ent, guided** (sigmoid)", "max_ent"),
    "max_ent_constant": Pooling("Max-Ent, the head sees a constant", ConstantHeadPool2d),
    "max_ent_softplus": Pooling("Max-Ent, guided, softplus", SOFTPLUS),
    "max_ent_no_decay": Pooling(
        "Max-Ent, guided, head without weight decay", "max_ent", decays=False
    ),
    "max_ent_softplus_no_decay": Pooling(
        "Max-Ent, guided, softplus, head without weight decay", SOFTPLUS, decays=False
    ),
    "gauss": Pooling("Gaussian, guided", GFGPGaussianPool2d),
}
