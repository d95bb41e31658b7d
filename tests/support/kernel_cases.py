"""The calls that tests run the kernels with on the CPU.

A kernel is compiled anew for each type and layout, where it holds windows in registers for each
geometry, and for what the sizes allow (whether rows divide into 16 bytes, how many threads a small
plane fills). The tests run no specialisation that
does not come from KERNEL_CASES, and each of these compiles for every architecture
(``test_launches.py``). To cover more, add a line.
"""

import dataclasses
import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from gfgp_cupy import poolings  # noqa: F401  they register their window functions
from gfgp_cupy.geometry import PoolGeometry, pool_geometry
from gfgp_cupy.kernels import Launch, passes
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.ops import OPERATORS
from gfgp_cupy.window_function import WindowFunction
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers

__all__ = [
    "DTYPES",
    "FUSED_CASES",
    "KERNEL_CASES",
    "MAIN_CASES",
    "MANY_PLANES_CASES",
    "MARCHING_CASES",
    "PARTIAL_CASES",
    "SMALL_CASES",
    "UNPOOLED_CASES",
    "WHOLE_PLANE_CASES",
    "WIDE_INDEX_CASES",
    "KernelCase",
    "specialisation",
    "specialisations",
    "window_functions",
    "with_wide_indices",
]

FLOAT16, BFLOAT16, FLOAT32, FLOAT64 = DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


@dataclass(frozen=True)
class KernelCase:
    """What a kernel is specialised for.

    Attributes:
        sizes: channels, height and width of the input.
        layout: one of ``memory_layouts.LAYOUTS``.
        lam_in_plane: whether λ varies inside a plane.
    """

    geometry: PoolGeometry
    dtype: torch.dtype
    sizes: tuple[int, int, int]
    layout: str = "contiguous"
    lam_in_plane: bool = False

    def __str__(self) -> str:
        kernel, stride, padding = (
            "x".join(map(str, pair))
            for pair in (self.geometry.kernel_size, self.geometry.stride, self.geometry.padding)
        )
        sizes = "x".join(map(str, self.sizes))
        text = f"{kernel}/{stride}p{padding}-{str(self.dtype)[6:]}-{sizes}-{self.layout}"
        return text + "-lam_in_plane" * self.lam_in_plane

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def output_shape(self, samples: int) -> tuple[int, int, int, int]:
        channels, *plane = self.sizes
        return (samples, channels, *self.geometry.output_size(*plane))

    def input(self, samples: int, seed: int = 0) -> Tensor:
        """Standard normal numbers."""
        return self.arranged(random_numbers((samples, *self.sizes), self.dtype, seed))

    def lam(self, samples: int, seed: int = 1) -> Tensor:
        """One λ per sample and channel, or per window, of either sign."""
        shape = self.output_shape(samples)
        shape = shape if self.lam_in_plane else (*shape[:2], 1, 1)
        return 2 * random_numbers(shape, self.compute_dtype, seed)

    def grad_output(self, samples: int, seed: int = 2) -> Tensor:
        return random_numbers(self.output_shape(samples), self.dtype, seed)

    def arranged(self, input: Tensor) -> Tensor:
        return arranged(input.to(self.dtype), self.layout)


TWO, THREE, FOUR = pool_geometry(2), pool_geometry(3, stride=2, padding=1), pool_geometry(4)
ONE, LARGE = pool_geometry(1), pool_geometry((13, 7), stride=(1, 3), padding=(3, 2))
OBLONG = pool_geometry((3, 2), stride=(1, 3), padding=(1, 0))
CEIL = pool_geometry(5, stride=3, padding=2, ceil_mode=True)
GAPS = pool_geometry(2, stride=3)
LINE = pool_geometry((1, 2))
FIVE = pool_geometry(5, stride=2, padding=2)
SEVEN = pool_geometry(7, stride=2, padding=3)
NINE = pool_geometry(9, stride=4, padding=4, ceil_mode=True)
UNEVEN = pool_geometry((3, 5), stride=(1, 2), padding=(1, 2), ceil_mode=True)

MAIN_CASES = (
    *(KernelCase(TWO, dtype, (3, 8, 12)) for dtype in DTYPES),
    *(KernelCase(THREE, dtype, (4, 9, 8)) for dtype in (FLOAT16, BFLOAT16, FLOAT64)),
    KernelCase(THREE, FLOAT32, (2, 64, 128)),  # large enough to be cut into strips
    *(KernelCase(THREE, dtype, (16, 9, 8), "channels_last") for dtype in (FLOAT32, BFLOAT16)),
)
"""The published networks' two kinds of pooling, in every type."""

UNPOOLED_CASES = tuple(KernelCase(ONE, dtype, (1, 256, 256)) for dtype in (FLOAT16, BFLOAT16))
"""Windows of one element, one for each of the 65,536 numbers of a half type."""

SMALL_CASES = (
    KernelCase(THREE, FLOAT32, (8, 7, 7)),
    KernelCase(THREE, FLOAT64, (8, 14, 14)),
    KernelCase(THREE, FLOAT16, (16, 7, 7), "channels_last"),
    KernelCase(THREE, BFLOAT16, (8, 14, 14), "channels_last"),
    KernelCase(THREE, FLOAT32, (24, 7, 7), "channels_last"),
)
"""Planes so small that several share a block, or many rows of one (channels_last)."""

MARCHING_CASES = (
    KernelCase(THREE, BFLOAT16, (2, 33, 40)),  # strips, and groups of columns
    KernelCase(THREE, FLOAT16, (3, 10, 14)),  # a last group that is not whole
    KernelCase(THREE, FLOAT32, (2, 10, 14)),
    KernelCase(THREE, BFLOAT16, (2, 11, 15)),  # a last group that is not whole
    KernelCase(FIVE, BFLOAT16, (2, 12, 16)),
    KernelCase(FIVE, FLOAT32, (2, 13, 10)),
    KernelCase(UNEVEN, FLOAT16, (2, 17, 15)),
    KernelCase(SEVEN, FLOAT32, (2, 13, 16)),
    KernelCase(SEVEN, BFLOAT16, (2, 12, 15)),
    KernelCase(pool_geometry(3, 2), BFLOAT16, (2, 11, 12)),  # a last column that no window reaches
    KernelCase(pool_geometry(3, 2), FLOAT16, (2, 11, 12)),
)
"""Planes down whose columns threads march."""

REGISTER_CASES = (
    KernelCase(SEVEN, FLOAT32, (16, 13, 16), "channels_last"),
    KernelCase(NINE, BFLOAT16, (3, 15, 14)),
)
"""The largest windows that overlap and that a thread holds, by itself."""

WHOLE_PLANE_CASES = (
    KernelCase(pool_geometry(7), FLOAT32, (3, 7, 7)),
    KernelCase(pool_geometry(6, padding=1), BFLOAT16, (20, 5, 4), "channels_last"),
    KernelCase(pool_geometry((16, 34)), FLOAT32, (2, 16, 34)),  # whole blocks a plane
)
"""One window a plane."""

MANY_PLANES_CASES = (
    (70_000, KernelCase(TWO, FLOAT32, (1, 2, 2))),
    (1, KernelCase(TWO, FLOAT32, (70_000, 2, 2), "channels_last")),
)
"""Numbers of samples, and cases: more samples or channels than a grid holds along y or z."""

PARTIAL_CASES = (
    KernelCase(TWO, FLOAT32, (3, 8, 12)),
    KernelCase(THREE, FLOAT16, (32, 18, 20), "channels_last"),
    KernelCase(LARGE, FLOAT32, (2, 9, 8)),
    SMALL_CASES[0],
)
"""Also run with only one of the two gradients asked for."""

FUSED_CASES = (
    KernelCase(TWO, FLOAT32, (3, 8, 12)),
    KernelCase(TWO, FLOAT16, (16, 8, 8), "channels_last"),
    KernelCase(TWO, BFLOAT16, (5, 6, 14)),  # one window at a time
    KernelCase(TWO, FLOAT32, (1, 4, 1030)),  # more windows a row than threads a block
    KernelCase(THREE, FLOAT64, (4, 9, 8)),
    KernelCase(LARGE, FLOAT32, (2, 9, 8)),
    KernelCase(LINE, FLOAT32, (2, 1, 2060)),  # of one row, which is cut
    KernelCase(LINE, BFLOAT16, (2, 3, 1034)),
    *SMALL_CASES,
    *MARCHING_CASES,
    *REGISTER_CASES,
    *WHOLE_PLANE_CASES,
)
"""Also run as the fused layer runs them: with the spread, and the mean's gradient added."""

WIDE_INDEX_CASES = (
    KernelCase(TWO, FLOAT16, (16, 8, 8), "channels_last"),
    KernelCase(THREE, FLOAT16, (4, 9, 8)),
    KernelCase(LARGE, FLOAT32, (2, 9, 8)),
    SMALL_CASES[0],
    KernelCase(THREE, BFLOAT16, (16, 9, 8), "channels_last"),
    WHOLE_PLANE_CASES[1],
)
"""Also run with 64-bit indices."""

KERNEL_CASES = tuple(dict.fromkeys((
    *MAIN_CASES, *UNPOOLED_CASES, *PARTIAL_CASES, *FUSED_CASES, *WIDE_INDEX_CASES,
    # Windows that tile the plane: few and many threads a plane, wide and narrow accesses.
    KernelCase(TWO, BFLOAT16, (5, 6, 10), "channels_last", lam_in_plane=True),
    KernelCase(TWO, FLOAT64, (6, 8, 8), "misaligned channels_last"),
    KernelCase(TWO, FLOAT16, (3, 8, 16), "misaligned contiguous"),
    KernelCase(TWO, FLOAT32, (2, 64, 64)),
    KernelCase(TWO, BFLOAT16, (1, 160, 224)),  # large enough to be cut into chunks
    KernelCase(TWO, FLOAT32, (32, 16, 32), "channels_last"),  # a window for each of a block's rows
    KernelCase(TWO, FLOAT16, (2, 32, 32), lam_in_plane=True),
    KernelCase(LINE, FLOAT32, (2, 1, 2060), lam_in_plane=True),
    KernelCase(LINE, FLOAT32, (2, 2, 2060), lam_in_plane=True),
    KernelCase(FOUR, FLOAT32, (3, 8, 16), "transposed"),
    KernelCase(pool_geometry((2, 4)), FLOAT16, (8, 8, 8), "channels_last"),
    KernelCase(pool_geometry((2, 3)), FLOAT32, (3, 4, 9), "sliced"),
    KernelCase(pool_geometry(3), FLOAT32, (8, 15, 15)),
    # Windows that overlap, that leave gaps, or that padding or the plane's edge cuts.
    KernelCase(THREE, BFLOAT16, (4, 7, 16), "misaligned contiguous", lam_in_plane=True),
    KernelCase(THREE, FLOAT32, (5, 9, 9), "misaligned channels_last", lam_in_plane=True),
    KernelCase(THREE, FLOAT32, (16, 6, 70), "channels_last"),  # columns cut into strips
    KernelCase(pool_geometry(2, ceil_mode=True), FLOAT32, (4, 9, 7)),
    KernelCase(pool_geometry(5), FLOAT32, (8, 20, 20)),
    KernelCase(OBLONG, FLOAT64, (4, 7, 8), "channels_last"),
    KernelCase(CEIL, BFLOAT16, (8, 11, 12), "channels_last"),
    KernelCase(GAPS, BFLOAT16, (8, 10, 12)),
    KernelCase(pool_geometry(3, stride=1, padding=1), FLOAT32, (1, 34, 36)),  # many steps a strip
    KernelCase(pool_geometry(5, stride=2, padding=2), FLOAT32, (16, 11, 12), "channels_last"),
    KernelCase(pool_geometry(3, stride=1, padding=1), BFLOAT16, (32, 6, 7), "channels_last"),
    KernelCase(pool_geometry((3, 2), (2, 1), (1, 0), True), FLOAT16, (16, 30, 5), "channels_last"),
    # Small planes.
    KernelCase(THREE, FLOAT32, (3, 3, 5)),  # as many share a block as the samples allow
    KernelCase(THREE, FLOAT32, (16, 7, 7), "channels_last", lam_in_plane=True),
    KernelCase(THREE, FLOAT32, (2, 64, 3)),  # whose strips share a block
    KernelCase(CEIL, FLOAT16, (3, 1, 16), "channels_last"),  # of less rows than padding
    KernelCase(pool_geometry(2, stride=1), BFLOAT16, (16, 2, 3)),
    *(case for _, case in MANY_PLANES_CASES),
)))  # fmt: skip


def window_functions() -> list[WindowFunction]:
    """Those that have device functions, but for Max-Ent pooling."""
    functions = dict.fromkeys(operators.function for operators in OPERATORS.values())
    return [of for of in functions if of.cuda is not None and of != MAX_ENT]


SAMPLES = (1, 2, 4, 16)
"""How many small planes share a block depends on the powers of two that divide their number. Tests
may take any number of samples up to 7, or a multiple of 16."""


@functools.cache
def specialisations() -> dict[tuple, Launch]:
    """A launch of every specialisation that the tests may run, by what makes it different."""
    launches = []

    def add_wide(launch: Launch) -> None:
        launches.append(with_wide_indices(launch))

    for case in KERNEL_CASES:
        for samples in SAMPLES:
            _plan(case, samples, (True, True), launches.append)
            if case in PARTIAL_CASES:
                _plan(case, samples, (True, False), launches.append)
                _plan(case, samples, (False, True), launches.append)
            if case in FUSED_CASES:
                _plan_fused(case, samples, launches.append)
            if case in WIDE_INDEX_CASES:
                _plan(case, samples, (True, True), add_wide)
    _plan_volumes(launches.append)
    return {specialisation(launch): launch for launch in launches}


def specialisation(launch: Launch) -> tuple:
    return launch.name, launch.source, launch.defines


def with_wide_indices(launch: Launch) -> Launch:
    """The launch with 64-bit element offsets, as for more than 2^31 elements."""
    assert "index_t=int" in launch.defines
    wide = "index_t=long long"
    defines = tuple(wide if define == "index_t=int" else define for define in launch.defines)
    return dataclasses.replace(launch, defines=defines)


def _plan_volumes(run) -> None:
    """Windows of three axes, that tile the input and that do not, of inputs without data."""
    for window, dtype, layout in itertools.product(
        ((2,), (3, 2, 1)), DTYPES, (torch.contiguous_format, torch.channels_last_3d)
    ):
        input = torch.empty((2, 16, 8, 8, 8), dtype=dtype, device="meta", memory_format=layout)
        compute = torch.float64 if dtype is FLOAT64 else torch.float32
        lam = torch.empty(2, 16, 1, 1, 1, dtype=compute, device="meta")
        geometry = pool_geometry(*window, axes=3)
        output, _ = passes.forward_with_spread(input, lam, geometry, run)
        passes.backward(output, input, lam, geometry, (True, True), run)


def _plan(case: KernelCase, samples: int, needed: tuple[bool, bool], run) -> None:
    """Hands ``run`` the launches of a forward and a backward pass, none of them executed."""
    input, lam, grad_output = case.input(samples), case.lam(samples), case.grad_output(samples)
    passes.forward(input, lam, case.geometry, run)
    passes.backward(grad_output, input, lam, case.geometry, needed, run)


def _plan_fused(case: KernelCase, samples: int, run) -> None:
    input, lam, grad_output = case.input(samples), case.lam(samples), case.grad_output(samples)
    _, spread = passes.forward_with_spread(input, lam, case.geometry, run)
    passes.lam_backward(grad_output, spread, lam, run)
    passes.backward(grad_output, input, lam, case.geometry, (True, False), run, lam)
