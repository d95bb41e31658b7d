"""The names under which a created model accepts its tensors, and those of the published code."""

from typing import Any

from torch import Tensor, nn

from gfgp_cupy import GFGPGaussianPool2d, GFGPMaxEntPool2d
from gfgp_cupy.published_names import save_published_names


def drop_wrapper_names(
    model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object
) -> None:
    """Rename in place the tensors saved from a model that DataParallel wrapped, in whole or part,
    or from ``torch.optim.swa_utils.AveragedModel``, whose count of updates is left out.

    A wrapper adds ``module`` to the path of each tensor under it: ``module.conv1.weight``,
    ``features.module.0.weight``. A ``load_state_dict`` pre-hook. A name stays as it is where
    ``model`` has such a wrapper itself, or where the state dict holds the shorter name too:
    the load then reports it as unexpected.
    """
    wrapped = any(name.startswith(f"{prefix}module.") for name in state_dict)
    if wrapped and not hasattr(model, "n_averaged"):
        state_dict.pop(f"{prefix}n_averaged", None)
    for name in [name for name in state_dict if name.startswith(prefix)]:
        own_name = prefix + _without_wrappers(model, name.removeprefix(prefix))
        if own_name not in state_dict:
            state_dict[own_name] = state_dict.pop(name)


def published_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of ``model`` as the published code saves them, their order included.

    From then on, ``model.state_dict()`` gives them so, too.
    """
    for module in model.modules():
        if isinstance(module, GFGPMaxEntPool2d | GFGPGaussianPool2d):
            save_published_names(module)
    return dict(model.state_dict())


def _without_wrappers(model: nn.Module, name: str) -> str:
    *path, tensor_name = name.split(".")
    kept: list[str] = []
    owner: nn.Module | None = model
    for component in path:
        children = dict(owner.named_children()) if owner is not None else {}
        if component == "module" and component not in children:
            continue
        kept.append(component)
        owner = children.get(component)
    return ".".join([*kept, tensor_name])
