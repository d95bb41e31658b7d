"""Windows of very many elements on the backend for CPUs: memory, values, sums, threads."""

import math

import pytest
import torch

from gfgp_cupy import poolings  # noqa: F401  they register their window functions
from gfgp_cupy.backends import numba as backend
from gfgp_cupy.backends.numba.block import OF_EACH_ROW, OF_EACH_WINDOW, block_of
from gfgp_cupy.backends.numba.loading import family_of
from gfgp_cupy.backends.numba.plan import plan
from gfgp_cupy.backends.numba.whole_planes import is_better_by_channels
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.max_ent import MAX_ENT
from gfgp_cupy.ops import OPERATORS
from tests.gfgp_cupy.backends.test_numba_functions import assert_close, exact_results, results
from tests.support.random_numbers import random_numbers

FUNCTIONS = {
    name: of.function
    for (name, axes), of in OPERATORS.items()
    if axes == 2 and of.function.cpu is not None
}
SIMPLE = {name: FUNCTIONS[name] for name in ("max_ent", "gaussian", "mixed")}

SECOND_LEVEL_CACHE = 256 * 1024
"""A small one: bytes."""

each_layout = pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])


def laid_out(tensor, channels_last):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    kept = formats[tensor.dim()] if channels_last else torch.contiguous_format
    return tensor.contiguous(memory_format=kept)


def example(shape, geometry, channels_last=False, dtype=torch.float32, lam_axes=()):
    """Input above 0, θ, the output's gradient and the mean's; θ varies along ``lam_axes``."""
    output_shape = (*shape[:2], *geometry.output_size(*shape[2:]))
    sizes = [size if axis in lam_axes else 1 for axis, size in enumerate(output_shape[2:], 2)]
    computed = torch.float64 if dtype is torch.float64 else torch.float32
    return (
        laid_out(random_numbers(shape, dtype, 0).abs().add(0.1), channels_last),
        1 + 0.9 * random_numbers((*shape[:2], *sizes), computed, 1).tanh(),
        laid_out(random_numbers(output_shape, dtype, 2), channels_last),
        random_numbers((*shape[:2], *(1,) * len(sizes)), computed, 3),
    )


# ---------------------------------------------------------------- memory


@each_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        ((128, 128, 128), pool_geometry(128, axes=3)),
        ((128, 128, 128), pool_geometry(32, axes=3)),
        ((64, 64, 64), pool_geometry(33, 1, 16, axes=3)),
        ((512, 512), pool_geometry(512)),
        ((512, 512), pool_geometry(64)),
        ((1, 10**6), pool_geometry((1, 10**6))),
        ((40, 40), pool_geometry(31, 1, 15)),
        ((2, 40, 40), pool_geometry((2, 31, 9), (1, 3, 2), (1, 15, 4), True, axes=3)),
    ],
    ids=str,
)
def test_scratch_does_not_grow_with_the_window(size, geometry, dtype, channels_last):
    for channels in (1, 3, 64):
        # Without memory: only the sizes and strides are asked for.
        input = torch.empty(2, channels, *size, dtype=dtype, device="meta")
        input = laid_out(input, channels_last)
        lam = torch.empty(1, 1, *(1,) * len(size), dtype=dtype, device="meta")
        how = plan(input, lam, geometry)
        assert how.scratch * dtype.itemsize <= SECOND_LEVEL_CACHE


@pytest.mark.parametrize(
    ("size", "geometry", "module"),
    [
        ((4000, 64), pool_geometry((4000, 1)), "windows"),
        ((1200, 64), pool_geometry((150, 8)), "windows"),
        ((16, 64, 64), pool_geometry((16, 64, 1), axes=3), "windows"),
        ((129, 129), pool_geometry(33, 16), "long_windows"),
        ((4000, 4), pool_geometry((2000, 4)), "long_windows"),
    ],
    ids=str,
)
def test_contiguous_windows_are_pooled_where_they_lie_if_their_rows_fill_vectors(
    size, geometry, module
):
    input = torch.empty(1, 4, *size, device="meta")
    lam = torch.empty(1, 1, *(1,) * len(size), device="meta")
    assert plan(input, lam, geometry).module == module
    assert plan(laid_out(input, True), lam, geometry).module == "long_windows"


@pytest.mark.parametrize("shape", [(8, 3, 10, 11), (2, 1, 512, 512), (2, 8, 3, 5, 7)], ids=str)
def test_whole_planes_are_pooled_where_they_lie(shape):
    geometry = pool_geometry(shape[2:], axes=len(shape) - 2)
    input, lam, *_ = example(shape, geometry)
    assert not is_better_by_channels(input, geometry)
    how = plan(input, lam, geometry)
    assert how.module == "long_windows"
    assert how.scratch <= 64


class Guarded:
    """Tensors for compiled functions, between elements that must stay NaN."""

    MARGIN = 64

    def __init__(self):
        self.memories = []

    def tensor(self, values, channels_last):
        dense = laid_out(values, channels_last)
        margin = torch.full((self.MARGIN,), torch.nan)
        memory = torch.cat([margin, dense.as_strided((dense.numel(),), (1,)), margin])
        self.memories.append(memory)
        return memory[self.MARGIN : -self.MARGIN]

    def untouched(self):
        margins = [(one[: self.MARGIN], one[-self.MARGIN :]) for one in self.memories]
        return all(margin.isnan().all() for pair in margins for margin in pair)


@each_layout
@pytest.mark.parametrize("lam_axes", [(), (2, 3)], ids=["lam_of_planes", "lam_of_windows"])
@pytest.mark.parametrize(
    ("shape", "geometry"),
    [
        ((2, 3, 40, 43), pool_geometry((40, 43))),
        ((1, 17, 50, 45), pool_geometry(40, 5, 20, ceil_mode=True)),
    ],
    ids=str,
)
def test_nothing_is_written_outside_the_tensors(shape, geometry, lam_axes, channels_last):
    input, lam, grad_output, mean_grad = example(shape, geometry, channels_last, lam_axes=lam_axes)
    how = plan(input, lam, geometry)
    assert how.module == "long_windows"
    functions = family_of(how.module, MAX_ENT.cpu, MAX_ENT.spread)
    of_windows = lam.shape[-1] > 1
    guarded = Guarded()

    def run(function, *values, lam_parts=0, together=1):
        tensors = [guarded.tensor(value, channels_last) for value in values]
        addresses = [tensor.data_ptr() for tensor in tensors]
        scratch = guarded.tensor(torch.full((1, 1, 1, how.scratch), torch.nan), False)
        block = block_of(how, addresses, 1, scratch.data_ptr(), lam_parts, together)
        function("float32").call(block.buffer_info()[0])
        return tensors

    nothing = torch.full_like(grad_output, torch.nan)
    _, _, *written = run(functions.forward, input, lam, nothing, nothing)
    parts = nothing if of_windows else nothing[..., :1]
    values = grad_output, input, lam, mean_grad, torch.full_like(input, torch.nan), parts
    lam_parts = OF_EACH_WINDOW if of_windows else OF_EACH_ROW
    together = how.rows_together
    *_, grad_input, grad_lam = run(
        functions.backward, *values, lam_parts=lam_parts, together=together
    )
    assert guarded.untouched()
    assert not any(tensor.isnan().any() for tensor in (*written, grad_input, grad_lam))


# ---------------------------------------------------------------- values

GLOBAL = ((2, 3, 40, 50), (1, 1, 9, 17, 33), (2, 4, 16, 16, 16), (1, 18, 7, 7), (2, 25, 30, 31))
PARTIAL = (
    ((1, 3, 100, 90), pool_geometry(40)),
    ((1, 2, 44, 45), pool_geometry(40, 2, 20, ceil_mode=True)),
    ((1, 18, 50, 60), pool_geometry((50, 33), (1, 5), (0, 16))),
    ((2, 2, 3, 1, 700), pool_geometry((2, 1, 600), (1, 1, 30), (1, 0, 300), axes=3)),
    ((1, 2, 13, 14, 40), pool_geometry((9, 6, 25), (4, 3, 6), (4, 3, 12), True, axes=3)),
    ((1, 2, 30, 31, 60), pool_geometry((10, 11, 25), (12, 13, 28), axes=3)),
    ((1, 2, 11, 12, 50), pool_geometry((10, 12, 25), (1, 3, 7), axes=3)),
)


@each_layout
@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("shape", GLOBAL, ids=str)
def test_global_pooling_is_its_formula(shape, name, channels_last):
    function = FUNCTIONS[name]
    geometry = pool_geometry(shape[2:], axes=len(shape) - 2)
    tensors = example(shape, geometry, channels_last)
    actual = results(function, geometry, *tensors)
    assert_close(actual, exact_results(function, geometry, *tensors))
    assert actual[2].stride() == tensors[0].stride()


@pytest.mark.slow
@each_layout
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - set(SIMPLE)))
def test_global_pooling_by_other_functions_is_its_formula(name, channels_last):
    geometry = pool_geometry((40, 50))
    tensors = example((2, 3, 40, 50), geometry, channels_last)
    actual = results(FUNCTIONS[name], geometry, *tensors)
    assert_close(actual, exact_results(FUNCTIONS[name], geometry, *tensors), 5e-6)


@each_layout
@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize(("shape", "geometry"), PARTIAL, ids=str)
def test_large_windows_are_their_formula(shape, geometry, name, channels_last):
    tensors = example(shape, geometry, channels_last)
    assert plan(*tensors[:2], geometry).module == "long_windows"
    actual = results(FUNCTIONS[name], geometry, *tensors)
    # An element of hundreds of windows gets as many gradients.
    assert_close(actual, exact_results(FUNCTIONS[name], geometry, *tensors), 5e-6)


@each_layout
@pytest.mark.parametrize("lam_axes", [(2,), (3,), (4,), (2, 3, 4)], ids=str)
def test_a_parameter_that_varies_along_an_axis(lam_axes, channels_last):
    shape, geometry = PARTIAL[4]
    tensors = example(shape, geometry, channels_last, lam_axes=lam_axes)
    actual = results(MAX_ENT, geometry, *tensors)
    assert_close(actual, exact_results(MAX_ENT, geometry, *tensors))


@pytest.mark.slow
@each_layout
@pytest.mark.parametrize("name", SIMPLE)
def test_float64_keeps_its_digits(name, channels_last):
    geometry = pool_geometry((40, 50))
    tensors = example((2, 3, 40, 50), geometry, channels_last, torch.float64)
    actual = results(FUNCTIONS[name], geometry, *tensors)
    assert_close(actual, exact_results(FUNCTIONS[name], geometry, *tensors), 1e-13)


@each_layout
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype, channels_last):
    geometry = pool_geometry((40, 50))
    tensors = example((2, 3, 40, 50), geometry, channels_last, dtype)
    actual = results(MAX_ENT, geometry, *tensors)
    assert [one.dtype for one in actual] == [dtype, torch.float32, dtype, torch.float32]
    expected = exact_results(MAX_ENT, geometry, *tensors)
    assert_close(actual[:3], expected[:3], 2 * torch.finfo(dtype).eps)
    assert_close(actual[3:], expected[3:])


@each_layout
@pytest.mark.parametrize("lam", [0.0, 1.0, -3.0])
def test_sums_over_very_many_elements_keep_their_digits(lam, channels_last):
    """A sum in one level would lose three digits of two million elements."""
    geometry = pool_geometry(128, axes=3)
    channels = 2 if channels_last else 1
    input, _, grad_output, mean_grad = example((1, channels, 128, 128, 128), geometry)
    input = laid_out(1000 + input, channels_last)
    tensors = input, torch.full((1, input.shape[1], 1, 1, 1), lam), grad_output, mean_grad
    actual = results(MAX_ENT, geometry, *tensors)
    exact = exact_results(MAX_ENT, geometry, *tensors)
    assert_close(actual[:1], exact[:1], 6e-8)
    # The mean's gradient is many times an element's share of the output's.
    alone = backend.backward(tensors[2], *tensors[:2], geometry, (True, False))[0]
    assert_close([actual[1], alone, actual[3]], [exact[1], exact[2] - mean_grad, exact[3]], 1e-5)


@each_layout
@pytest.mark.parametrize("lam", [-2.0, 0.0, 1.0, 100.0])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_windows_of_not_finite_elements_are_nan(odd, lam, channels_last):
    geometry = pool_geometry(40, 4)
    input, _, grad_output, mean_grad = example((1, 2, 48, 48), geometry, channels_last)
    input[0, 0, 2, 3] = odd
    theta = torch.full((1, 2, 1, 1), lam)
    output, _, grad_input, grad_theta = results(
        MAX_ENT, geometry, input, theta, grad_output, mean_grad
    )
    has_it = torch.zeros_like(output, dtype=torch.bool)
    has_it[0, 0, 0, 0] = True
    assert torch.equal(output.isnan(), has_it)
    assert torch.equal(grad_input.isnan().flatten(2).any(2), torch.tensor([[True, False]]))
    assert torch.equal(grad_theta.isnan().flatten(), torch.tensor([True, False]))


@each_layout
def test_large_elements_and_large_lam(channels_last):
    """The weights are relative to the largest element, and no sum overflows."""
    geometry = pool_geometry((40, 50))
    input, theta, grad_output, mean_grad = example((2, 3, 40, 50), geometry, channels_last)
    for scale, lam in ((1e36, 1.0), (1e36, 1e-36), (1.0, 1e30), (1.0, -1e30)):
        tensors = scale * input, 0 * theta + lam, grad_output, mean_grad
        output = backend.forward(tensors[0], tensors[1], geometry)
        exact = MAX_ENT.compose(tensors[0].double(), tensors[1].double(), geometry)
        assert_close([output], [exact])


# ---------------------------------------------------------------- threads


@each_layout
@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize(
    ("shape", "geometry"),
    [
        ((2, 3, 200, 100), pool_geometry((200, 100))),
        ((2, 2, 99, 99), pool_geometry(40, 7, 20)),
        *PARTIAL[4:],
    ],
    ids=str,
)
def test_number_of_threads_does_not_show(shape, geometry, name, channels_last):
    tensors = example(shape, geometry, channels_last)
    threads, of_counts = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            of_counts.append(results(FUNCTIONS[name], geometry, *tensors))
    finally:
        torch.set_num_threads(threads)
    for other in of_counts[1:]:
        assert all(map(torch.equal, of_counts[0], other))
