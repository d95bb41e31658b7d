"""How far from the exact value rounding may take a result."""

import torch
from torch import Tensor

from tests.support.slow_loops import Exact

__all__ = ["assert_rounding_only", "spread_roundoff", "ulps_apart"]

UNIT_ROUNDOFF = {
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
}

SPREAD_ROUNDOFF = {torch.bfloat16: 2.0**-10, torch.float16: 2.0**-12}
"""Half types keep their windows' standard deviations with more digits than they have."""

OPERATIONS = 16
"""Rounded operations on the longest way to a result, each of an error up to u times the scale.

The longest: difference, product with λ, exponential (2 units on a GPU), its sum, logarithm,
difference, exponential, and three products. Errors are of either sign and sums over windows
average them, so that no allowance for the length of sums is needed.
"""


def spread_roundoff(dtype: torch.dtype) -> float:
    """Of the standard deviations that are kept for an input of ``dtype``."""
    return SPREAD_ROUNDOFF.get(dtype, UNIT_ROUNDOFF[dtype])


def assert_rounding_only(
    actual: Tensor, exact: Exact, compute_dtype: torch.dtype, roundoff: float | None = None
) -> None:
    """Checks a result computed in float32 or float64 and then rounded once to its own type, or
    with the ``roundoff`` given.

    The error allowed is OPERATIONS roundoffs of the computing type relative to the scale, and
    one roundoff (or the smallest subnormal) of the result's own type for storing it.
    """
    info = torch.finfo(actual.dtype)
    roundoff = UNIT_ROUNDOFF[actual.dtype] if roundoff is None else roundoff
    stored = roundoff * exact.value.abs() + info.tiny * info.eps
    # Float32 smaller than its tiny may be flushed to zero on the way, on a GPU.
    computed = OPERATIONS * UNIT_ROUNDOFF[compute_dtype] * exact.scale
    allowed = computed + stored + torch.finfo(torch.float32).tiny
    actual = actual.detach().cpu().double()
    assert actual.shape == exact.value.shape
    error = (actual - exact.value).abs()
    wrong = ~(error <= allowed)  # also where the error is NaN
    if wrong.any():
        worst = int((error / allowed).nan_to_num(float("inf")).argmax())
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.numel()} values are wrong; the worst, at "
            f"{tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), error.shape))}: "
            f"got {actual.flatten()[worst]:.17g}, exact {exact.value.flatten()[worst]:.17g}, "
            f"off by {error.flatten()[worst]:.3g} where {allowed.flatten()[worst]:.3g} is allowed"
        )


def ulps_apart(a: Tensor, b: Tensor) -> int:
    """The largest number of steps between neighbouring 16-bit floats from ``a`` to ``b``."""
    return int((_steps_from_zero(a) - _steps_from_zero(b)).abs().max())


def _steps_from_zero(half: Tensor) -> Tensor:
    bits = half.detach().cpu().contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
