"""The optimizer of a recipe: what it is, and which parameters it treats apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gfgp_cupy.choices import check_choice
from gfgp_cupy.pool2d import Pool2d
from training.errors import UserError
from training.recipes import Recipe

if TYPE_CHECKING:
    from timm.optim import OptimInfo


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of ``recipe`` for ``model``'s parameters, at the first learning rate.

    ``sgd`` is ``torch.optim.SGD`` with classical momentum, as published; any other name is one of
    ``timm.optim.list_optimizers()``. It is made with the learning rate after the warm-up, the peak:
    what timm calls corrected weight decay is in proportion to the rate's share of the one that an
    optimizer is made with.

    Raises:
        UserError: the optimizer needs what is not installed, or does not take what it is given.
    """
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum)
    else:
        optimizer = _optimizer_of_timm(groups, recipe)
    set_learning_rate(optimizer, recipe.learning_rates()[0])
    return optimizer


def _optimizer_of_timm(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2

    given = {"betas": recipe.opt_betas, "eps": recipe.opt_eps}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return create_optimizer_v2(
            groups, opt=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum, **given
        )
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise UserError(
            f"--optimizer {recipe.optimizer}: cannot be made ({error}); install what it needs, "
            "or choose another"
        ) from error


def check_optimizer(
    name: str, given: Sequence[str] = (), betas: Sequence[float] | None = None
) -> None:
    """Check that there is the optimizer ``name``, that it takes plain gradients and has options.

    Args:
        name: ``sgd`` or any of timm's.
        given: options that the user gave for it, of ``--momentum``, ``--opt-betas``, ``--opt-eps``.
        betas: the numbers of ``--opt-betas``, None where the optimizer's own are taken.

    Raises:
        UserError: timm is missing or has none such, what is ``given`` is of other optimizers, or it
            takes more or fewer ``betas``.
    """
    has = {"--momentum": True, "--opt-betas": False, "--opt-eps": False}
    if name != "sgd":
        info = _info_of(name)
        has = {
            "--momentum": info.has_momentum,
            "--opt-betas": info.has_betas,
            "--opt-eps": info.has_eps,
        }
        if betas is not None and info.has_betas and len(betas) != info.num_betas:
            raise UserError(
                f"--opt-betas {','.join(map(str, betas))}: --optimizer {name} takes "
                f"{info.num_betas} numbers; pass as many, or leave the option out for its own"
            )
    for option in given:
        if not has[option]:
            raise UserError(f"{option}: --optimizer {name} has no such thing; leave it out")


def _info_of(name: str) -> "OptimInfo":
    """Return what timm says of the optimizer ``name``."""
    try:
        from timm.optim import get_optimizer_info, list_optimizers
    except ImportError as error:
        raise UserError(
            f"--optimizer {name}: is timm's, which is missing ({error}): pip install timm, or take "
            "sgd"
        ) from error
    try:
        check_choice("--optimizer", name, list_optimizers())
    except ValueError as error:
        raise UserError(str(error)) from error
    info = get_optimizer_info(name)
    if info.second_order:
        raise UserError(
            f"--optimizer {name}: takes second derivatives, which are not computed here; choose "
            "another"
        )
    return info


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameter groups of ``model``: one, or those that ``recipe`` treats apart.

    Those of the poolings, a λ or the head that predicts it, learn ``recipe.head_lr`` times as
    fast: the group's ``lr_scale``, as timm calls it, is what ``set_learning_rate`` multiplies by.
    Where ``recipe.weight_decay_on`` is ``"weights"``, neither they nor any norm or bias decay.
    """
    of_poolings = parameters_of_poolings(model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        in_pooling = parameter in of_poolings
        lr_scale = recipe.head_lr if in_pooling else 1.0
        # As timm has it: of norms, and biases, each parameter has one dimension.
        decays = recipe.weight_decay_on == "all" or not (in_pooling or parameter.dim() <= 1)
        groups.setdefault((lr_scale, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_scale": lr_scale,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (lr_scale, decays), parameters in groups.items()
    ]


def parameters_of_poolings(model: nn.Module) -> set[nn.Parameter]:
    """Return what the poolings of ``model`` learn: a λ, p or weight, or its head."""
    return {
        parameter
        for module in model.modules()
        if isinstance(module, Pool2d)
        for parameter in module.parameters()
    }


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each parameter group ``lr`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
