"""Room on a GPU for tests that need most of its memory."""

import gc

import pytest
import torch

__all__ = ["GIB", "LARGE_GPU", "claim_gpu_memory"]

GIB = 2**30

LARGE_GPU = 75 * GIB
"""In total. On a GPU of that size there is room for every test, if nothing else holds it."""


def claim_gpu_memory(needed: int) -> None:
    """Hands PyTorch's cached memory back, for a test to find ``needed`` bytes free.

    Where there are fewer, a test is skipped on a GPU below ``LARGE_GPU`` and fails on others, with
    what holds the memory: nobody reads the reasons of skipped tests.
    """
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    if free >= needed:
        return
    lack = f"needs {_gib(needed)} of GPU memory, {_gib(free)} of {_gib(total)} are free"
    if total < LARGE_GPU:
        pytest.skip(lack)
    pytest.fail(
        f"{lack}; PyTorch holds {_gib(torch.cuda.memory_reserved())} in this process, "
        f"{_gib(torch.cuda.memory_allocated())} of them in tensors; all processes on "
        f"{torch.cuda.list_gpu_processes()}"
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
