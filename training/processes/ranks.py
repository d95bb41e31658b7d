"""The processes that train together, and what they tell each other."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """One of the processes that train together.

    Attributes:
        rank: its number among all processes of all machines.
        world_size: how many there are.
        device: where it computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True for the one process that prints and writes."""
        return self.rank == 0


def all_reduce_sum(values: Tensor, process: Process) -> Tensor:
    """Replace ``values`` by their sum over all processes, and return it."""
    if process.world_size > 1:
        dist.all_reduce(values)
    return values


def all_reduce_max(values: Tensor, process: Process) -> Tensor:
    """Replace ``values`` by their largest over all processes, and return it."""
    if process.world_size > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def broadcast_from_main(tensors: list[Tensor], process: Process) -> None:
    """Overwrite ``tensors`` with those of the main process."""
    if process.world_size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def object_from_main(value: object, process: Process) -> Any:
    """Return the main process's ``value``, of plain types."""
    values = [value]
    if process.world_size > 1:
        dist.broadcast_object_list(values, src=0, device=process.device)
    return values[0]


def gather_objects(value: T, process: Process) -> list[T]:
    """Return what each process passes as ``value``, by rank; every process must call it."""
    if process.world_size == 1:
        return [value]
    values = [value] * process.world_size
    dist.all_gather_object(values, value)
    return values


def wrap_model(model: nn.Module, process: Process) -> nn.Module:
    """Return ``model`` so that its gradients are averaged over the processes."""
    if process.world_size == 1:
        return model
    devices = [process.device] if process.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)
