"""The 16 bits in which a fused pass over half types keeps its windows' standard deviations."""

import pytest
import torch

from gfgp_cupy.spread import pack_spread, spread_dtype, unpack_spread

HALF = {torch.bfloat16: (-62, 65, 10), torch.float16: (-15, 16, 12)}
"""Exponents from which on deviations have all digits and of what is just too large, and significant
bits."""

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
    exponent = torch.empty(10_000).uniform_(low, high - 1)
    deviation = torch.exp2(exponent)
    error = (kept(deviation, dtype).double() / deviation.double() - 1).abs()
    assert error.max() <= 2.0**-digits
    assert error.max() > 2.0 ** (-digits - 1)  # as many digits as claimed, no more
    halfway = 1 + torch.tensor([1, 3]) * 2.0**-digits
    expected = 1 + torch.tensor([0, 4]) * 2.0**-digits  # to even
    assert torch.equal(kept(halfway, dtype), expected)


@each_half_type
def test_small_deviations_are_rounded_to_units(dtype):
    low, _, digits = HALF[dtype]
    unit = 2.0 ** (low + 1 - digits)
    deviation = torch.cat((torch.rand(10_000) * 2.0**low, torch.rand(1_000) * 8 * unit))
    assert ((kept(deviation, dtype) - deviation).abs() <= unit / 2).all()
    assert torch.equal(
        kept(unit * torch.tensor([0.5, 1.5, 2.5]), dtype), unit * torch.tensor([0.0, 2.0, 2.0])
    )


@pytest.mark.parametrize("size", [1e-3, 1e-5, 3e-7])
def test_float16_keeps_the_deviations_that_its_own_type_does(size):
    deviation = size * (1 + torch.rand(10_000))
    error, error_of_type = (
        (result - deviation).abs().max()
        for result in (kept(deviation, torch.float16), deviation.half().float())
    )
    assert error <= 0.6 * error_of_type


@each_half_type
def test_ends_of_the_range(dtype):
    low, high, digits = HALF[dtype]
    largest = 2.0**high * (1 - 2.0 ** (1 - digits))
    small = 2.0 ** (low - digits - 2)
    deviation = torch.tensor([0.0, -0.0, small, 2.0**high, torch.inf, torch.nan])
    expected = torch.tensor([0.0, 0.0, 0.0, largest, largest, torch.nan])
    actual = kept(deviation, dtype)
    torch.testing.assert_close(actual, expected, rtol=2.0 ** (1 - digits), atol=0, equal_nan=True)
    assert actual.signbit().sum() == 0


@each_half_type
@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_default_type_does_not_matter(dtype, default):
    codes, before = torch.arange(2**16).to(torch.int16), torch.get_default_dtype()
    expected = unpack_spread(codes, dtype)
    torch.set_default_dtype(default)
    try:
        actual = unpack_spread(codes, dtype)
        again = pack_spread(actual, dtype)
    finally:
        torch.set_default_dtype(before)
    assert actual.dtype is torch.float32
    assert torch.equal(actual[:-1], expected[:-1])
    assert torch.equal(again, codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_full_types_are_kept_as_they_are(dtype):
    deviation = torch.rand(5, dtype=dtype)
    assert spread_dtype(dtype) is dtype
    assert torch.equal(kept(deviation, dtype), deviation)
