"""Processes: starting them, and what they tell each other."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.errors import UserError
from training.processes.peer_failure import LostContact, lost_contact_in_one_line, way_on
from training.processes.rendezvous import address_of
from training.processes.spawn import run_children
from training.processes.torchrun import Torchrun

if TYPE_CHECKING:
    # What it imports may be missing where only tests of the GPU are run.
    from training.settings import Settings


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


Work = Callable[["Settings", Process], None]
T = TypeVar("T")


def launch(work: Work, settings: Settings) -> None:
    """Call ``work(settings, process)`` in this process, or in as many as the settings say.

    Under torchrun this is one of several processes already. Otherwise distributed processes are
    started with the method "spawn" and joined; ``work`` must then be a function of an importable
    module.

    Raises:
        UserError: what any of the processes raised, that it has died, or that they cannot meet.
        SystemExit: of them, as ``training.processes.spawn.run_children`` says.
    """
    if not settings.is_distributed:
        return work(settings, Process(0, 1, take_device(settings, local_rank=0)))
    if settings.torchrun is not None:
        return work_under_torchrun(work, settings, settings.torchrun)
    if settings.rank == 0:
        check_port_is_free(settings.dist_url)
    first = settings.rank * settings.processes_here
    ranks = range(first, first + settings.processes_here)
    run_children(_work_distributed, (work, settings), ranks, way_on(settings))


def work_under_torchrun(work: Work, settings: Settings, place: Torchrun) -> None:
    """Call ``work(settings, process)`` as the process that ``place`` says this one is.

    Raises:
        UserError: what ``work`` raised, that another process has ended or hangs, or that the
            processes cannot meet.
    """
    process = Process(place.rank, place.world_size, take_device(settings, place.local_rank))
    _work_in_group(work, settings, process)


def take_device(settings: Settings, local_rank: int) -> torch.device:
    """Return the device of this machine's ``local_rank``-th process; make it the current one."""
    if not settings.uses_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", (settings.gpu or 0) + local_rank)
    torch.cuda.set_device(device)
    return device


def check_port_is_free(dist_url: str) -> None:
    """Raise UserError if no server can listen on the port of ``tcp://HOST:PORT`` here."""
    port = address_of(dist_url)[1]
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        raise UserError(
            f"--dist-url {dist_url}: port {port} cannot be used ({error.strerror}); "
            "choose another port"
        ) from error


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


def _work_distributed(local_rank: int, work: Work, settings: Settings) -> None:
    process = Process(
        rank=settings.rank * settings.processes_here + local_rank,
        world_size=settings.world_size * settings.processes_here,
        device=take_device(settings, local_rank),
    )
    if process.device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // settings.processes_here))
    _work_in_group(work, settings, process)


def _work_in_group(work: Work, settings: Settings, process: Process) -> None:
    _join_group(settings, process)
    with lost_contact_in_one_line(settings, process.rank):
        work(settings, process)
    dist.destroy_process_group()


def _join_group(settings: Settings, process: Process) -> None:
    place = {
        "world_size": process.world_size,
        "rank": process.rank,
        "timeout": timedelta(seconds=settings.dist_timeout),
    }
    try:
        if settings.torchrun is None:
            dist.init_process_group(settings.backend, init_method=settings.dist_url, **place)
        else:
            store, *_ = next(dist.rendezvous("env://", **place))
            if settings.machines == 1:
                # torchrun's own store still holds the addresses of processes that have died.
                # Several machines may count their restarts differently (README).
                store = dist.PrefixStore(f"start {settings.torchrun.restarts}", store)
            dist.init_process_group(settings.backend, store=store, **place)
    except (RuntimeError, ValueError) as error:
        where = f"--dist-url {settings.dist_url}" if settings.torchrun is None else "torchrun"
        raise LostContact(
            f"{where}: the {process.world_size} processes cannot meet "
            f"({str(error).splitlines()[0]}); check the address, the number of machines and "
            "each one's number, and that every machine starts within --dist-timeout "
            f"{settings.dist_timeout} s"
        ) from error
