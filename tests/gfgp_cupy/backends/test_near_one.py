"""Logarithms and powers less 1 of vectors, over their ranges."""

import numba
import numpy as np
import pytest

from gfgp_cupy.backends.numba.near_one import log, power_less_one
from gfgp_cupy.backends.numba.simd import lanes_for, load, pointer_to, store

NUMBERS = 1 << 15


@numba.njit
def logs(x, excess, results):
    for i in range(0, x.size, lanes_for(pointer_to(x))):
        of_lanes = log(load(pointer_to(x), i), load(pointer_to(excess), i))
        store(pointer_to(results), i, of_lanes)


@numba.njit
def powers_less_one(scale, x, results):
    for i in range(0, x.size, lanes_for(pointer_to(x))):
        of_lanes = power_less_one(load(pointer_to(scale), i), load(pointer_to(x), i))
        store(pointer_to(results), i, of_lanes)


each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def of_both_signs(generator, exponents):
    return np.exp2(generator.uniform(*exponents, NUMBERS)) * generator.choice([-1, 1], NUMBERS)


def units(results, expected):
    """Errors in units of the last place."""
    unit = np.spacing(np.abs(expected).astype(results.dtype))
    return np.max(np.abs(results - expected) / unit)


@each_dtype
@pytest.mark.parametrize("exponents", [(-120, 120), (-1, 1), (-0.01, 0.01)])
def test_logarithms_are_right_to_two_units_in_the_last_place(dtype, exponents):
    x = np.exp2(np.random.default_rng(0).uniform(*exponents, NUMBERS)).astype(dtype)
    results = np.empty_like(x)
    logs(x, x - 1, results)
    assert units(results, np.log(x.astype(np.longdouble))) <= 2


@each_dtype
def test_logarithms_of_numbers_that_are_known_better_than_they_are_rounded(dtype):
    excess = of_both_signs(np.random.default_rng(1), (-100, -2)).astype(dtype)
    results = np.empty_like(excess)
    logs(1 + excess, excess, results)
    assert units(results, np.log1p(excess.astype(np.longdouble))) <= 2


@each_dtype
@pytest.mark.parametrize(("exponents", "most"), [((-100, -1.01), 4), ((-1, 6), 5)])
def test_powers_less_one(dtype, exponents, most):
    generator = np.random.default_rng(2)
    scale = of_both_signs(generator, (-8, 8)).astype(dtype)
    x = (of_both_signs(generator, exponents) / scale).astype(dtype)
    results = np.empty_like(x)
    powers_less_one(scale, x, results)
    product = scale.astype(np.longdouble) * x.astype(np.longdouble)
    assert units(results, np.expm1(product * np.log(np.longdouble(2)))) <= most


@each_dtype
def test_powers_less_one_at_the_ends(dtype):
    x = np.resize(np.array([0, -np.inf, np.inf, np.nan, -2000, -1, 1, 3], dtype), 64)
    results = np.empty_like(x)
    powers_less_one(np.ones_like(x), x, results)
    np.testing.assert_array_equal(results[:8], [0, -1, np.inf, np.nan, -1, -0.5, 1, 7])
