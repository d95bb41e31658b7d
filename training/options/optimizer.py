"""What moves the weights."""

from dataclasses import dataclass

from training.argument_types import fraction, fractions, natural_float, positive_float
from training.options.option import option


@dataclass(frozen=True)
class OptimizerOptions:
    """See ``training.options.Options``."""

    optimizer: str | None = option(
        "optimizer",
        "sgd, or any of timm's, such as adamw and lamb (default: the recipe's)",
        metavar="NAME",
        from_recipe=True,
    )
    momentum: float | None = option(
        "optimizer", "(default: the recipe's)", parse=fraction, metavar="M", from_recipe=True
    )
    weight_decay: float | None = option(
        "optimizer", "(default: the recipe's)", parse=natural_float, metavar="W", from_recipe=True
    )
    weight_decay_on: str | None = option(
        "optimizer",
        "weights: of convolutions and linear layers only, not of norms, biases, and λ and the "
        "heads that predict it; all: of all (default: the recipe's)",
        choices=("all", "weights"),
        from_recipe=True,
    )
    head_lr: float | None = option(
        "optimizer",
        "learning rate of λ and of the heads that predict it, as a multiple of --lr (default: the "
        "recipe's)",
        parse=positive_float,
        metavar="FACTOR",
        from_recipe=True,
    )
    clip_grad: float | None = option(
        "optimizer",
        "shorten a longer gradient to this norm (default: the recipe's)",
        parse=positive_float,
        metavar="NORM",
        from_recipe=True,
    )
    opt_betas: tuple[float, ...] | None = option(
        "optimizer",
        "of Adam and its kin, such as 0.9,0.98, of adan three (default: the optimizer's)",
        parse=fractions,
        metavar="B,B",
        from_recipe=True,
    )
    opt_eps: float | None = option(
        "optimizer",
        "of Adam and its kin (default: the optimizer's)",
        parse=positive_float,
        metavar="E",
        from_recipe=True,
    )
