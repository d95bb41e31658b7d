"""What ptxas says of the kernels: no spills, no local memory."""

import zlib

import pytest
import torch

from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.max_ent import MAX_ENT
from tests.support.cuda_compiler import Program, in_processes, resource_usage
from tests.support.kernel_cases import window_functions

POOLINGS = (
    ((64, 64, 56, 56), pool_geometry(2)),
    ((64, 64, 224, 224), pool_geometry(4)),
    ((64, 64, 112, 112), pool_geometry(3, 2, 1)),
    ((64, 64, 56, 60), pool_geometry(3)),  # rows that no window reaches
    ((64, 64, 7, 7), pool_geometry(3, 2, 1)),  # planes that share a block
    ((64, 64, 56, 56), pool_geometry(5, 2, 2)),  # the most that one thread marches down
    ((64, 64, 56, 56), pool_geometry(9, 4, 4)),  # the most that one thread holds
    ((8, 64, 64, 64), pool_geometry(10, 1, 5)),  # the general kernels
    ((8, 64, 56, 56), pool_geometry(56)),  # the largest planes that one block holds
)
OF_NETWORKS = (POOLINGS[0], POOLINGS[2])
"""Those of the published networks; others are not in float64, in which hardly anyone trains."""

DTYPES = (torch.bfloat16, torch.float32)
ARCHITECTURES = ("80", "90", "100")
CONTIGUOUS, CHANNELS_LAST = LAYOUTS = (torch.contiguous_format, torch.channels_last)

# Number of channels, windows, type, memory format, whether λ varies inside a plane.
ONCE_SPILLED = (
    (64, pool_geometry((1, 16)), torch.float64, CHANNELS_LAST, False),
    (64, pool_geometry((2, 4)), torch.bfloat16, CHANNELS_LAST, False),
    (64, pool_geometry((1, 8)), torch.float32, CONTIGUOUS, False),
    (64, pool_geometry((8, 1)), torch.float32, CHANNELS_LAST, True),
    (64, pool_geometry(2), torch.float16, CONTIGUOUS, True),
    (8, pool_geometry(2), torch.bfloat16, CHANNELS_LAST, False),
    (64, pool_geometry(3, stride=1), torch.float16, CHANNELS_LAST, False),
    (64, pool_geometry(3, stride=1), torch.float16, CONTIGUOUS, False),
    (64, pool_geometry(5, stride=1), torch.float32, CONTIGUOUS, False),
    (64, pool_geometry(7, 2, 3), torch.float32, CONTIGUOUS, False),
    (64, pool_geometry(7, 2, 3), torch.bfloat16, CONTIGUOUS, False),
    (64, pool_geometry(7, 2, 3), torch.float32, CHANNELS_LAST, False),
)
CASES = (
    *(
        (*of, dtype, layout, False)
        for of in OF_NETWORKS
        for dtype in (*DTYPES, torch.float64)
        for layout in LAYOUTS
    ),
    # Two of four a kind of windows, to save time.
    *(
        (*of, dtype, LAYOUTS[(number + place) % 2], False)
        for number, of in enumerate(of for of in POOLINGS if of not in OF_NETWORKS)
        for place, dtype in enumerate(DTYPES)
    ),
    *(((64, channels, 64, 64), *others) for channels, *others in ONCE_SPILLED),
)
OF_FUNCTIONS = (
    (POOLINGS[0], torch.float32, CONTIGUOUS),
    (POOLINGS[0], torch.bfloat16, CHANNELS_LAST),
    (POOLINGS[2], torch.bfloat16, CONTIGUOUS),
    (POOLINGS[2], torch.float32, CHANNELS_LAST),
    (POOLINGS[6], torch.float32, CONTIGUOUS),
)
"""One for each way of the networks' windows and memory formats."""


def launches(shape, geometry, dtype, layout, lam_in_plane, function=MAX_ENT):
    """All kernels of one pooling: the operator's, and the fused layer's, whose λ is one a plane."""
    described = []
    x = torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)
    compute = torch.float64 if dtype is torch.float64 else torch.float32
    lam_size = geometry.output_size(*shape[2:]) if lam_in_plane else (1, 1)
    lam = torch.empty(*shape[:2], *lam_size, dtype=compute, device="meta")
    passes.forward(x, lam, geometry, described.append, function)
    output, spread = passes.forward_with_spread(x, lam, geometry, described.append, function)
    passes.backward(output, x, lam, geometry, (True, True), described.append, function=function)
    if lam_in_plane:
        return described
    passes.lam_backward(output, spread, lam, described.append, function)
    passes.backward(output, x, lam, geometry, (True, False), described.append, lam, function)
    return described


def architecture(program):
    """The one that it is compiled for, to save time: drawn by what it is, not by its place."""
    large = {"DTYPE_FLOAT32=1", "KERNEL_H=5", "STRIDE_H=1", "FIT=0", "WRITE_GRAD_LAM=0"}
    if large.issubset(program.defines):
        return ARCHITECTURES[0]  # on the last one it spills 4 bytes
    drawn = zlib.crc32(" ".join((program.name, *program.defines)).encode())
    return ARCHITECTURES[drawn % len(ARCHITECTURES)]


def most_spilled(program):
    """Bytes. What is made of each element for adaPool is held rather than made anew."""
    return 64 if program.name.startswith("ada_") else 0


def spilling(programs):
    """In words, the programs that spill more, or use local memory for anything else, on the
    architecture of each."""
    compilations = [(program, architecture(program)) for program in programs]
    assert {arch for _, arch in compilations} == set(ARCHITECTURES)
    return [
        f"{program.name} {' '.join(program.defines)} on sm_{arch}: {usage}"
        for (program, arch), usage in zip(
            compilations, in_processes(resource_usage, compilations), strict=True
        )
        if max(usage.stack_frame, usage.spill_stores, usage.spill_loads) > most_spilled(program)
    ]


@pytest.mark.slow
def test_no_kernel_spills_or_uses_local_memory():
    programs = dict.fromkeys(Program.of(launch) for case in CASES for launch in launches(*case))
    wrong = spilling(programs)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_no_kernel_of_another_window_function_spills():
    # Of each function's kernels for one kind of windows, type and memory format one: the fused
    # layer's forward pass, or the backward pass with the gradients of the input and of θ to write.
    # Two or three kinds a function, to save time.
    programs = [
        Program.of(launches(*of, dtype, layout, False, function)[1 + (number // 2 + place) % 2])
        for number, function in enumerate(window_functions())
        for place, (of, dtype, layout) in enumerate(OF_FUNCTIONS[number % 2 :: 2])
    ]
    wrong = spilling(programs)
    assert not wrong, "\n".join(wrong)
