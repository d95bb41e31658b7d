"""What a network may be wrapped in or compiled to, and whether it can still be changed."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["check_not_fixed", "is_compiled"]

# By name: to import them all would take a while, and not every build of PyTorch has them.
DATA_PARALLEL = "keeps the gradients of the parameters that it was given equal, and no others"
SHARDED = "has divided the parameters among its processes already"
FIXED = {
    "DistributedDataParallel": DATA_PARALLEL,
    "DDP": DATA_PARALLEL,  # torch.distributed._composable.replicate
    "ReplicateModule": DATA_PARALLEL,
    "FullyShardedDataParallel": SHARDED,
    "FSDPModule": SHARDED,  # torch.distributed.fsdp.fully_shard
    "DeepSpeedEngine": SHARDED,
}
OF_LIBRARIES = ("torch", "apex", "deepspeed")
INT8 = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
NOT_INT8 = ("FloatFunctional", "FXFloatFunctional")  # their places before they are converted


def check_not_fixed(model: nn.Module) -> None:
    """Raise ValueError if ``model``, or a part of it, is such that a new pooling would not belong.

    What ``torch.compile`` and ``nn.DataParallel`` have wrapped is not: the one compiles anew, the
    other replicates what it finds.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "model was compiled by torch.jit, and its modules are fixed: replace its poolings "
            "before it is compiled"
        )
    for path, module in model.named_modules():
        name = f"model.{path} is" if path else "model is"
        for cls in type(module).__mro__:
            library = cls.__module__.partition(".")[0]
            if cls.__name__ in FIXED and library in OF_LIBRARIES:
                raise ValueError(
                    f"{name} wrapped by {cls.__name__}, which {FIXED[cls.__name__]}: replace the "
                    "poolings first, and wrap the network then"
                )
        if _is_int8(type(module)):
            raise ValueError(
                f"{name} an int8 {type(module).__name__}, and the new poolings learn in floating "
                "point: replace the poolings first, fine-tune, and quantise the network then"
            )


def _is_int8(cls: type[nn.Module]) -> bool:
    # The maps of dynamically quantised layers are floating-point.
    library = cls.__module__
    return library.startswith(INT8) and ".dynamic." not in library and cls.__name__ not in NOT_INT8


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module`` is what ``torch.compile`` makes of one."""
    return type(module).__name__ == "OptimizedModule"
