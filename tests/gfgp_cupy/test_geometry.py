"""Output sizes are those of max_pool2d; unusable arguments are refused as it refuses them."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from gfgp_cupy.geometry import pool_geometry


def test_output_size_is_that_of_max_pool2d():
    compared = refused = 0
    for kernel, stride, ceil_mode in itertools.product(range(1, 6), range(1, 7), (False, True)):
        for padding, length in itertools.product(range(kernel // 2 + 1), range(1, 14)):
            geometry = pool_geometry((kernel, 1), (stride, 1), (padding, 0), ceil_mode)
            ours, _ = geometry.output_size(length, 1)
            plane = torch.empty(1, length, 1, device="meta")
            try:
                theirs = F.max_pool2d(
                    plane, (kernel, 1), (stride, 1), (padding, 0), ceil_mode=ceil_mode
                ).shape[1]
            except RuntimeError as error:
                assert "Output size is too small" in str(error)
                assert ours < 1, (geometry, length)
                refused += 1
            else:
                assert ours == theirs, (geometry, length)
                compared += 1
    assert compared > 1500
    assert refused > 100


def test_overhang_is_what_windows_need_and_keeps_to_its_bound():
    reached = 0
    for kernel, stride, ceil_mode in itertools.product(range(1, 6), range(1, 7), (False, True)):
        for padding, length in itertools.product(range(kernel // 2 + 1), range(kernel, 14)):
            geometry = pool_geometry((1, kernel), (1, stride), (0, padding), ceil_mode)
            _, count = geometry.output_size(1, length)
            last_element = (count - 1) * stride + kernel - 1 - padding
            assert geometry.overhang(1, length) == (0, max(0, last_element - (length - 1)))
            bound = geometry.largest_overhang()
            assert geometry.overhang(1, length)[1] <= bound[1]
            reached += geometry.overhang(1, length) == bound
            # With as much behind the plane, a trace takes as many windows as fit in.
            assert (padding + length + bound[1] - kernel) // stride + 1 == count
    assert reached > 100


def test_height_and_width_are_not_mixed_up():
    geometry = pool_geometry((3, 2), (1, 3), (1, 0))
    plane = torch.empty(1, 1, 7, 11, device="meta")
    theirs = F.max_pool2d(plane, (3, 2), (1, 3), (1, 0)).shape[2:]
    assert geometry.output_size(7, 11) == tuple(theirs) == (7, 4)


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ({"kernel_size": 2}, ((2, 2), (2, 2), (0, 0), False)),
        ({"kernel_size": (2, 3)}, ((2, 3), (2, 3), (0, 0), False)),
        ({"kernel_size": [4, 2], "stride": 1}, ((4, 2), (1, 1), (0, 0), False)),
        ({"kernel_size": 3, "stride": (2, 1), "padding": 1}, ((3, 3), (2, 1), (1, 1), False)),
        ({"kernel_size": 5, "padding": (2, 0), "ceil_mode": True}, ((5, 5), (5, 5), (2, 0), True)),
        ({"kernel_size": torch.tensor(2)}, ((2, 2), (2, 2), (0, 0), False)),
    ],
)
def test_ints_and_pairs(arguments, same):
    geometry = pool_geometry(**arguments)
    assert (geometry.kernel_size, geometry.stride, geometry.padding, geometry.ceil_mode) == same
