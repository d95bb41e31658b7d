"""The kernels with another formula in the place of Max-Ent pooling's: ``max_ent.cu`` says what one
has to supply, and what becomes of a window is known nowhere else."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gfgp_cupy.geometry import pool_geometry
from tests.support.cuda_on_cpu import needs_cxx, run_launch
from tests.support.implementations import kernels_on_cpu
from tests.support.kernel_cases import KernelCase

pytestmark = needs_cxx

FORMULA = Path(__file__).parent / "mean_of_squares"

TWO, THREE = pool_geometry(2), pool_geometry(3, stride=2, padding=1)
CASES = (
    *(
        KernelCase(geometry, dtype, (16, 10, 12), layout)
        for geometry in (TWO, THREE)
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
        for layout in ("contiguous", "channels_last")
    ),
    KernelCase(pool_geometry(7, stride=2, padding=3), torch.float32, (2, 13, 16)),
    KernelCase(pool_geometry((7, 4), stride=(1, 3), padding=(3, 2)), torch.float32, (2, 9, 8)),
)
TOLERANCES = {torch.bfloat16: 2.0**-7, torch.float32: 1e-5, torch.float64: 1e-12}


@functools.cache
def with_other_formula(source: str) -> str:
    """The source with files of the formula replaced by those of the same name in FORMULA."""
    replaced = []
    for part in source.split('#line 1 "')[1:]:
        name, text = part.split('"\n', 1)
        other = FORMULA / name
        replaced.append(f'#line 1 "{name}"\n{other.read_text() if other.exists() else text}')
    return "".join(replaced)


def run(launch):
    run_launch(dataclasses.replace(launch, source=with_other_formula(launch.source)))


def mean_of_squares(input, lam, geometry):
    kernel_size, stride, padding, ceil_mode = geometry
    squares = F.avg_pool2d(
        input.square(), kernel_size, stride, padding, ceil_mode, count_include_pad=False
    )
    return lam * squares


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_run_another_formula(case):
    input, lam, grad_output = case.input(2), case.lam(2), case.grad_output(2)
    leaves = [tensor.double().requires_grad_() for tensor in (input, lam)]
    expected = mean_of_squares(leaves[0], leaves[1], case.geometry)
    expected_grads = torch.autograd.grad(expected, leaves, grad_output.double())

    kernels = kernels_on_cpu(run)
    output = kernels.forward(input, lam, case.geometry)
    fused, spread = kernels.forward_with_spread(input, lam, case.geometry)
    grad_input, grad_lam = kernels.backward(grad_output, input, lam, case.geometry, (True, True))
    lam_grad = kernels.lam_backward(grad_output, spread, lam)

    tolerance = TOLERANCES[case.dtype]

    def close(actual, exact):
        torch.testing.assert_close(actual.double(), exact, rtol=tolerance, atol=tolerance)

    close(output, expected.detach())
    close(fused, expected.detach())
    close(grad_input, expected_grads[0])
    close(grad_lam, expected_grads[1])
    # Of the spreads, half types keep few digits; windows' parts may cancel.
    parts = (grad_output * expected / leaves[1]).detach().abs().sum((2, 3), keepdim=True)
    error = (lam_grad.double() - expected_grads[1]).abs()
    assert (error <= tolerance * parts).all()
