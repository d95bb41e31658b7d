"""The 16 bits in which a fused pass over half types keeps its windows' standard deviations."""

import pytest
import torch

from gfgp_cupy.spread import pack_spread, spread_dtype, unpack_spread

HALF = {torch.bfloat16: (-63, 65, 10), torch.float16: (-16, 16, 12)}
"""Exponents of the smallest and of what is just too large, and significant bits."""

each_half_type = pytest.mark.parametrize("dtype", HALF, ids=str)


def kept(deviation, dtype):
    return unpack_spread(pack_spread(deviation, dtype), dtype)


@each_half_type
def test_every_code_is_one_number(dtype):
    codes = torch.arange(2**16 - 1).to(torch.int16)
    numbers = unpack_spread(codes, dtype)
    assert torch.equal(pack_spread(numbers, dtype), codes)
    assert (numbers.diff() > 0).all()


@each_half_type
def test_rounding_is_to_the_nearest(dtype):
    low, high, digits = HALF[dtype]
    exponent = torch.empty(10_000).uniform_(low + 1, high - 1)
    deviation = torch.exp2(exponent)
    error = (kept(deviation, dtype).double() / deviation.double() - 1).abs()
    assert error.max() <= 2.0**-digits
    assert error.max() > 2.0 ** (-digits - 1)  # as many digits as claimed, no more
    halfway = 1 + torch.tensor([1, 3]) * 2.0**-digits
    expected = 1 + torch.tensor([0, 4]) * 2.0**-digits  # to even
    assert torch.equal(kept(halfway, dtype), expected)


@each_half_type
def test_ends_of_the_range(dtype):
    low, high, digits = HALF[dtype]
    largest = 2.0**high * (1 - 2.0 ** (1 - digits))
    deviation = torch.tensor([0.0, -0.0, 2.0 ** (low - 3), 2.0**high, torch.inf, torch.nan])
    expected = torch.tensor([0.0, 0.0, 0.0, largest, largest, torch.nan])
    actual = kept(deviation, dtype)
    torch.testing.assert_close(actual, expected, rtol=2.0 ** (1 - digits), atol=0, equal_nan=True)
    assert actual.signbit().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_full_types_are_kept_as_they_are(dtype):
    deviation = torch.rand(5, dtype=dtype)
    assert spread_dtype(dtype) is dtype
    assert torch.equal(kept(deviation, dtype), deviation)
