"""An optimizer that had the network's parameters before, and has them afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["checked_optimizers", "update_optimizers"]

# Whose step is not one of each parameter by itself, or not of parameters of any shape.
CANNOT_GROW = {
    "LBFGS": "its history is of all parameters in one vector",
    "Muon": "it takes matrices alone",
    "SparseAdam": "it takes sparse gradients alone",
    "ZeroRedundancyOptimizer": "it has divided the parameters among its processes",
}


def checked_optimizers(
    optimizer: Optimizer | Sequence[Optimizer] | None, model: nn.Module
) -> list[Optimizer]:
    """The argument ``optimizer`` as a list. Warns if it was made for another network.

    Raises:
        TypeError: one is no optimizer.
        ValueError: the first cannot take more parameters.
    """
    if optimizer is None:
        return []
    optimizers = list(optimizer) if isinstance(optimizer, Sequence) else [optimizer]
    for one in optimizers:
        if not isinstance(one, Optimizer):
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer or a list of them, got "
                f"{type(one).__name__}"
            )
    for cls in type(optimizers[0]).__mro__ if optimizers else ():
        if reason := CANNOT_GROW.get(cls.__name__):
            raise ValueError(
                f"optimizer is a {cls.__name__}, which the new parameters cannot join, for {reason}"
                ": give another one first, or none and make this one afterwards"
            )
    trained = {
        id(each) for one in optimizers for group in one.param_groups for each in group["params"]
    }
    own = {id(each) for each in model.parameters() if each.requires_grad}
    if optimizers and own and not own & trained:
        warnings.warn(
            "optimizer has none of model's parameters: only the new poolings' will join it. If it "
            "was made for another copy of the network, make it anew, of model.parameters()",
            stacklevel=3,
        )
    return optimizers


def update_optimizers(
    optimizers: list[Optimizer], before: Mapping[str, nn.Parameter], model: nn.Module
) -> None:
    """Gives the first group of the first optimizer what parameters ``model`` has got since
    ``before``, and takes from all what it has lost, with its state.

    The groups, which schedulers hold as well, stay the same objects, and their options the same.
    """
    now = dict(model.named_parameters())
    kept = {id(parameter) for parameter in now.values()}
    known = {id(parameter) for parameter in before.values()}
    lost = [parameter for parameter in before.values() if id(parameter) not in kept]
    for optimizer in optimizers:
        for parameter in lost:
            _remove(optimizer, parameter)
    if optimizers:
        new = {name: parameter for name, parameter in now.items() if id(parameter) not in known}
        _add(optimizers[0], new)


def _add(optimizer: Optimizer, new: dict[str, nn.Parameter]) -> None:
    group = optimizer.param_groups[0]
    if isinstance(optimizer, torch.optim.Adagrad) and new:
        # Older ones of PyTorch make its state when they are made, and need it for every step.
        options: dict[str, Any] = {
            name: value for name, value in group.items() if name not in ("params", "param_names")
        }
        fresh = torch.optim.Adagrad([{"params": list(new.values()), **options}])
        optimizer.state.update(fresh.state)
    group["params"] += new.values()
    if "param_names" in group:
        group["param_names"] += new


def _remove(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    optimizer.state.pop(parameter, None)
    for group in optimizer.param_groups:
        places = [i for i, own in enumerate(group["params"]) if own is parameter]
        for i in reversed(places):
            del group["params"][i]
            if "param_names" in group:
                del group["param_names"][i]
