"""λ's gradient of large planes, which are handed to ``lam_gradient.cu`` in pieces: on the CPU."""

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.kernels import passes
from gfgp_cupy.kernels.lam_gradient import LEAST_PIECE
from tests.support.cxx import needs_cxx
from tests.support.random_numbers import random_numbers


@needs_cxx
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("lam_shape", [(2, 3, 1, 1), (1, 1, 1, 1)], ids=str)
def test_pieces_of_a_plane_add_up(lam_shape, layout):
    grad_output = random_numbers((2, 3, 64, 4 * LEAST_PIECE // 64), torch.float64, 0)
    spread = random_numbers(grad_output.shape, torch.float64, 1).abs()
    grad_output, spread = (each.contiguous(memory_format=layout) for each in (grad_output, spread))
    grids = []

    def run(launch):
        grids.append(launch.grid)
        run_launch(launch)

    lam = torch.ones(lam_shape, dtype=torch.float64)
    found = passes.lam_backward(grad_output, spread, lam, run)
    # Max-Ent pooling keeps the standard deviation, the variance's root.
    expected = (grad_output * spread.square()).sum((2, 3), keepdim=True).sum_to_size(lam_shape)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-9)
    assert min(grids) >= 2 * 3 * 4


@needs_cxx
@pytest.mark.parametrize("windows", [LEAST_PIECE * 2 + 2, LEAST_PIECE * 4 + 1, LEAST_PIECE - 8])
def test_planes_that_are_not_cut_evenly_are_whole_or_in_fewer_pieces(windows):
    grad_output = random_numbers((1, 2, 1, windows), torch.float64, 0)
    spread = random_numbers(grad_output.shape, torch.float64, 1).abs()
    found = passes.lam_backward(grad_output, spread, torch.ones(1, 2, 1, 1).double(), run_launch)
    expected = (grad_output * spread.square()).sum((2, 3), keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-9)
