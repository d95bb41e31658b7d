"""How a fused forward pass keeps ∂y/∂θ of each window for θ's gradient, the window's spread.

A window function says which of three ways it takes:

- ``"root"``: the root of a derivative that is never negative. Of Max-Ent pooling that is the
  standard deviation, which has the range of the input where the variance might not;
- ``"positive"``: a derivative that is never negative and has the input's range;
- ``"signed"``: any other, in the input's type.

The first two are kept in the input's type or, for half types, in 16 bits of their own. A deviation,
as it is called below, is never negative, and where its square leaves float32's range λ's gradient
does, too. So of float32's bits neither the sign nor the ends of the exponent's range are needed,
and there is room for more digits than a half type has: the code is the bits less a constant,
rounded to even behind bit ``shift``. Below the smallest deviation that has all digits, codes are
multiples of one unit, as subnormal numbers are. Code 0 is 0, the last one NaN; what is too large is
the largest.

=========  ==================  ============  =============  ==================  ==================
input      all digits from     to below      unit below     significant bits    those of the input
=========  ==================  ============  =============  ==================  ==================
bfloat16   2⁻⁶²                2⁶⁵           2⁻⁷¹           10                  8
float16    2⁻¹⁵                2¹⁶           2⁻²⁶           12                  11
=========  ==================  ============  =============  ==================  ==================
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "SPREADS", "SPREAD_CODES", "pack_spread", "sensitivity_of", "spread_dtype", "spread_of",
    "unpack_spread",
]  # fmt: skip

SPREADS = ("root", "positive", "signed")

SPREAD_CODES = {torch.bfloat16: (-62, 14), torch.float16: (-15, 12)}
"""For each half type: the exponent from which on deviations have all digits, and the shift."""

NAN = 0xFFFF
MANTISSA_BITS, BIAS = 23, 127


def spread_dtype(input_dtype: torch.dtype, spread: str = "root") -> torch.dtype:
    """The type of the tensor of spreads of an input of ``input_dtype``; int16 holds the codes."""
    return torch.int16 if input_dtype in SPREAD_CODES and spread != "signed" else input_dtype


def spread_of(sensitivity: Tensor, input_dtype: torch.dtype, spread: str) -> Tensor:
    """∂y/∂θ of each window, of the type that ``input_dtype`` is computed in, as it is kept."""
    if spread == "signed":
        return sensitivity.to(input_dtype)
    return pack_spread(sensitivity.sqrt() if spread == "root" else sensitivity, input_dtype)


def sensitivity_of(kept: Tensor, input_dtype: torch.dtype, spread: str) -> Tensor:
    """The inverse of :func:`spread_of`, but for rounding."""
    if spread == "signed":
        return kept if input_dtype not in SPREAD_CODES else kept.float()
    unpacked = unpack_spread(kept, input_dtype)
    return unpacked.square() if spread == "root" else unpacked


def pack_spread(deviation: Tensor, input_dtype: torch.dtype) -> Tensor:
    """Deviations ≥ 0, of the type that ``input_dtype`` is computed in, as they are kept."""
    if input_dtype not in SPREAD_CODES:
        return deviation
    exponent, shift = SPREAD_CODES[input_dtype]
    bits = deviation.view(torch.int32).clamp(min=0) - _constant(exponent)
    code = (bits + (1 << (shift - 1)) - 1 + ((bits >> shift) & 1)) >> shift
    # A sum with a number of which one unit is the last place: rounded to units.
    large = exponent + shift
    units = (deviation + 2.0**large).view(torch.int32) - ((large + BIAS) << MANTISSA_BITS)
    code = torch.where(deviation < 2.0**exponent, units, code.clamp(max=NAN - 1))
    return torch.where(deviation.isnan(), NAN, code).to(torch.int16)


def unpack_spread(spread: Tensor, input_dtype: torch.dtype) -> Tensor:
    """The inverse of :func:`pack_spread`, but for rounding."""
    if input_dtype not in SPREAD_CODES:
        return spread
    exponent, shift = SPREAD_CODES[input_dtype]
    code = spread.to(torch.int32) & NAN
    digits = MANTISSA_BITS - shift
    units = code.float() * 2.0 ** (exponent - digits)  # not of the default type
    deviation = ((code << shift) + _constant(exponent)).view(torch.float32)
    deviation = torch.where(code < 1 << digits, units, deviation)
    return torch.where(code == NAN, torch.nan, deviation)


def _constant(exponent: int) -> int:
    """What is subtracted from float32's bits, so that the code of 2^exponent follows the units."""
    return (exponent + BIAS - 1) << MANTISSA_BITS
