"""Large new tensors in large pages: to be given a page takes a processor about a microsecond.

A tensor of 100 MB has 25,000 pages of 4 KiB, and those that an allocator has just got from the
system come one by one, on the first write to each. Linux gives out pages of 2 MiB where a program
asks for them.
"""

from __future__ import annotations

import ctypes
import sys

from torch import Tensor

__all__ = ["in_huge_pages"]

PAGE = 2 * 1024 * 1024
LEAST_BYTES = 2 * PAGE

MADV_HUGEPAGE = 14


def in_huge_pages(tensor: Tensor) -> Tensor:
    """``tensor``, a new one that will be written as a whole, having asked for that.

    What a system answers does not matter: there are pages in any case.
    """
    if _madvise is not None and tensor.nbytes >= LEAST_BYTES:
        begin = -(-tensor.data_ptr() // PAGE) * PAGE
        end = (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE
        _madvise(begin, end - begin, MADV_HUGEPAGE)
    return tensor


_madvise = ctypes.CDLL(None).madvise if sys.platform == "linux" else None
if _madvise is not None:
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
