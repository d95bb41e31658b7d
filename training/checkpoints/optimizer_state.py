"""The state of the optimizer in a checkpoint: what it remembers, of each parameter and of itself.

Only that is taken from a file. What it was told, the learning rate, the weight decay and so on, is
the settings' to say, and so is which parameters are told the same (its groups).
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoints.format import CANNOT_BE, Checkpoint
from training.errors import UserError

OF_ONE_SHAPE = ("momentum_buffer", "exp_avg")
"""What of an optimizer's state has the shape of its parameter in whatever optimizer."""


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return the optimizer's state dict with ``model``'s parameters in their order, in one group.

    So a published file has them. What the optimizer was told is that of its first group. What else
    it has, such as the state of the random numbers of timm's Kron, is there as it is.
    """
    own = optimizer.state_dict()
    order = _order_of(model, optimizer)
    states = own["state"]
    told = {name: value for name, value in own["param_groups"][0].items() if name != "param_names"}
    return {
        **own,
        "state": {place: states[key] for place, key in enumerate(order) if key in states},
        "param_groups": [{**told, "params": list(range(len(order)))}],
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Checkpoint
) -> None:
    """Give ``optimizer``, of ``model``'s parameters in any groups, the state of ``checkpoint``.

    ``load_model`` must have accepted the checkpoint.

    Raises:
        UserError: the state is of other parameters, or is none.
    """
    try:
        optimizer.load_state_dict(_fitted(optimizer, model, checkpoint))
    except CANNOT_BE as error:
        raise UserError(
            f"--resume {checkpoint.path}: its optimizer state cannot be used ({error!r})"
        ) from error
    for parameter, state in optimizer.state.items():
        for name in OF_ONE_SHAPE:
            value = state.get(name)
            if value is not None and not _is_like(value, parameter):
                its = list(value.shape) if isinstance(value, Tensor) else repr(value)
                raise UserError(
                    f"--resume {checkpoint.path}: its optimizer state is of other parameters: "
                    f"{name} {its} in place of {list(parameter.shape)}"
                )


def _fitted(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Return ``optimizer``'s own state dict with the state of ``checkpoint``."""
    own, its = optimizer.state_dict(), checkpoint.optimizer
    (its_group,) = its["param_groups"]
    order, keys, states = _order_of(model, optimizer), its_group["params"], its["state"]
    if len(keys) != len(order):
        raise ValueError(f"of {len(keys)} parameters, not {len(order)}")
    return {
        **{name: its.get(name, value) for name, value in own.items()},
        "state": {
            number: states[keys[place]]
            for number, place in zip(order, _places(model, checkpoint), strict=True)
            if keys[place] in states
        },
        # What an optimizer was not told, it has counted: some count their steps in the group, in
        # a tensor, of which each group needs its own.
        "param_groups": [{**deepcopy(its_group), **group} for group in own["param_groups"]],
    }


def _order_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[int]:
    """Return the numbers that the optimizer's state dict has for ``model``'s parameters.

    They are numbered in the order of its groups.
    """
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {parameter: number for number, parameter in enumerate(grouped)}
    return [numbers[parameter] for parameter in model.parameters()]


def _places(model: nn.Module, checkpoint: Checkpoint) -> list[int]:
    """Return for each of ``model``'s parameters its place among those of the checkpoint.

    A published network has the same ones in another order. Which is which only
    ``load_state_dict`` knows: it is given each tensor's place in the file.
    """
    tensors = {
        name: torch.tensor(float(place)).expand(tensor.shape)
        for place, (name, tensor) in enumerate(checkpoint.state_dict.items())
    }
    model_of_places = deepcopy(model)
    model_of_places.load_state_dict(tensors)
    found = [parameter.flatten()[0].item() for parameter in model_of_places.parameters()]
    places = {number: place for place, number in enumerate(sorted(found))}
    return [places[number] for number in found]


def _is_like(value: object, parameter: nn.Parameter) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
