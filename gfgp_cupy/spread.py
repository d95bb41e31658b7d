"""How a fused forward pass keeps the spread of each window, its standard deviation, for λ's
gradient: in the input's type or, for half types, in 16 bits of its own.

A deviation is never negative, and where its square leaves float32's range λ's gradient does, too.
So of float32's bits neither the sign nor the ends of the exponent's range are needed, and there is
room for more digits than a half type has: the code is the bits less those of the smallest
deviation, rounded to even behind bit ``shift``. Code 0 is 0, the last one NaN.

=========  ============================  ==================  ========================
input      range of the deviation        significant bits    those of the input's type
=========  ============================  ==================  ========================
bfloat16   2⁻⁶³ to 2⁶⁵                   10                  8
float16    2⁻¹⁶ to 2¹⁶                   12                  11
=========  ============================  ==================  ========================
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SPREAD_CODES", "pack_spread", "spread_dtype", "unpack_spread"]

SPREAD_CODES = {torch.bfloat16: (64 << 23, 14), torch.float16: (111 << 23, 12)}
"""For each half type: what is subtracted from float32's bits, and how many bits are dropped."""

NAN = 0xFFFF


def spread_dtype(input_dtype: torch.dtype) -> torch.dtype:
    """The type of the tensor of spreads of an input of ``input_dtype``; int16 holds the codes."""
    return torch.int16 if input_dtype in SPREAD_CODES else input_dtype


def pack_spread(deviation: Tensor, input_dtype: torch.dtype) -> Tensor:
    """Deviations ≥ 0, of the type that ``input_dtype`` is computed in, as they are kept."""
    if input_dtype not in SPREAD_CODES:
        return deviation
    smallest, shift = SPREAD_CODES[input_dtype]
    bits = deviation.view(torch.int32).clamp(min=smallest) - smallest
    code = (bits + (1 << (shift - 1)) - 1 + ((bits >> shift) & 1)) >> shift
    return torch.where(deviation.isnan(), NAN, code.clamp(max=NAN - 1)).to(torch.int16)


def unpack_spread(spread: Tensor, input_dtype: torch.dtype) -> Tensor:
    """The inverse of :func:`pack_spread`, but for rounding."""
    if input_dtype not in SPREAD_CODES:
        return spread
    smallest, shift = SPREAD_CODES[input_dtype]
    code = spread.to(torch.int32) & NAN
    deviation = ((code << shift) + smallest).view(torch.float32)
    deviation = torch.where(code == 0, 0.0, deviation)
    return torch.where(code == NAN, torch.nan, deviation)
