"""What is particular to the backend for CPUs: two ways to pool, threads, and a cache on disk.

What it computes is tested with the other backends', in test_pooling.py and test_functional.py.
"""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from gfgp_cupy.backends import numba as backend
from gfgp_cupy.backends import torch as reference
from gfgp_cupy.backends.numba import threads as thread_pool
from gfgp_cupy.backends.numba import tiles, windows
from gfgp_cupy.backends.numba.compile import cached
from gfgp_cupy.backends.numba.plan import VECTOR_BYTES, plan
from gfgp_cupy.backends.numba.simd import exp2, lanes_for, load, pointer_to, store
from gfgp_cupy.geometry import pool_geometry
from tests.support.paths import REPOSITORY
from tests.support.random_numbers import random_numbers

CONTIGUOUS, CHANNELS_LAST = LAYOUTS = torch.contiguous_format, torch.channels_last

each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@pytest.fixture
def threads():
    """Sets PyTorch's number of threads, and sets it back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def example(shape, geometry, dtype, layout, lam_in_plane=False):
    """Input, λ and the output's gradient."""
    output_shape = (*shape[:2], *geometry.output_size(*shape[2:]))
    lam_shape = output_shape if lam_in_plane else (*shape[:2], 1, 1)
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
    assert plan(input, lam, geometry, layout).tiled
    assert not plan(longer, lam, geometry, layout).tiled
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
    assert not plan(input, lam, geometry, CONTIGUOUS).tiled


def in_memory_order(tensor, layout) -> np.ndarray:
    """The elements of ``tensor`` as they lie in memory in ``layout``."""
    dense = tensor.contiguous(memory_format=layout)
    return dense.as_strided((dense.numel(),), (1,)).numpy()


class Guarded:
    """Arrays for compiled functions, in memory whose other elements must stay as they are."""

    MARGIN = 64

    def __init__(self):
        self.memories = []

    def array(self, values: np.ndarray) -> np.ndarray:
        """A copy of ``values`` between NaNs."""
        margin = np.full(self.MARGIN, np.nan, values.dtype)
        memory = np.concatenate([margin, values, margin])
        self.memories.append(memory)
        return memory[self.MARGIN : -self.MARGIN]

    def untouched(self) -> bool:
        return all(
            np.isnan(memory[: self.MARGIN]).all() and np.isnan(memory[-self.MARGIN :]).all()
            for memory in self.memories
        )


@each_layout
@pytest.mark.parametrize("functions", [tiles, windows], ids=["tiles", "windows"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (1, 3, 4, 30), (1, 17, 2, 34)], ids=str)
def test_nothing_is_written_outside_the_tensors(functions, shape, layout):
    geometry = pool_geometry(2)
    input, lam, grad_output = example(shape, geometry, torch.float32, layout, lam_in_plane=True)
    how = plan(input, lam, geometry, layout)
    guarded = Guarded()

    def array(tensor):
        return guarded.array(in_memory_order(tensor, layout))

    sizes = (how.sizes,)
    if functions is windows:
        scratch = np.zeros(how.rows.size, np.float32)
        sizes = (how.sizes, how.rows, how.columns, scratch)
    output, spread, grad_lam = (array(torch.zeros_like(grad_output)) for _ in range(3))
    functions.forward(array(input), array(lam), output, spread, *sizes, 0, how.output_rows)
    mean_grad, grad_input = array(torch.zeros(*shape[:2], 1, 1)), array(torch.zeros(shape))
    functions.backward(
        array(grad_output),
        array(input),
        array(lam),
        mean_grad,
        grad_input,
        grad_lam,
        *sizes,
        0,
        how.output_rows,
    )
    assert guarded.untouched()
    expected = reference.forward(input, lam, geometry)
    expected = in_memory_order(expected, layout)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the exponential


@cached
def exponentials(x, halvings, powers):
    for i in range(0, x.size, lanes_for(pointer_to(x))):
        store(pointer_to(powers), i, exp2(load(pointer_to(x), i), halvings))


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


# ---------------------------------------------------------------- threads


@each_layout
@pytest.mark.parametrize("geometry", [pool_geometry(2), pool_geometry(3, 2, 1)], ids=str)
def test_number_of_threads_does_not_show(threads, geometry, layout):
    tensors = example((3, 16, 56, 64), geometry, torch.float32, layout)
    threads(1)
    alone = results(*tensors, geometry)
    for count in (2, 3, 5):
        threads(count)
        assert all(map(torch.equal, alone, results(*tensors, geometry)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_follow_pytorchs_number_of_threads(threads, count):
    threads(count)
    parts, ids = [], set()
    barrier = threading.Barrier(count, timeout=300)  # broken if the parts do not run together

    def run(start, stop):
        barrier.wait()
        parts.append((start, stop))
        ids.add(threading.get_ident())

    thread_pool.run_over(100, 10, run)
    assert len(ids) == len(parts) == count
    starts, stops = zip(*sorted(parts), strict=True)
    assert (starts[0], stops[-1]) == (0, 100)
    assert starts[1:] == stops[:-1]


def test_small_work_stays_in_its_thread(threads):
    threads(4)
    parts = []
    thread_pool.run_over(100, 60, lambda start, stop: parts.append((start, stop)))
    assert parts == [(0, 100)]


def test_error_in_any_part_is_raised_when_all_have_ended(threads):
    threads(2)
    ended = []

    def run(start, stop):
        if start > 0:
            raise ZeroDivisionError("in the second part")
        ended.append(start)

    with pytest.raises(ZeroDivisionError, match="in the second part"):
        thread_pool.run_over(2, 1, run)
    assert ended == [0]


def test_many_threads_may_call_at_once(threads):
    threads(2)
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
def test_forked_process_pools_with_threads_of_its_own(threads):
    threads(2)
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


# ---------------------------------------------------------------- the cache on disk


def compiled_in_a_new_process(cache: Path) -> str:
    """Of each function that a new process calls: how many it loads, how many it compiles."""
    program = """
    import torch
    from gfgp_cupy.functional import max_ent_pool2d
    from gfgp_cupy.backends.numba import tiles

    max_ent_pool2d(torch.ones(1, 1, 4, 4, requires_grad=True), 1.0, 2).sum().backward()
    for function in (tiles.forward, tiles.backward):
        print(sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values()))
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_second_process_compiles_nothing(tmp_path):
    assert compiled_in_a_new_process(tmp_path) == "0 1\n0 1\n"
    assert compiled_in_a_new_process(tmp_path) == "1 0\n1 0\n"
