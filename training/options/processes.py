"""The devices and processes of a run."""

from dataclasses import dataclass

from training.argument_types import (
    count_or_environment,
    natural_int,
    number_or_environment,
    positive_int,
)
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
        "number of machines; -1: WORLD_SIZE of the environment (default: 1, and that with env://)",
        parse=count_or_environment,
    )
    rank: int = option(
        "processes",
        "number of this machine, from 0; -1: RANK of the environment (default: 0, and that with "
        "env://)",
        parse=number_or_environment,
    )
    dist_url: str = option(
        "processes",
        "where the processes meet, on machine 0; env://: at MASTER_ADDR and MASTER_PORT of the "
        "environment (default: %(default)s)",
        default="tcp://127.0.0.1:8080",
        metavar="URL",
    )
    dist_backend: str = option(
        "processes",
        "gloo is taken where there is no GPU (default: %(default)s)",
        default="nccl",
        choices=("nccl", "gloo"),
    )
