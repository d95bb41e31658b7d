"""Where new tensors on the CPU get their memory from."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Makes glibc give out again what has been freed, as PyTorch's allocator does on a GPU.

    Left to itself it gets the memory of every tensor above 32 MiB from the system and gives it back
    when the tensor is freed. The system hands it over page by page, filled with zeros, which takes
    longer than to pool what the tensor holds, and by how much depends on what else runs. Where
    there is another C library nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
