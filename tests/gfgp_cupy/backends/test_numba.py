"""What is particular to the backend for CPUs: three ways to pool, threads, and a cache on disk.

What it computes is tested with the other backends', in test_pooling.py and test_functional.py.
"""

import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from numba.core.event import Listener, install_listener

from gfgp_cupy.backends import numba as backend
from gfgp_cupy.backends import torch as reference
from gfgp_cupy.backends.numba import threads
from gfgp_cupy.backends.numba.block import OF_EACH_ROW, OF_EACH_WINDOW, block_of
from gfgp_cupy.backends.numba.loading import family_of
from gfgp_cupy.backends.numba.plan import VECTOR_BYTES, plan
from gfgp_cupy.backends.numba.powers import (
    exp2,
    has_avx512,
    power_of_two_by_bits,
    power_of_two_by_scaling,
)
from gfgp_cupy.backends.numba.simd import lanes_for, load, pointer_to, store
from gfgp_cupy.functional import max_ent_pool2d
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.max_ent import MAX_ENT
from tests.support.numba_compilation import cache_in
from tests.support.paths import REPOSITORY
from tests.support.random_numbers import random_numbers
from tests.support.warm_python import run_warm

CONTIGUOUS, CHANNELS_LAST = LAYOUTS = torch.contiguous_format, torch.channels_last

each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@pytest.fixture
def set_threads():
    """Sets PyTorch's number of threads, and sets it back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def example(shape, geometry, dtype, layout, lam_in_plane=False):
    """Input, λ and the output's gradient."""
    output_shape = (*shape[:2], *geometry.output_size(*shape[2:]))
    lam_shape = output_shape if lam_in_plane else (*shape[:2], *(1,) * len(shape[2:]))
    return (
        random_numbers(shape, dtype, 0).contiguous(memory_format=layout),
        2 * random_numbers(lam_shape, dtype, 1),
        random_numbers(output_shape, dtype, 2).contiguous(memory_format=layout),
    )


def results(input, lam, grad_output, geometry, mean_grad=None):
    return [
        *backend.forward_with_spread(input, lam, geometry),
        *backend.backward(grad_output, input, lam, geometry, (True, True), mean_grad),
    ]


# ---------------------------------------------------------------- 2×2 windows that tile the plane


@each_dtype
@each_layout
@pytest.mark.parametrize("lam_in_plane", [False, True], ids=["lam_of_planes", "lam_of_windows"])
@pytest.mark.parametrize(
    "shape", [(2, 3, 2, 2), (1, 2, 4, 28), (1, 17, 6, 30), (2, 8, 2, 32), (1, 35, 4, 66)], ids=str
)
def test_tiles_are_pooled_as_any_windows(shape, lam_in_plane, layout, dtype):
    geometry = pool_geometry(2)
    input, lam, grad_output = example(shape, geometry, dtype, layout, lam_in_plane)
    mean_grad = random_numbers((*shape[:2], 1, 1), dtype, 3)
    # The same windows, with a row and a column more that belong to none.
    longer = torch.nn.functional.pad(input, (0, 1, 0, 1), value=100)
    assert plan(input, lam, geometry).module == "tiles"
    assert plan(longer, lam, geometry).module == "windows"
    as_tiles = results(input, lam, grad_output, geometry, mean_grad)
    as_windows = results(longer, lam, grad_output, geometry, mean_grad)
    as_windows[2] = as_windows[2][:, :, :-1, :-1]  # the input's gradient
    for tiled, general in zip(as_tiles, as_windows, strict=True):
        torch.testing.assert_close(tiled, general, rtol=1e3 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        (pool_geometry(2), (4, 5)),
        (pool_geometry(2), (5, 4)),
        (pool_geometry(2, ceil_mode=True), (5, 5)),
        (pool_geometry(2, padding=1), (4, 4)),
        (pool_geometry(2, stride=1), (4, 4)),
        (pool_geometry(2, stride=3), (5, 5)),
        (pool_geometry(3), (6, 6)),
    ],
    ids=str,
)
def test_other_windows_are_no_tiles(geometry, size):
    input, lam, _ = example((1, 2, *size), geometry, torch.float32, CONTIGUOUS)
    assert plan(input, lam, geometry).module != "tiles"


# ---------------------------------------------------------------- 3×3 windows at stride 2

THREE = (
    pool_geometry(3, 2, 1),
    pool_geometry(3, 2),
    pool_geometry(3, 2, (0, 1)),
    pool_geometry(3, 2, 1, ceil_mode=True),
    pool_geometry(3, 2, ceil_mode=True),
)
THREE_SHAPES = (
    (2, 3, 3, 5), (1, 2, 7, 28), (2, 1, 8, 30), (1, 17, 6, 31), (2, 16, 9, 32), (1, 35, 4, 66),
)  # fmt: skip


@each_dtype
@each_layout
@pytest.mark.parametrize("geometry", THREE, ids=str)
@pytest.mark.parametrize("shape", THREE_SHAPES, ids=str)
def test_shared_weights_give_what_any_windows_do(shape, geometry, layout, dtype):
    input, lam, grad_output = example(shape, geometry, dtype, layout)
    mean_grad = random_numbers((*shape[:2], 1, 1), dtype, 3)
    # The same λ for every window, so that no weights are shared.
    of_windows = lam.expand(grad_output.shape).contiguous()
    assert plan(input, lam, geometry).module == "overlapping"
    assert plan(input, of_windows, geometry).module == "windows"
    shared = results(input, lam, grad_output, geometry, mean_grad)
    general = results(input, of_windows, grad_output, geometry, mean_grad)
    general[3] = general[3].sum((2, 3), keepdim=True)  # λ's gradient
    for actual, expected in zip(shared, general, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e3 * torch.finfo(dtype).eps, atol=1e-5)


def test_rows_that_fill_the_cache_are_pooled_as_any_windows():
    geometry = pool_geometry(3, 2, 1)
    input, lam, _ = example((1, 512, 3, 56), geometry, torch.float32, CHANNELS_LAST)
    assert plan(input, lam, geometry).module == "windows"


# ---------------------------------------------------------------- weights that windows share

LIMIT = 64
"""The binary logarithm of the sums of weights at which windows get weights of their own."""


def near_the_limits() -> torch.Tensor:
    """Binary logarithms of weights on both sides of both limits, and far beyond."""
    steps = torch.arange(-3, 4, dtype=torch.float64) / 8
    far = torch.tensor([1.0, 2.0, 30.0], dtype=torch.float64)
    limits = torch.cat([LIMIT + steps, LIMIT * far, torch.zeros(1)])
    return torch.cat([limits, -limits])


@each_layout
@each_dtype
@pytest.mark.parametrize("geometry", [pool_geometry(2), pool_geometry(3, 2, 1)], ids=str)
@pytest.mark.parametrize("lam", [0.5, -0.5, 5.0, 50.0])
def test_weights_hold_on_both_sides_of_where_windows_get_their_own(lam, geometry, dtype, layout):
    """A plane for each distance from 0; it moves the mean and changes no derivative."""
    centres = near_the_limits() / (abs(lam) * np.log2(np.e))
    spread = 0.01 * random_numbers((1, len(centres), 8, 36), torch.float64, 0)
    input = (centres.view(1, -1, 1, 1) + spread).to(dtype).contiguous(memory_format=layout)
    grad_output = random_numbers((1, len(centres), *geometry.output_size(8, 36)), dtype, 1)
    grad_output = grad_output.contiguous(memory_format=layout)
    tensors = (input, torch.full((1, len(centres), 1, 1), lam, dtype=dtype), grad_output)
    exact = [
        *reference.forward_with_spread(*(tensor.double() for tensor in tensors[:2]), geometry),
        *reference.backward(
            *(tensor.double() for tensor in (grad_output, *tensors[:2])), geometry, (True, True)
        ),
    ]
    if dtype is torch.float64:  # nothing is more exact
        allowed = (4e-15, 1e-12, 1e-12, 1e-12)
    else:
        allowed = (1e-6, 1e-6, 2e-6, 3e-6)
    for actual, expected, rtol in zip(results(*tensors, geometry), exact, allowed, strict=True):
        error = (actual.double() - expected).abs() / (expected.abs() + expected.abs().mean())
        assert error.max() <= rtol


@each_layout
@pytest.mark.parametrize("geometry", [pool_geometry(2), pool_geometry(3, 2, 1)], ids=str)
def test_windows_keep_their_bits_where_neighbours_need_weights_of_their_own(geometry, layout):
    input, lam, _ = example((1, 16, 8, 36), geometry, torch.float32, layout)
    alone = backend.forward(input, lam, geometry)
    input = input.clone(memory_format=torch.preserve_format)
    input[:, ::3, 3, 7] = 1e4
    output = backend.forward(input, lam, geometry)
    hit = torch.nn.functional.max_pool2d(
        (input == 1e4).double(), geometry.kernel_size, geometry.stride, geometry.padding
    )
    assert hit.any()
    assert torch.equal(output[hit == 0], alone[hit == 0])


@each_layout
@pytest.mark.parametrize("geometry", [pool_geometry(2), pool_geometry(3, 2, 1)], ids=str)
def test_small_elements_under_a_large_lam(geometry, layout):
    """Products of weights and elements would be below the smallest number with all digits."""
    input = 1e-36 * random_numbers((1, 16, 8, 36), torch.float32, 0)
    input = input.contiguous(memory_format=layout)
    lam = torch.full((1, 1, 1, 1), 4e37)
    output = backend.forward(input, lam, geometry)
    exact = reference.forward(input.double(), lam.double(), geometry)
    assert (output.double() - exact).abs().max() <= 1e-42


# ---------------------------------------------------------------- memory


class Guarded:
    """Tensors for compiled functions, in memory whose other elements must stay as they are."""

    MARGIN = 64

    def __init__(self):
        self.memories = []

    def tensor(self, values: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
        """The elements of ``values`` as they lie in memory in ``layout``, between NaNs."""
        dense = values.contiguous(memory_format=layout)
        margin = torch.full((self.MARGIN,), torch.nan)
        memory = torch.cat([margin, dense.as_strided((dense.numel(),), (1,)), margin])
        self.memories.append(memory)
        return memory[self.MARGIN : -self.MARGIN]

    def untouched(self) -> bool:
        return all(
            memory[: self.MARGIN].isnan().all() and memory[-self.MARGIN :].isnan().all()
            for memory in self.memories
        )


def run_alone(function, how, tensors, lam_parts=0):
    """Runs a compiled function in one part."""
    scratch = torch.full((how.scratch + 1,), torch.nan)
    addresses = [tensor.data_ptr() for tensor in tensors]
    block = block_of(how, addresses, 1, scratch.data_ptr(), lam_parts)
    function("float32").call(block.buffer_info()[0])
    assert scratch[-1].isnan()


@each_layout
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (1, 3, 4, 30), (1, 17, 2, 34), (2, 5, 7, 9)])
@pytest.mark.parametrize(
    ("family", "geometry", "lam_of_windows"),
    [
        ("tiles", pool_geometry(2), True),
        ("tiles", pool_geometry(2), False),
        ("overlapping", pool_geometry(3, 2, 1), False),
        ("overlapping", pool_geometry(3, 2, 1, ceil_mode=True), False),
        ("windows", pool_geometry(3, 1, 1), True),
        ("windows", pool_geometry(2, 1), False),
        ("windows", pool_geometry(2, 1, 1, axes=3), False),
        ("windows", pool_geometry((3, 1, 2), 2, (1, 0, 0), axes=3), True),
    ],
    ids=str,
)
def test_nothing_is_written_outside_the_tensors(family, geometry, lam_of_windows, shape, layout):
    if family == "tiles" and shape[2] % 2:
        shape = (*shape[:2], 6, 8)
    if len(geometry.kernel_size) == 3:
        shape = (*shape[:2], 3, *shape[2:])
        layout = layout if layout is CONTIGUOUS else torch.channels_last_3d
    input, lam, grad_output = example(shape, geometry, torch.float32, layout, lam_of_windows)
    how = plan(input, lam, geometry)
    assert how.module == family
    functions = family_of(family, MAX_ENT.cpu, MAX_ENT.spread)
    guarded = Guarded()

    def tensor(values):
        return guarded.tensor(values, layout)

    output, spread = tensor(torch.zeros_like(grad_output)), tensor(torch.zeros_like(grad_output))
    run_alone(functions.forward, how, (tensor(input), tensor(lam), output, spread))
    parts = grad_output.shape if lam_of_windows else (*grad_output.shape[:-1], 1)
    grad_input, grad_lam = (
        tensor(torch.full(shape, torch.nan)),
        tensor(torch.full(parts, torch.nan)),
    )
    run_alone(
        functions.backward,
        how,
        (
            tensor(grad_output),
            tensor(input),
            tensor(lam),
            tensor(torch.zeros(*shape[:2], *(1,) * len(geometry.kernel_size))),
            grad_input,
            grad_lam,
        ),
        OF_EACH_WINDOW if lam_of_windows else OF_EACH_ROW,
    )
    assert guarded.untouched()
    assert not grad_input.isnan().any()
    assert not grad_lam.isnan().any()
    expected = reference.forward(input, lam, geometry).contiguous(memory_format=layout)
    expected = expected.as_strided((expected.numel(),), (1,))
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the exponential


@numba.njit
def exponentials(x, halvings, powers):
    for i in range(0, x.size, lanes_for(pointer_to(x))):
        store(pointer_to(powers), i, exp2(load(pointer_to(x), i), halvings))


@numba.njit
def powers_by_bits(scale, x, powers):
    for i in range(0, x.size, lanes_for(pointer_to(x))):
        scales, numbers = load(pointer_to(scale), i), load(pointer_to(x), i)
        store(pointer_to(powers), i, power_of_two_by_bits(scales, numbers))


@numba.njit
def powers_by_scaling(scale, x, powers):
    for i in range(0, x.size, lanes_for(pointer_to(x))):
        scales, numbers = load(pointer_to(scale), i), load(pointer_to(x), i)
        store(pointer_to(powers), i, power_of_two_by_scaling(scales, numbers))


@each_dtype
@pytest.mark.parametrize("halvings", [0, 2, 16])
def test_powers_of_two_are_right_to_two_units_in_the_last_place(dtype, halvings):
    dtype = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    smallest = np.finfo(dtype).minexp
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.linspace(smallest + halvings, 0, 4096 * lanes, dtype=dtype)
    powers = np.empty_like(x)
    exponentials(x, halvings, powers)
    expected = np.exp2(x.astype(np.longdouble) - halvings)
    assert np.max(np.abs(powers - expected) / expected) <= 2 * np.finfo(dtype).eps

    below = smallest + halvings - 1
    x = np.resize(np.array([0, -np.inf, 2 * smallest, below, -1, np.nan], dtype), lanes)
    powers = np.empty_like(x)
    exponentials(x, halvings, powers)
    expected = [0.5**halvings, 0, 0, 0, 0.5 ** (halvings + 1), np.nan]
    np.testing.assert_array_equal(powers[:6], expected)


@each_dtype
@pytest.mark.parametrize(
    "powers_of_two",
    [
        powers_by_bits,
        pytest.param(
            powers_by_scaling,
            marks=pytest.mark.skipif(not has_avx512(), reason="the processor has no AVX-512"),
        ),
    ],
    ids=["by bits", "by scaling"],
)
def test_powers_of_a_product_are_right_to_two_units_in_the_last_place(dtype, powers_of_two):
    dtype = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    largest = -np.finfo(dtype).minexp
    generator = np.random.default_rng(0)
    scale = np.exp2(generator.uniform(-20, 20, 4096 * lanes)).astype(dtype)
    x = (generator.uniform(-largest, largest, scale.size) / scale).astype(dtype)
    powers = np.empty_like(x)
    powers_of_two(scale, x, powers)
    # Where the product is not rounded before its whole part is taken off, errors do not grow with
    # it. NumPy's longdouble holds the product of two float32; of float64, most of it.
    product = scale.astype(np.longdouble) * x.astype(np.longdouble)
    relative = np.abs(powers / np.exp2(product) - 1)
    units = 2 if dtype is np.float32 else 4
    assert relative.max() <= units * np.finfo(dtype).eps

    below = -largest - 9
    special = [0, -np.inf, np.inf, -2 * largest, 2 * largest, -1, np.nan, 1e30, -1e30, below]
    x = np.resize(np.array(special, dtype), 2 * lanes)
    powers = np.empty_like(x)
    powers_of_two(np.ones_like(x), x, powers)
    expected = [1, 0, np.inf, 0, np.inf, 0.5, np.nan, np.inf, 0, 0]
    np.testing.assert_array_equal(powers[: len(special)], expected)


# ---------------------------------------------------------------- threads


@each_layout
@pytest.mark.parametrize(
    "geometry",
    [
        pool_geometry(2),
        pool_geometry(3, 2, 1),
        pool_geometry((2, 3), (3, 1)),
        pool_geometry((3, 2), (1, 3)),
    ],
    ids=str,
)
def test_number_of_threads_does_not_show(set_threads, geometry, layout):
    tensors = example((3, 16, 56, 64), geometry, torch.float32, layout)
    set_threads(1)
    alone = results(*tensors, geometry)
    for count in (2, 3, 5):
        set_threads(count)
        assert all(map(torch.equal, alone, results(*tensors, geometry)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_follow_pytorchs_number_of_threads(set_threads, count):
    set_threads(count)
    assert threads.parts_of(100, 10) == count
    ids = set()
    barrier = threading.Barrier(count, timeout=300)  # broken if the threads do not run together

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def function(block):
        barrier.wait()
        ids.add((threading.get_ident(), block))

    threads.run_together(function, 64, count, memory=None)
    assert len(ids) == count
    assert {block for _, block in ids} == {64}


def test_small_work_stays_in_its_thread(set_threads):
    set_threads(4)
    assert threads.parts_of(100, 60) == 1


def test_many_threads_may_call_at_once(set_threads):
    set_threads(2)
    geometry = pool_geometry(2)
    examples = [
        [random_numbers((2, 16, 64, 64), torch.float32, seed), torch.full((1, 1, 1, 1), 1.5)]
        for seed in range(8)
    ]
    expected = [backend.forward(*tensors, geometry) for tensors in examples]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            outputs = pool.map(lambda tensors: backend.forward(*tensors, geometry), examples)
            assert all(map(torch.equal, expected, outputs))


def _pool_in_a_worker(tensors, expected, outcome):
    # Compared by NumPy: of PyTorch's own operators, those that use threads hang after a fork.
    pooled = results(*tensors, pool_geometry(2))
    outcome.put(all(np.array_equal(a, b) for a, b in zip(expected, pooled, strict=True)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which this system lacks")
def test_forked_process_pools_with_threads_of_its_own(set_threads):
    set_threads(2)
    geometry = pool_geometry(2)
    tensors = example((2, 16, 64, 64), geometry, torch.float32, CONTIGUOUS)
    expected = results(*tensors, geometry)  # in this process, OpenMP's threads run now
    fork = multiprocessing.get_context("fork")
    outcome = fork.SimpleQueue()
    worker = fork.Process(target=_pool_in_a_worker, args=(tensors, expected, outcome), daemon=True)
    worker.start()
    worker.join(timeout=300)
    assert worker.exitcode == 0, "the forked process hangs or has failed"
    assert outcome.get()


AFTER_THE_MAIN_THREAD = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import torch
from gfgp_cupy.backends import numba as backend
from gfgp_cupy.backends.numba import threads
from gfgp_cupy.geometry import pool_geometry

def pool():
    return backend.forward(input, torch.zeros(1, 1, 1, 1), pool_geometry(2))

def pool_later():
    while takes_work():
        pass
    print(torch.equal(pool(), before))

def takes_work():
    try:
        return ThreadPoolExecutor(1).submit(int)
    except RuntimeError:
        return False

torch.set_num_threads(2)
threads._use_pool()
input = torch.arange(2.0**18).reshape(1, 16, 128, 128)
before = pool() if sys.argv[1] == "used" else torch.nn.functional.avg_pool2d(input, 2)
threading.Thread(target=pool_later).start()
"""


@pytest.mark.parametrize("used", ["used", "unused"])
def test_thread_that_outlives_the_main_one_pools(used):
    command = [sys.executable, "-c", AFTER_THE_MAIN_THREAD, used]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.stdout == "True\n", done.stderr


# ---------------------------------------------------------------- the cache on disk


@pytest.mark.slow
def test_second_process_compiles_nothing(tmp_path):
    run_warm(check_found_on_disk, (tmp_path, 0), count=1)
    run_warm(check_found_on_disk, (tmp_path, 1), count=1)


def check_found_on_disk(rank, cache, hits):
    """In a new process: each function that it calls is found on disk so many times, and none is
    compiled for a Python number."""
    cache_in(cache)
    compiled = Compilations()
    with install_listener("numba:compile", compiled):
        for kernel_size, stride in FAMILIES.values():
            input = torch.ones(1, 1, 4, 4, requires_grad=True)
            max_ent_pool2d(input, 1.0, kernel_size, stride).sum().backward()
    for name in FAMILIES:
        family = family_of(name, MAX_ENT.cpu, MAX_ENT.spread)
        codes = [function("float32").code for function in (family.forward, family.backward)]
        assert [code.cache_hits for code in codes] == [hits, hits], name
    assert (len(compiled.functions) > 0) == (hits == 0)
    assert not [each for each in compiled.functions if "Literal" in each]


FAMILIES = {"tiles": (2, 2), "overlapping": (3, 2), "windows": (3, 1)}
"""A kernel size and a stride for each."""


class Compilations(Listener):
    """The functions that Numba compiles, and the types of their arguments."""

    def __init__(self):
        self.functions = []

    def on_start(self, event):
        self.functions.append(f"{event.data['dispatcher']} {event.data['args']}")

    def on_end(self, event):
        pass
