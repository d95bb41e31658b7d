"""Starting the processes of a run: this one alone, one of torchrun's, or some of our own."""

import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from training.errors import UserError
from training.processes.peer_failure import PeerFailure, peer_failure_in_one_line
from training.processes.placement import Placement
from training.processes.ranks import Process
from training.processes.rendezvous import address_of
from training.processes.spawn import run_spawned
from training.processes.torchrun import Torchrun

Work = Callable[[Process], None]


def launch(work: Work, placement: Placement) -> None:
    """Call ``work(process)`` in this process, or in as many as ``placement`` says.

    Under torchrun this is one of several processes already. Otherwise distributed processes are
    started with the method "spawn" and joined; ``work`` must then be picklable, for instance a
    ``functools.partial`` of a function of an importable module.

    Raises:
        UserError: what any of the processes raised, that it has died, or that they cannot meet.
        SystemExit: of them, as ``training.processes.spawn.run_spawned`` says.
    """
    if not placement.is_distributed:
        return work(Process(0, 1, take_device(placement, local_rank=0)))
    if placement.torchrun is not None:
        return work_under_torchrun(work, placement, placement.torchrun)
    if placement.machine == 0:
        check_port_is_free(placement.dist_url)
    first = placement.machine * placement.processes_here
    ranks = range(first, first + placement.processes_here)
    run_spawned(_work_distributed, (work, placement), ranks, way_on=placement.way_on)


def work_under_torchrun(work: Work, placement: Placement, place: Torchrun) -> None:
    """Call ``work(process)`` as the process that ``place`` says this one is.

    Raises:
        UserError: what ``work`` raised, that another process has ended or hangs, or that the
            processes cannot meet.
    """
    process = Process(place.rank, place.world_size, take_device(placement, place.local_rank))
    _work_in_group(work, placement, process)


def take_device(placement: Placement, local_rank: int) -> torch.device:
    """Return the device of this machine's ``local_rank``-th process; make it the current one."""
    if not placement.uses_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", placement.first_gpu + local_rank)
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


def _work_distributed(local_rank: int, work: Work, placement: Placement) -> None:
    process = Process(
        rank=placement.machine * placement.processes_here + local_rank,
        world_size=placement.machines * placement.processes_here,
        device=take_device(placement, local_rank),
    )
    if process.device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // placement.processes_here))
    _work_in_group(work, placement, process)


def _work_in_group(work: Work, placement: Placement, process: Process) -> None:
    _join_group(placement, process)
    try:
        with peer_failure_in_one_line(process.rank, placement.timeout, placement.way_on):
            work(process)
    except SystemExit:  # all processes stop; Gloo's threads must not outlive the interpreter
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _join_group(placement: Placement, process: Process) -> None:
    place = {
        "world_size": process.world_size,
        "rank": process.rank,
        "timeout": timedelta(seconds=placement.timeout),
    }
    try:
        if placement.torchrun is None:
            dist.init_process_group(placement.backend, init_method=placement.dist_url, **place)
        else:
            store, *_ = next(dist.rendezvous("env://", **place))
            if placement.machines == 1:
                # torchrun's own store still holds the addresses of processes that have died.
                # Several machines may count their restarts differently.
                store = dist.PrefixStore(f"start {placement.torchrun.restarts}", store)
            dist.init_process_group(placement.backend, store=store, **place)
    except (RuntimeError, ValueError) as error:
        where = f"--dist-url {placement.dist_url}" if placement.torchrun is None else "torchrun"
        raise PeerFailure(
            f"{where}: the {process.world_size} processes cannot meet "
            f"({str(error).splitlines()[0]}); check the address, the number of machines and "
            "each one's number, and that every machine starts within --dist-timeout "
            f"{placement.timeout} s"
        ) from error
