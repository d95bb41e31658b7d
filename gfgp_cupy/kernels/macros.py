"""Macros that every kernel is specialised by."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DTYPE_MACROS", "index_type", "lam_varies_in_plane"]

DTYPE_MACROS = {
    torch.float16: "DTYPE_FLOAT16=1",
    torch.bfloat16: "DTYPE_BFLOAT16=1",
    torch.float32: "DTYPE_FLOAT32=1",
    torch.float64: "DTYPE_FLOAT64=1",
}

INT_LIMIT = 2**31 - 1024
"""Above so many elements, offsets (of a thread in the last block, too) need 64 bits."""


def index_type(elements: int) -> str:
    """The C++ type that holds every offset into a tensor of so many elements."""
    return "int" if elements < INT_LIMIT else "long long"


def lam_varies_in_plane(lam: Tensor) -> bool:
    """Whether 4-D λ differs from window to window of a plane."""
    return lam.shape[2] > 1 or lam.shape[3] > 1
