"""A group of processes that meet at a file and leave it before they end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist


@contextmanager
def gloo_group(folder: Path, rank: int, world_size: int) -> Iterator[None]:
    """Be one of ``world_size`` processes within the block.

    A process that ends in the group's midst may be aborted by the group's own threads.
    """
    method = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
