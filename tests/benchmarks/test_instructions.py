"""Counting instructions: machine code executed here computes what it should, what it issues is
counted as by hand, and the kernels issue what the committed files say."""

import re

import numpy as np
import pytest
import torch

from benchmarks import instructions
from benchmarks.gpus import GPUS
from benchmarks.instruction_counts import PASSES, count, executed, nvrtc_version
from benchmarks.instruction_results import read_instructions, write_instructions
from benchmarks.instruction_tables import page
from benchmarks.sass import floats
from benchmarks.shapes import Shape, select_shapes
from gfgp_cupy.backends import torch as reference
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import Launch, passes
from gfgp_cupy.ops import OPERATORS
from tests.support.memory_layouts import arranged
from tests.support.paths import REPOSITORY
from tests.support.random_numbers import random_numbers

RESULTS = REPOSITORY / "benchmarks" / "results"
TWO, THREE = pool_geometry(2), pool_geometry(3, 2, 1)
REGENERATE = (
    "python benchmarks/instructions.py --out benchmarks/results --table docs/instructions.md"
)

GROWTH = 0.05
OTHER_COMPILER = 0.05
"""Between NVRTC 12.9, 13.0 and 13.5, the length of a kernel's code differs by up to 4.2%."""


def results_of(arch):
    return read_instructions(RESULTS / f"instructions-sm_{arch}.json")


def run_on(arch):
    """Runs launches of at most 32 blocks, all of which are executed."""

    def run(launch):
        assert launch.grid <= 32
        executed(launch, arch).memory.read_back()

    return run


FLUSHED = """
extern "C" __global__ void flushed(const float* in, float* out, long long n) {
    int i = threadIdx.x;
    if (i >= n) return;
    float x = in[2 * i], y = in[2 * i + 1];
    out += 5 * i;
    out[0] = x + y;
    out[1] = x * y;
    out[2] = fmaf(x, y, y);
    out[3] = x < y ? 1.0f : 2.0f;
    asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(out[4]) : "f"(x));
}
"""


@pytest.mark.parametrize("arch", GPUS)
def test_numbers_below_the_normal_ones_are_0(arch):
    """As they are with CuPy's -ftz=true: what is taken, and what is given."""
    tiny = torch.finfo(torch.float32).tiny
    pairs = torch.tensor([[tiny / 2, tiny], [-tiny / 4, 0], [1.5 * tiny, -tiny], [tiny, 0.5]])
    out = torch.full((4, 5), torch.nan)
    launch = Launch("flushed", FLUSHED, (), 1, 32, (pairs, out, 4))
    executed(launch, arch).memory.read_back()
    inf = torch.inf
    expected = [
        [tiny, 0, tiny, 1, inf],
        [0, 0, 0, 2, -inf],
        [0, 0, -tiny, 2, 1 / (1.5 * tiny)],
        [0.5, 0, 0.5, 1, 1 / tiny],
    ]
    assert torch.equal(out, torch.tensor(expected))


@pytest.mark.parametrize(
    ("arch", "geometry", "dtype", "layout"),
    [
        pytest.param(
            "80", THREE, torch.float16, "channels_last", id="sm_80", marks=pytest.mark.slow
        ),
        pytest.param("90", TWO, torch.float16, "channels_last", id="sm_90-2/2"),
        pytest.param("90", THREE, torch.float32, "contiguous", id="sm_90-3/2"),
        pytest.param(
            "100", THREE, torch.bfloat16, "contiguous", id="sm_100", marks=pytest.mark.slow
        ),
    ],
)
def test_executed_machine_code_pools(arch, geometry, dtype, layout):
    x = arranged(random_numbers((2, 32, 14, 14), dtype, 0), layout)
    lam = random_numbers((2, 32, 1, 1), torch.float32, 1)
    run = run_on(arch)
    output, spread = passes.forward_with_spread(x, lam, geometry, run)
    grad_output = arranged(random_numbers(output.shape, dtype, 2), layout)
    grad_input, grad_lam = passes.backward(grad_output, x, lam, geometry, (True, True), run)

    wanted = reference.forward(x, lam, geometry)
    wanted_input, wanted_lam = reference.backward(grad_output, x, lam, geometry, (True, True))
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(output, wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad_input, wanted_input, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad_lam, wanted_lam, rtol=1e-5, atol=1e-5)
    from_spread = passes.lam_backward(grad_output, spread, lam, run)
    torch.testing.assert_close(from_spread, wanted_lam, rtol=1e-5, atol=50 * tolerance)


@pytest.mark.parametrize("units", [0, 1, -1])
@pytest.mark.parametrize(
    ("name", "dtype", "value"),
    [
        ("gaussian", torch.bfloat16, 1e9),
        ("gaussian", torch.float32, 1e9),
        ("ada", torch.float32, 1e30),
        ("ada", torch.bfloat16, 1e30),
        ("ada", torch.float32, 1e9),
    ],
)
def test_gradient_of_equal_elements_whatever_a_gpu_rounds(name, dtype, value, units, monkeypatch):
    """Machine code joins products and sums, and PTX promises reciprocals to one unit only."""

    def reciprocal(x):
        return ((1 / x).view(np.int32) + np.int32(units)).view(np.float32)

    monkeypatch.setitem(floats.SPECIAL_FUNCTIONS, "RCP", reciprocal)
    function = OPERATORS[name, 2].function
    x = torch.full((2, 3, 7, 8), value, dtype=dtype)
    grad_output = random_numbers((2, 3, 4, 4), dtype, 0)
    grad_input, _ = passes.backward(
        grad_output, x, torch.full((1, 1, 1, 1), 5.0), THREE, (True, True), run_on("90"), None,
        function,
    )  # fmt: skip
    zeros = torch.zeros_like(x, dtype=torch.float64).requires_grad_()
    means = torch.nn.functional.avg_pool2d(zeros, 3, 2, 1, count_include_pad=False)
    (expected,) = torch.autograd.grad(means, zeros, grad_output.double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(grad_input.double(), expected, rtol=eps, atol=8 * eps)


SPILLS = """
extern "C" __global__ void spills(const long long* in, long long* out, long long n) {
    long long kept[8];
    const int i = blockIdx.x * 32 + threadIdx.x;
    if (i >= n) return;
#pragma unroll
    for (int k = 0; k < 8; ++k) kept[k] = in[8 * i + k];
#pragma unroll 1
    for (int k = 0; k < 7; ++k) {  // the compiler does not know which
        const long long other = kept[(unsigned)kept[k] % 8];
        kept[(k + i) % 8] += other;
    }
    for (int k = 0; k < 8; ++k) out[8 * i + k] = kept[k];
}
"""


@pytest.mark.parametrize("arch", GPUS)
def test_executed_machine_code_has_memory_of_each_thread(arch):
    numbers = torch.arange(40 * 8).view(40, 8) * 7 % 23
    out = torch.zeros_like(numbers)
    launch = Launch("spills", SPILLS, (), 2, 32, (numbers, out, 40))
    warps = executed(launch, arch)
    warps.memory.read_back()
    assert warps.program.uses_local
    expected = numbers.tolist()
    for i, kept in enumerate(expected):
        for k in range(7):
            kept[(k + i) % 8] += kept[kept[k] % 8]
    assert out.tolist() == expected


COUNTED = """
__device__ float ex2(float x) {
    float y;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

extern "C" __global__ void counted(const float* in, float* out, long long n) {
    __shared__ float kept[64];
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i >= n) return;
    float x = in[i];
#pragma unroll 1
    for (int k = 0; k < ROUNDS; ++k) x = ex2(x);
    if (threadIdx.x % 32 < 8) x = ex2(ex2(x));
#pragma unroll 1
    for (int k = threadIdx.x % 4; k > 0; --k) x = ex2(x);
    if (__builtin_expect(threadIdx.x % 32 == 5, 0)) {
#pragma unroll 1
        for (int k = 0; k < ROUNDS; ++k) x = ex2(x);
    }
    x = ex2(x);
    kept[threadIdx.x] = x;
    __syncwarp();
    out[i] = kept[threadIdx.x ^ 1];
}
"""


@pytest.mark.parametrize("arch", GPUS)
def test_counts_are_those_made_by_hand(arch):
    # 100 elements in three blocks of two warps, of which four warps have any.
    tensors = (torch.empty(100, device="meta"), torch.empty(100, device="meta"))
    launch = Launch("counted", COUNTED, ("ROUNDS=5",), 3, 64, (*tensors, 100))
    counts = count(launch, arch, windows=100)
    live = 4 * 32 / 100
    assert counts.issued["load"] == pytest.approx(live)
    assert counts.issued["store"] == pytest.approx(live)
    assert counts.issued["shared"] == pytest.approx(2 * live)
    # All lanes five times, a quarter of them twice, each as often as its number modulo 4 says, one,
    # which the last warp does not have, five times and out of line, and all once:
    # a warp issues what any lane needs.
    assert (
        counts.issued["mufu"]
        == counts.units["xu"]
        == pytest.approx((5 + 2 + 3 + 5 * 3 / 4 + 1) * live)
    )
    # 64 and 36 elements in, by sectors of eight; 100 out.
    assert counts.moved == pytest.approx(((8 + 5) * 32 + 400) / 100)
    # Two blocks wait once for what they load.
    assert counts.in_flight == pytest.approx(counts.blocks * (8 + 5) * 32 / 2)
    assert counts.blocks == 32
    assert sum(counts.issued.values()) == counts.issue
    assert 0.5 < counts.lanes < 1


INTEGERS = """
extern "C" __global__ void integers(const long long* in, long long* out, long long n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long a = in[2 * i], b = in[2 * i + 1];
    out += 8 * i;
    out[0] = a - b;
    out[1] = a * b;
    out[2] = a < b;
    out[3] = a >> (i % 64);
    out[4] = a << (i % 64);
    out[5] = a < b ? a : b;
    out[6] = (a ^ b) & ~(a | n);
    out[7] = __umulhi((unsigned)a, (unsigned)b) + (long long)__popc((int)b);
}
"""


@pytest.mark.parametrize("arch", GPUS)
def test_integers_are_computed_as_python_does(arch):
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(-(2**63), 2**63 - 1, (100, 2), generator=generator)
    pairs[:50] >>= 40  # small ones, of either sign
    pairs[::7, 1] = pairs[::7, 0]
    out = torch.zeros(100, 8, dtype=torch.int64)
    executed(Launch("integers", INTEGERS, (), 2, 64, (pairs, out, 100)), arch).memory.read_back()

    def wrapped(number):
        return (number + 2**63) % 2**64 - 2**63

    low = 2**32 - 1
    for i, ((a, b), results) in enumerate(zip(pairs.tolist(), out.tolist(), strict=True)):
        assert results == [
            wrapped(a - b),
            wrapped(a * b),
            a < b,
            a >> i % 64,
            wrapped(a << i % 64),
            min(a, b),
            (a ^ b) & ~(a | 100),
            ((a & low) * (b & low) >> 32) + (b & low).bit_count(),
        ], (i, a, b)


@pytest.mark.parametrize(
    ("block", "registers", "shared", "blocks"),
    [
        (256, 32, 0, 8),  # threads
        (256, 40, 0, 6),  # registers
        (128, 168, 0, 3),
        (64, 32, 0, 32),  # as many blocks as there can be
        (128, 32, 31 * 1024, 7),  # shared memory
    ],
)
def test_blocks_that_a_multiprocessor_of_an_h100_holds(block, registers, shared, blocks):
    assert GPUS["90"].blocks_at_once(block, registers, shared) == blocks


def check_growth(arch, dtype, layout, shapes, passes=PASSES):
    results = results_of(arch)
    options = instructions.make_parser().parse_args(["--shapes", *shapes, "--passes", *passes])
    growth = GROWTH + OTHER_COMPILER * (results.nvrtc != nvrtc_version())
    known = {
        (row.shape, row.name, row.counts.kernel): row.counts
        for row in results.rows
        if (row.dtype, row.layout) == (dtype, layout) and row.shape in shapes and row.name in passes
    }
    counted = {
        (row.shape, row.name, row.counts.kernel): row.counts
        for row in instructions.count_part(options, arch, dtype, layout)
    }
    assert counted.keys() == known.keys(), f"other kernels than in the results: {REGENERATE}"
    wrong = [
        f"{' '.join(key)}: {counts.issue:.1f} instructions a window, {known[key].issue:.1f} before"
        for key, counts in counted.items()
        if not 1 - growth <= counts.issue / known[key].issue <= 1 + growth
    ]
    assert not wrong, "\n".join([*wrong, f"If that is meant: {REGENERATE}"])


USUAL = ["512x28x28:2/2/0", "64x112x112:3/2/1"]
SMALL = ["512x14x14:2/2/0", "512x14x14:3/2/1"]
LARGER_PASSES = ("forward with spread", "backward", "fused backward")
"""The operator's forward pass is the layer's, compiled to do less."""


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", instructions.LAYOUTS)
def test_no_kernel_issues_other_than_the_results_say(dtype, layout):
    check_growth("90", dtype, layout, USUAL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "dtype", "layout", "shapes"),
    [
        # Which bfloat16 differs from in the conversions alone.
        ("90", "float16", "contiguous", USUAL[:1]),
        ("90", "bfloat16", "channels_last", SMALL),
        ("80", "bfloat16", "channels_last", USUAL),
        ("100", "float32", "contiguous", USUAL),
        ("90", "float32", "channels_last", ["64x56x56:9/4/4"]),
    ],
)
def test_no_other_kernel_issues_other_than_the_results_say(arch, dtype, layout, shapes):
    """To save time, each of one memory format."""
    check_growth(arch, dtype, layout, shapes, LARGER_PASSES)


def test_results_are_complete_and_the_page_is_theirs(tmp_path):
    options = instructions.make_parser().parse_args([])
    everything = [results_of(arch) for arch in GPUS]
    for results in everything:
        cases = {(row.dtype, row.layout, row.shape, row.name) for row in results.rows}
        assert len(cases) == len(instructions.DTYPES) * 2 * len(select_shapes(options.shapes)) * 4
    text = (REPOSITORY / "docs" / "instructions.md").read_text()
    assert text == page(everything), REGENERATE

    again = tmp_path / "new" / "again.json"
    write_instructions(everything[0], again)
    assert read_instructions(again) == everything[0]
    (tmp_path / "other.json").write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema"):
        read_instructions(tmp_path / "other.json")


@pytest.mark.parametrize("window", instructions.LARGE_WINDOWS)
def test_large_windows_are_as_the_documentation_says(window):
    """Of a pass that takes two launches, the least bytes count once."""
    gpu = GPUS["90"]

    def ratios(name, dtype):
        results = results_of("90")
        for layout in instructions.LAYOUTS:
            case = (window, name, dtype, layout)
            rows = [r for r in results.rows if (r.shape, r.name, r.dtype, r.layout) == case]
            shape = Shape.parse(window)
            tensors = [shape.input_elements, shape.output_elements]
            least = np.dot(tensors, [1 + (name == "backward"), 1]) / shape.output_elements
            memory = least * (4 if dtype == "float32" else 2) / gpu.bandwidth
            warps = sum(row.counts.issue for row in rows) / 32
            yield warps / (gpu.issues * gpu.multiprocessors * gpu.clock) / memory

    def cell(name):
        values = [list(ratios(name, dtype)) for dtype in ("float32", "bfloat16")]
        return " / ".join(
            f"{min(both):{digits(both)}}–{max(both):{digits(both)}}" for both in values
        )

    def digits(both):
        return ".0f" if min(both) > 9.95 else ".1f"

    kernel, stride, _ = window.partition(":")[2].split("/")
    page = (REPOSITORY / "docs" / "kernels.md").read_text()
    row = re.search(rf"\| {kernel}×{kernel}, stride {stride} \|.*", page)[0]
    assert row.endswith(f"| {cell('forward')} | {cell('backward')} |")
