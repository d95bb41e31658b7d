"""The devices and processes of a run."""

from dataclasses import dataclass

from training.argument_types import natural_int, positive_int
from training.options.option import option


@dataclass(frozen=True)
class ProcessOptions:
    """See ``training.options.Options``."""

    cpu: bool = option("processes", "leave the GPUs alone", default=False)
    gpu: int | None = option("processes", "the one GPU to use (default: 0)", parse=natural_int)
    multiprocessing_distributed: bool = option(
        "processes",
        "train with one process per GPU of this machine, or --nproc on the CPU",
        default=False,
    )
    nproc: int | None = option(
        "processes",
        "processes on this machine (default: its GPUs; 1 without GPUs)",
        parse=positive_int,
    )
    world_size: int = option(
        "processes",
        "number of machines (default: %(default)s)",
        default=1,
        parse=positive_int,
        of_several=True,
    )
    rank: int = option(
        "processes",
        "number of this machine, from 0 (default: %(default)s)",
        default=0,
        parse=natural_int,
        of_several=True,
    )
    dist_url: str = option(
        "processes",
        "where the processes meet, on machine 0 (default: %(default)s)",
        default="tcp://127.0.0.1:8080",
        metavar="URL",
        of_several=True,
    )
    dist_backend: str = option(
        "processes",
        "gloo is taken where there is no GPU (default: %(default)s)",
        default="nccl",
        choices=("nccl", "gloo"),
        of_several=True,
    )
    dist_timeout: int = option(
        "processes",
        "how long a process waits for another one before the run ends with an error (default: "
        "%(default)s)",
        default=600,
        parse=positive_int,
        metavar="SECONDS",
        of_several=True,
    )
