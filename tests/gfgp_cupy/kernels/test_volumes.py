"""The kernels of volumes, for every window function, against its composition in float64; the bytes
they move, against the least; what ptxas says of them."""

import pytest
import torch

from gfgp_cupy import poolings  # noqa: F401  they register their window functions
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from gfgp_cupy.ops import OPERATORS
from tests.support.cuda_compiler import Program, in_processes, resource_usage
from tests.support.implementations import each_place
from tests.support.random_numbers import random_numbers

FUNCTIONS = {
    name: of.function
    for (name, axes), of in OPERATORS.items()
    if axes == 3 and of.function.cuda is not None
}
TILES = pool_geometry(2, axes=3)
ANY = pool_geometry((3, 2, 3), (2, 1, 2), (1, 0, 1), ceil_mode=True, axes=3)
CONTIGUOUS, CHANNELS_LAST = FORMATS = (torch.contiguous_format, torch.channels_last_3d)
TOLERANCES = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-12}
SLACK = 1.15

# Each family in each memory format, and each type; λ is one a volume, or one a window.
CASES = [
    ("max_ent", TILES, CONTIGUOUS, torch.float32, False),
    ("max_ent", TILES, CHANNELS_LAST, torch.float16, False),
    ("max_ent", TILES, CONTIGUOUS, torch.bfloat16, True),
    ("max_ent", ANY, CONTIGUOUS, torch.float64, True),
    ("max_ent", ANY, CHANNELS_LAST, torch.float32, False),
    *((name, TILES, CONTIGUOUS, torch.float32, False) for name in FUNCTIONS if name != "max_ent"),
    *((name, ANY, CONTIGUOUS, torch.float32, False) for name in ("gaussian", "mixed")),
]


def size(*tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Runs:
    """Runs launches by ``run``, and counts the bytes that they move, where it does."""

    def __init__(self, run) -> None:
        self._run, self.bytes = run, 0

    def __call__(self, launch) -> None:
        assert "_pool3d_" in launch.name or launch.name.endswith("lam_gradient")
        traffic = self._run(launch)
        if traffic is not None:
            self.bytes += traffic.sector_bytes + traffic.store_bytes

    def moved(self) -> int:
        moved, self.bytes = self.bytes, 0
        return moved


@each_place
@pytest.mark.parametrize(("name", "geometry", "memory_format", "dtype", "per_window"), CASES)
def test_kernels_compute_the_composition(name, geometry, memory_format, dtype, per_window, run):
    function, run = FUNCTIONS[name], Runs(run)
    input = random_numbers((2, 8, 4, 6, 16), torch.float64, 0)
    if name == "generalized_mean":
        input = input.abs() + 0.1
    input = input.to(dtype).to(memory_format=memory_format)
    sizes = geometry.output_size(4, 6, 16)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    lam = random_numbers((2, 8, *(sizes if per_window else (1, 1, 1))), torch.float64, 1)
    lam = (1 + 0.9 * lam.tanh()).to(compute)
    exact = [tensor.double().requires_grad_() for tensor in (input, lam)]
    expected = function.compose(*exact, geometry)
    grad_output = random_numbers(expected.shape, torch.float64, 2).to(dtype)
    grad_output = grad_output.to(memory_format=memory_format)
    gradients = torch.autograd.grad(expected, exact, grad_output.double())
    mean_grad = random_numbers((2, 8, 1, 1, 1), compute, 3)

    def close(actual, right):
        tolerance = TOLERANCES[dtype]
        torch.testing.assert_close(actual.double(), right, rtol=tolerance, atol=10 * tolerance)

    def at_the_floor(*tensors):
        moved = run.moved()
        if geometry is TILES and not per_window:
            assert moved <= SLACK * size(*tensors)

    output, spread = passes.forward_with_spread(input, lam, geometry, run, function)
    at_the_floor(input, output, spread)
    close(output, expected.detach())
    assert output.is_contiguous(memory_format=memory_format)
    fused, _ = passes.backward(
        grad_output, input, lam, geometry, (True, False), run, mean_grad, function
    )
    at_the_floor(input, grad_output, fused)
    close(fused, gradients[0] + mean_grad)
    assert fused.is_contiguous(memory_format=memory_format)
    grad_input, grad_lam = passes.backward(
        grad_output, input, lam, geometry, (True, True), run, None, function
    )
    close(grad_input, gradients[0])
    close(grad_lam, gradients[1])
    if not per_window:
        close(passes.lam_backward(grad_output, spread, lam, run, function), gradients[1])


@pytest.mark.slow
def test_no_kernel_of_volumes_spills():
    launches = []
    for number, function in enumerate(FUNCTIONS.values()):
        memory_format = FORMATS[number % 2]  # one of each, to save time
        input = torch.empty((2, 64, 8, 16, 16), dtype=torch.float16, device="meta")
        input = input.to(memory_format=memory_format)
        lam = torch.empty((2, 64, 1, 1, 1), device="meta")
        for geometry in (TILES, ANY):
            run = launches.append
            output = passes.forward(input, lam, geometry, lambda _: None, function)
            passes.backward(output, input, lam, geometry, (True, False), run, lam, function)
    programs = list(dict.fromkeys(map(Program.of, launches)))
    usages = in_processes(resource_usage, [(program, "90") for program in programs])
    wrong = [
        f"{program.name} {' '.join(program.defines)}: {usage}"
        for program, usage in zip(programs, usages, strict=True)
        if usage.spill_stores or usage.spill_loads or usage.stack_frame
    ]
    assert not wrong
