"""Windows of one row, whose long rows ``disjoint.cu`` takes in parts: on the CPU."""

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.kernels import passes
from gfgp_cupy.max_ent import MAX_ENT
from tests.support.cxx import needs_cxx
from tests.support.kernel_cases import KERNEL_CASES

LINES = [case for case in KERNEL_CASES if case.geometry.kernel_size == (1, 2)]
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}


@needs_cxx
@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("case", LINES, ids=str)
def test_they_are_pooled_as_the_formula_says(case, needed):
    input, lam, grad_output = case.input(2), case.lam(2), case.grad_output(2)
    output = passes.forward(input, lam, case.geometry, run_launch)
    gradients = passes.backward(grad_output, input, lam, case.geometry, needed, run_launch)
    of = input.double().requires_grad_(), lam.double().requires_grad_()
    exact = MAX_ENT.compose(*of, case.geometry)
    expected = torch.autograd.grad(exact, of, grad_output.double())
    close = {"rtol": TOLERANCES[case.dtype], "atol": TOLERANCES[case.dtype]}
    torch.testing.assert_close(output.double(), exact.detach(), **close)
    for found, wanted, is_needed in zip(gradients, expected, needed, strict=True):
        assert (found is not None) == is_needed
        if is_needed:
            scale = wanted.abs().amax()
            torch.testing.assert_close(found.double() / scale, wanted / scale, **close)
