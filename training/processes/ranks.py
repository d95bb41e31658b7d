"""The processes that train together, and what they tell each other."""

import pickle
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.errors import UserError

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
    return _all_reduce(values, dist.ReduceOp.SUM, process)


def all_reduce_max(values: Tensor, process: Process) -> Tensor:
    """Replace ``values`` by their largest over all processes, and return it."""
    return _all_reduce(values, dist.ReduceOp.MAX, process)


def broadcast_from_main(tensors: list[Tensor], process: Process) -> None:
    """Overwrite ``tensors`` with those of the main process."""
    if process.world_size > 1:
        for tensor in tensors:
            with _lent(tensor):
                dist.broadcast(tensor, src=0)


def object_from_main(value: object, process: Process) -> Any:
    """Return the main process's ``value``, of plain types."""
    return gather_objects(value if process.is_main else None, process)[0]


def gather_objects(value: T, process: Process) -> list[T]:
    """Return what each process passes as ``value``, by rank; every process must call it."""
    if process.world_size == 1:
        return [value]
    own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    sizes = torch.zeros(process.world_size, dtype=torch.int64, device=process.device)
    sizes[process.rank] = len(own)
    ends = [0, *accumulate(all_reduce_sum(sizes, process).tolist())]
    everything = torch.zeros(ends[-1], dtype=torch.uint8, device=process.device)
    everything[ends[process.rank] : ends[process.rank + 1]] = own
    everything = all_reduce_sum(everything, process).cpu().numpy()
    return [pickle.loads(everything[start:end]) for start, end in pairwise(ends)]


@contextmanager
def errors_shared(process: Process) -> Iterator[None]:
    """Raise in every process the UserError of one within the block, which every one must enter.

    Else those without an error would wait for the other ones, and never tell the reason. What they
    exchange within the block they must do whatever one of them alone has found.

    Raises:
        UserError: that of the first process that raised one; it says which, if not all did.
    """
    own = None
    try:
        yield
    except UserError as error:
        own = error
    told = gather_objects((socket.gethostname(), str(own) if own else None), process)
    failed = [(rank, *each) for rank, each in enumerate(told) if each[1] is not None]
    if failed:
        rank, machine, text = failed[0]
        which = f"process {rank} (on {machine}): " if len(failed) < len(told) else ""
        raise UserError(f"{which}{text}") from own


def wrap_model(model: nn.Module, process: Process) -> nn.Module:
    """Return ``model`` so that its gradients are averaged over the processes."""
    if process.world_size == 1:
        return model
    devices = [process.device] if process.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)


def _all_reduce(values: Tensor, operation: dist.ReduceOp.RedOpType, process: Process) -> Tensor:
    if process.world_size > 1:
        with _lent(values):
            dist.all_reduce(values, operation)
    return values


@contextmanager
def _lent(tensor: Tensor) -> Iterator[None]:
    """Return only when Gloo's thread, too, has let go of ``tensor``.

    Where Python forgets it first, the thread has to ask Python to free it. A worker process that is
    forked at that moment waits for ever, by a fault of CPython before 3.12: its
    ``_PyThreadState_DeleteExcept`` takes a lock that the thread held.
    """
    users = tensor._use_count()
    yield
    while tensor.device.type == "cpu" and tensor._use_count() > users:
        time.sleep(0)
