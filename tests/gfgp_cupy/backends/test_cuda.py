"""What only a GPU shows: streams, devices, graphs, no waiting, and sizes past 2^31 elements."""

import copy

import pytest
import torch

from gfgp_cupy import GFGPGaussianPool2d, GFGPMaxEntPool2d, use_backend
from gfgp_cupy.functional import adaptive_windows, max_ent_pool2d
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.norms import LayerNorm2d
from tests.support import slow_loops
from tests.support.gpu_memory import GIB, claim_gpu_memory
from tests.support.implementations import BACKENDS, needs_cuda
from tests.support.memory_layouts import arranged
from tests.support.random_numbers import random_numbers
from tests.support.rounding import assert_rounding_only

pytestmark = needs_cuda

A_WHILE = 500_000_000
"""Clock cycles that a stream is kept busy: some tenths of a second."""

each_backend = pytest.mark.parametrize(
    "backend", [backend.name for backend in BACKENDS if backend.device == "cuda"]
)
WINDOWS = {
    "disjoint": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "1x1": {"kernel_size": 1},
}
WINDOWS_OF_SIZES = {
    "of a size that does not divide": {"kernel_size": adaptive_windows(5)},
    "of more than there is": {"kernel_size": adaptive_windows(150)},
}
each_window = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
any_window = pytest.mark.parametrize(
    "window", [*WINDOWS.values(), *WINDOWS_OF_SIZES.values()], ids=[*WINDOWS, *WINDOWS_OF_SIZES]
)
each_layout = pytest.mark.parametrize("layout", ["contiguous", "channels_last"])


def tensors(device="cuda", shape=(2, 8, 16, 16), layout="contiguous"):
    input = arranged(random_numbers(shape, torch.float32, 0), layout).to(device)
    lam = random_numbers((*shape[:2], 1, 1), torch.float32, 1).to(device)
    return input.requires_grad_(), lam.requires_grad_()


def run(backend, input, lam, window):
    """The output, and the gradients of the sum of its squares."""
    with use_backend(backend):
        output = max_ent_pool2d(input, lam, **window)
    return output.detach(), *torch.autograd.grad(output.square().sum(), (input, lam))


# ---------------------------------------------------------------- streams


@each_backend
@any_window
def test_runs_on_the_current_stream(backend, window):
    input, lam = tensors()
    expected = run(backend, input, lam, window)  # and compiles the kernels
    stream = torch.cuda.Stream()
    late = torch.zeros_like(input).requires_grad_()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # On another stream, the kernels would run before the numbers arrive.
        torch.cuda._sleep(A_WHILE)
        with torch.no_grad():
            late.copy_(input)
        actual = [tensor.clone() for tensor in run(backend, late, lam, window)]
    stream.synchronize()
    assert all(map(torch.equal, actual, expected))


@pytest.mark.whole_gpu  # the host has to be done before the stream, however much else is run
@each_backend
@any_window
def test_does_not_wait_for_the_gpu(backend, window):
    input, lam = tensors()
    run(backend, input, lam, window)
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(A_WHILE)
        run(backend, input, lam, window)
        still_busy = not torch.cuda.current_stream().query()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert still_busy


@each_backend
@any_window
@each_layout
def test_graph_of_captured_kernels_can_be_replayed(backend, window, layout):
    input, lam = tensors(layout=layout)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(backend, input, lam, window)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(backend, input, lam, window)
    for seed in (7, 8):
        with torch.no_grad():
            input.copy_(random_numbers(input.shape, input.dtype, seed))
            lam.copy_(random_numbers(lam.shape, lam.dtype, seed + 10))
        graph.replay()
        expected = run(backend, input, lam, window)
        torch.testing.assert_close(captured, expected)


@each_backend
@pytest.mark.parametrize("kind", [GFGPMaxEntPool2d, GFGPGaussianPool2d])
def test_layer_can_be_captured_in_a_graph(backend, kind):
    layer = kind(8, 3, 2, 1, device="cuda").eval()
    # A layer of its own: where a graph of autograd still holds a parameter, that parameter's
    # gradient belongs to the stream of that graph, which a capture may not touch.
    eager = copy.deepcopy(layer)
    input, _ = tensors()
    with use_backend(backend):
        expected = eager(input)
        graphed = torch.cuda.make_graphed_callables(
            layer,
            (input.detach().requires_grad_(),),
            allow_unused_input=True,  # without noise, what predicts its size has no gradient
        )
        output = graphed(input)
    torch.testing.assert_close(output, expected)
    (gradient,) = torch.autograd.grad(output.sum(), input)
    (wanted,) = torch.autograd.grad(expected.sum(), input)
    torch.testing.assert_close(gradient, wanted)


@each_backend
@pytest.mark.parametrize("stochasticity", ["CN", "HWCN"])
def test_captured_layer_draws_new_noise_at_each_replay(backend, stochasticity):
    layer = GFGPGaussianPool2d(
        8, 2, stochasticity=stochasticity, norm_layer=LayerNorm2d, device="cuda"
    )
    input, _ = tensors()
    with use_backend(backend), torch.no_grad():
        layer(input)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = layer(input)
        outputs = []
        for seed in (0, 0, 1):
            torch.cuda.manual_seed(seed)
            graph.replay()
            outputs.append(captured.clone())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


# ---------------------------------------------------------------- devices


@each_backend
@each_window
@pytest.mark.gpu(2)
def test_runs_on_the_device_of_the_tensor(backend, window):
    torch.cuda.set_device(0)
    expected = run(backend, *tensors("cuda:0"), window)
    actual = run(backend, *tensors("cuda:1"), window)
    assert torch.cuda.current_device() == 0
    assert all(tensor.device == torch.device("cuda:1") for tensor in actual)
    torch.testing.assert_close([tensor.to("cuda:0") for tensor in actual], list(expected))


@each_backend
def test_tensors_on_different_devices_are_refused(backend):
    input, lam = tensors()
    with use_backend(backend), pytest.raises(ValueError, match=r"input.*cuda:0.*lam.*cpu"):
        max_ent_pool2d(input, lam.cpu(), 2)


# ---------------------------------------------------------------- repeatability


@each_backend
@any_window
@each_layout
def test_runs_give_the_same_bits(backend, window, layout):
    input, lam = tensors(shape=(16, 64, 56, 56), layout=layout)
    shared = lam[:1, :1].detach().requires_grad_()
    first = run(backend, input, lam, window), run(backend, input, shared, window)
    for _ in range(5):
        again = run(backend, input, lam, window), run(backend, input, shared, window)
        for expected, actual in zip(first, again, strict=True):
            assert all(map(torch.equal, expected, actual))


# ---------------------------------------------------------------- sizes


@each_backend
@each_window
@each_layout
@pytest.mark.parametrize("shape", [(70_000, 3, 4, 4), (3, 70_000, 4, 4)], ids=str)
def test_more_samples_or_channels_than_a_grid_axis_holds(backend, window, layout, shape):
    input, lam = tensors(shape=shape, layout=layout)
    output, grad_input, grad_lam = run(backend, input, lam, window)
    geometry = pool_geometry(**window)
    assert_rounding_only(output, slow_loops.max_ent_pool2d(input, lam, geometry), torch.float32)
    # The gradient of the sum of squares.
    exact = slow_loops.max_ent_pool2d_gradients(2 * output, input, lam, geometry)
    assert_rounding_only(grad_input, exact[0], torch.float32)
    assert_rounding_only(grad_lam, exact[1], torch.float32)


@pytest.mark.whole_gpu
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 1, 46_344, 46_344), "contiguous"),
        ((1, 8, 16_386, 16_386), "channels_last"),
        ((540_000_000, 1, 2, 2), "contiguous"),
    ],
    ids=str,
)
@each_window
def test_more_than_2_31_elements(shape, layout, window):
    assert torch.Size(shape).numel() > 2**31
    claim_gpu_memory(60 * GIB)
    input = arranged(torch.empty(shape, dtype=torch.float16, device="cuda"), layout)
    input = input.normal_(generator=torch.Generator("cuda").manual_seed(0)).requires_grad_()
    lam = torch.full((1, 1, 1, 1), 0.7, device="cuda", requires_grad=True)

    def pool(input):
        with use_backend("cupy"):
            output = max_ent_pool2d(input, lam, **window)
        return output.detach(), *torch.autograd.grad(output, (input, lam), torch.ones_like(output))

    output, grad_input, grad_lam = pool(input)
    assert grad_lam.isfinite().all()
    # Parts at both ends give the same, away from where they were cut off.
    axis, length = (0, 400) if shape[0] > 1 else (2, 400)
    for first in (True, False):
        start = 0 if first else shape[axis] - length
        part = input.detach().narrow(axis, start, length).requires_grad_()
        for whole, other in zip((output, grad_input), pool(part), strict=False):
            kept = other.shape[axis] - 4
            ends = [
                tensor.narrow(axis, 0 if first else tensor.shape[axis] - kept, kept)
                for tensor in (whole, other)
            ]
            torch.testing.assert_close(*ends)
