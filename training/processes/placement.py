"""Which processes train together: how many, on which machines and GPUs, and where they meet."""

from dataclasses import dataclass

from training.processes.torchrun import Torchrun


@dataclass(frozen=True)
class Placement:
    """The processes of a run.

    Attributes:
        is_distributed: there may be several, which communicate.
        machines: number of machines that train together.
        machine: number of this one, from 0.
        processes_here: number of processes on this machine, the same on every other.
        uses_gpu: each process computes on a GPU of its own.
        first_gpu: number of the GPU of this machine's first process.
        dist_url: ``tcp://HOST:PORT`` where the processes meet, unless torchrun has started them.
        backend: of ``torch.distributed``, ``"nccl"`` or ``"gloo"``.
        timeout: seconds that a process waits for another one.
        torchrun: this process's place where torchrun has started it, or None.
        way_on: what a person can do after one of the processes has failed, for errors.
    """

    is_distributed: bool
    machines: int
    machine: int
    processes_here: int
    uses_gpu: bool
    first_gpu: int
    dist_url: str
    backend: str
    timeout: int
    torchrun: Torchrun | None
    way_on: str
