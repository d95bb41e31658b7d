"""The forward pass of a fused layer, which keeps each window's sensitivity, has the bits of the
operator's: the machine code of both, executed on the CPU."""

import pytest
import torch

from benchmarks.instruction_counts import BLOCKS, executed
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.max_ent import MAX_ENT
from tests.support.kernel_cases import window_functions
from tests.support.random_numbers import random_numbers

OTHERS = [function for function in window_functions() if function is not MAX_ENT]

# What the kernels' names have in them, the window, sizes, and the memory format.
FAMILIES = {
    "disjoint": (pool_geometry(2), (2, 8, 8, 16), torch.contiguous_format),
    "marching_rows": (pool_geometry(3, 2, 1), (2, 4, 16, 16), torch.contiguous_format),
    "marching_channels": (pool_geometry(3, 2, 1), (2, 32, 9, 9), torch.channels_last),
    "overlapping": (pool_geometry(7, 2, 3), (1, 4, 14, 14), torch.channels_last),
    "whole_planes": (pool_geometry(7), (8, 8, 7, 7), torch.contiguous_format),
    "general": (pool_geometry(10, 3, 5), (1, 4, 16, 16), torch.contiguous_format),
}


def run(launch):
    assert launch.grid <= BLOCKS  # all of them are executed
    executed(launch, "90").memory.read_back()


@pytest.mark.parametrize(
    ("function", "family"),
    [
        *((MAX_ENT, family) for family in FAMILIES),
        *((function, "whole_planes") for function in OTHERS),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_output_is_that_of_the_operator(function, family):
    geometry, shape, memory_format = FAMILIES[family]
    input = random_numbers(shape, torch.float32, 0).contiguous(memory_format=memory_format)
    if function.name == "generalized_mean":
        input = input.abs() + 0.1
    parameter = random_numbers((*shape[:2], 1, 1), torch.float32, 1).exp()
    names = []

    def noted(launch):
        names.append(launch.name)
        run(launch)

    output = passes.forward(input, parameter, geometry, noted, function)
    with_spread, _ = passes.forward_with_spread(input, parameter, geometry, noted, function)
    assert all(family in name for name in names)
    assert torch.equal(output, with_spread)
    exact = function.compose(input.double(), parameter.double(), geometry)
    torch.testing.assert_close(output.double(), exact, rtol=1e-5, atol=1e-5)
