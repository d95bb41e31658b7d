"""What ``torchrun`` tells each process that it starts, in environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Torchrun:
    """This process's place among those that torchrun started.

    Attributes:
        rank, world_size: its number among the processes of all machines, and theirs.
        local_rank, local_world_size: the same on this machine; each machine has as many.
        restarts: how often torchrun has started them anew, after one of them had died.
        master_addr: the host where they meet.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    restarts: int
    master_addr: str = "127.0.0.1"


def read_torchrun(environ: Mapping[str, str]) -> Torchrun | None:
    """Return what the environment says, or None where this process is not one of torchrun's.

    Raises:
        UserError: it says one part and not the other, or something that cannot be.

    Example:
        >>> read_torchrun({"HOME": "/home/me"}) is None
        True
    """
    if "LOCAL_RANK" not in environ:
        return None
    missing = [name for name in (*VARIABLES, "MASTER_ADDR", "MASTER_PORT") if name not in environ]
    if missing:
        raise UserError(
            f"the environment has LOCAL_RANK, as under torchrun, but no {missing[0]}: start with "
            "torchrun, or unset LOCAL_RANK"
        )
    names = (*VARIABLES, "TORCHELASTIC_RESTART_COUNT")
    try:
        values = [int(environ.get(name, "0")) for name in names]
    except ValueError as error:
        raise UserError(
            f"the environment's {', '.join(names)} must be whole numbers, as torchrun sets them "
            f"({error})"
        ) from error
    place = Torchrun(*values, master_addr=environ["MASTER_ADDR"])
    if place.local_world_size < 1 or place.world_size % place.local_world_size:
        raise UserError(
            f"torchrun: {place.world_size} processes, {place.local_world_size} of them on this "
            "machine; start as many on each (--nproc-per-node)"
        )
    return place
