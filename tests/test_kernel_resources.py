"""What ptxas says of the kernels for the benchmark's poolings: no spills, no local memory."""

import functools

import pytest
import torch

from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import pooling
from tests.cuda_on_cpu.compile import Program, in_processes, resource_usage

POOLINGS = {
    "2/2": ((64, 64, 56, 56), pool_geometry(2)),
    "4/4": ((64, 64, 224, 224), pool_geometry(4)),
    "3/2": ((64, 64, 112, 112), pool_geometry(3, 2, 1)),
    "3/2 small": ((64, 64, 7, 7), pool_geometry(3, 2, 1)),
    "5/2": ((64, 64, 56, 56), pool_geometry(5, 2, 2)),  # the most that one thread holds
    "general": ((8, 64, 64, 64), pool_geometry(7, 3, 3)),
}
DTYPES = (torch.bfloat16, torch.float32, torch.float64)
ARCHITECTURES = ("80", "90", "100")
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def launches(shape, geometry, dtype, layout):
    """All kernels of one pooling: the operator's, and the fused layer's."""
    described = []
    x = torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)
    compute = torch.float64 if dtype is torch.float64 else torch.float32
    lam = torch.empty(*shape[:2], 1, 1, dtype=compute, device="meta")
    output, spread = pooling.forward_with_spread(x, lam, geometry, described.append)
    pooling.backward(output, x, lam, geometry, (True, True), described.append)
    pooling.lam_backward(output, spread, lam, described.append)
    pooling.backward(output, x, lam, geometry, (True, False), described.append, mean_grad=lam)
    return described


@functools.cache
def usages():
    """Of each pooling and architecture: the programs, and what ptxas says of them."""
    asked = list(dict.fromkeys(
        (case, arch, Program.of(launch))
        for case, pooling_of in POOLINGS.items()
        for arch in ARCHITECTURES
        for dtype in DTYPES
        for layout in LAYOUTS
        for launch in launches(*pooling_of, dtype, layout)
    ))
    found = in_processes(resource_usage, [(program, arch) for _, arch, program in asked])
    return list(zip(asked, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("case", POOLINGS)
def test_no_kernel_spills_or_uses_local_memory(case, arch):
    every = [
        (program, usage) for (of, on, program), usage in usages() if (of, on) == (case, arch)
    ]
    assert every
    wrong = [
        f"{program.name} {' '.join(program.defines)}: {usage}"
        for program, usage in every
        if usage.stack_frame or usage.spill_stores or usage.spill_loads
    ]
    assert not wrong, "\n".join(wrong)
