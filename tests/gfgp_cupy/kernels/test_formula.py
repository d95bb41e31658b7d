"""Programs of window functions from outside the package, and what becomes of their constants."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.window_function import WindowFunction
from tests.support.cxx import needs_cxx
from tests.support.implementations import kernels_on_cpu
from tests.support.kernel_cases import KernelCase


def mean_of_squares(input, factor, geometry):
    squares = F.avg_pool2d(input.square(), geometry.kernel_size, geometry.stride, geometry.padding)
    return factor * squares


MEAN_OF_SQUARES = WindowFunction(
    name="mean_of_squares",
    parameter="factor",
    composition=mean_of_squares,
    cuda=Path(__file__).parent / "mean_of_squares.cu",
    spread="signed",
)
GENERAL = pool_geometry((9, 10), stride=(1, 3))
CASES = (
    KernelCase(pool_geometry(2), torch.bfloat16, (16, 10, 12), "channels_last"),
    KernelCase(pool_geometry(3), torch.float32, (3, 9, 12)),
    KernelCase(GENERAL, torch.float32, (2, 9, 16)),
)
TOLERANCES = {torch.bfloat16: 2.0**-7, torch.float32: 1e-6}


@needs_cxx
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_run_a_function_from_a_file_anywhere(case):
    input, factor, grad_output = case.input(2), case.lam(2), case.grad_output(2)
    leaves = [tensor.double().requires_grad_() for tensor in (input, factor)]
    expected = MEAN_OF_SQUARES.compose(*leaves, case.geometry)
    expected_grads = torch.autograd.grad(expected, leaves, grad_output.double())

    kernels, of = kernels_on_cpu(run_launch), {"function": MEAN_OF_SQUARES}
    output, spread = kernels.forward_with_spread(input, factor, case.geometry, **of)
    both = (True, True)
    found = kernels.backward(grad_output, input, factor, case.geometry, both, **of)
    by_spread = kernels.lam_backward(grad_output, spread, factor, **of)

    tolerance = TOLERANCES[case.dtype]
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found[0].double(), expected_grads[0], rtol=tolerance, atol=tolerance)
    # Windows' parts may cancel.
    parts = (grad_output * expected / leaves[1]).detach().abs().sum((2, 3), keepdim=True)
    for grad in (found[1], by_spread):
        assert ((grad.double() - expected_grads[1]).abs() <= tolerance * parts).all()


def launches(function):
    """Those of general kernels, none of them executed."""
    described = []
    input, lam = torch.empty(1, 2, 9, 16, device="meta"), torch.empty(1, 2, 1, 1, device="meta")
    output = passes.forward(input, lam, GENERAL, described.append, function)
    passes.backward(output, input, lam, GENERAL, (True, False), described.append, function=function)
    return described


def test_constants_are_macros_and_specialise_programs():
    function = dataclasses.replace(MEAN_OF_SQUARES, constant=0.5)
    for constant, text in ((0.5, "0.5"), (1e-6, "1e-06"), (2, "2.0")):
        for launch in launches(function.with_constant(constant)):
            assert f"CONSTANT=((acc_t){text})" in launch.defines
    assert not any("CONSTANT" in define for define in launches(MEAN_OF_SQUARES)[0].defines)


def test_max_ent_keeps_its_names_and_files():
    for launch in launches(MAX_ENT):
        assert launch.name.startswith("max_ent_pool2d_")
        assert '"streamed_softmax.cu"' in launch.source
        assert '"window_function.cu"' not in launch.source


def test_a_file_that_does_not_say_how_many_numbers_it_sends(tmp_path):
    file = tmp_path / "silent.cu"
    file.write_text("struct Theta {};")
    function = dataclasses.replace(MEAN_OF_SQUARES, name="silent", cuda=file)
    with pytest.raises(ValueError, match=r"silent\.cu must have a line '#define NUMBERS 3'"):
        launches(function)
