"""Global memory traffic of the kernels, counted load by load, against the least there can be.

What a block reads again, its first-level cache serves: of loads, the 32-byte sectors are counted
that a block touches, each once a block.

X and O are the bytes of the input and of the output. A forward pass reads X and writes O, a
backward pass reads X and O and writes X; where each gradient has a kernel of its own, both read X
and O. The fused layer's forward pass also writes the spread, O, of which its backward pass makes
λ's gradient (it reads 2 O) before it does the same.
"""

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import passes
from tests.support.cxx import needs_cxx

SLACK = 1.15

# The poolings of the benchmark (ResNet-50, VGG-16, DenseNet-169, ResNetP-50), with fewer samples,
# channels and rows, small planes with windows that overlap, and large windows: channels, height,
# width, kernel, stride, padding.
POOLINGS = {
    "64x224-2/2": (64, 16, 224, 2, 2, 0),
    "64x224-4/4": (64, 16, 224, 4, 4, 0),
    "32x112-3/2": (32, 112, 112, 3, 2, 1),
    "128x112-2/2": (128, 16, 112, 2, 2, 0),
    "256x56-2/2": (128, 16, 56, 2, 2, 0),
    "512x28-2/2": (128, 28, 28, 2, 2, 0),
    "2048x14-2/2": (128, 14, 14, 2, 2, 0),
    "128x14-3/2": (128, 14, 14, 3, 2, 1),
    "128x7-3/2": (128, 7, 7, 3, 2, 1),
    "16x56-7/2": (16, 56, 56, 7, 2, 3),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

pytestmark = [
    needs_cxx,
    pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]),
    pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS),
    pytest.mark.parametrize("case", POOLINGS.values(), ids=POOLINGS),
]


class Count:
    """Runs launches and adds up the bytes they move."""

    def __init__(self):
        self.bytes = 0

    def __call__(self, launch):
        traffic = run_launch(launch)
        self.bytes += traffic.sector_bytes + traffic.store_bytes


def example(case, layout, dtype):
    channels, height, width, *geometry = case
    # A few planes of a large contiguous map tell as much as many.
    channels = channels if layout is torch.channels_last or height < 112 else 8
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, height, width, generator=generator)
    lam = torch.rand(1, channels, 1, 1, generator=generator)
    return x.to(dtype).to(memory_format=layout), lam, pool_geometry(*geometry)


def size(tensor):
    return tensor.numel() * tensor.element_size()


def has_a_kernel_for_each_gradient(case, layout):
    return case[3] == 7 and layout is torch.contiguous_format


def test_operator_moves_little_more_than_its_tensors(case, layout, dtype):
    x, lam, geometry = example(case, layout, dtype)
    count = Count()
    output = passes.forward(x, lam, geometry, count)
    assert size(x) + size(output) <= count.bytes <= SLACK * (size(x) + size(output))

    count = Count()
    passes.backward(torch.ones_like(output), x, lam, geometry, (True, True), count)
    least = 2 * size(x) + size(output)
    if has_a_kernel_for_each_gradient(case, layout):
        least += size(x) + size(output)
    assert least <= count.bytes <= SLACK * least


def test_fused_layer_moves_little_more_than_its_tensors(case, layout, dtype):
    x, lam, geometry = example(case, layout, dtype)
    count = Count()
    output, spread = passes.forward_with_spread(x, lam, geometry, count)
    least = size(x) + 2 * size(output)
    assert least <= count.bytes <= SLACK * least

    grad_output = torch.ones_like(output)
    count = Count()
    passes.lam_backward(grad_output, spread, lam, count)
    assert 2 * size(output) <= count.bytes <= SLACK * 2 * size(output)

    passes.backward(
        grad_output, x, lam, geometry, (True, False), count, mean_grad=torch.ones_like(lam)
    )
    least = 2 * size(x) + 3 * size(output)
    assert least <= count.bytes <= SLACK * least


def test_input_and_its_gradient_are_accessed_16_bytes_at_a_time(case, layout, dtype):
    x, lam, geometry = example(case, layout, dtype)
    run = x.shape[1] if layout is torch.channels_last else x.shape[3]
    if run * x.element_size() % 16:
        pytest.skip("its rows do not divide into 16 bytes")
    if case[3] == 4 and layout is torch.channels_last and dtype is torch.bfloat16:
        pytest.skip("16 elements of 8 channels each would not fit into a thread's registers")
    if has_a_kernel_for_each_gradient(case, layout):
        pytest.skip("a thread has registers for one window a row, of which it owns 2 elements")

    def check(launch):
        traffic = run_launch(launch)
        tensors = [arg for arg in launch.args if isinstance(arg, torch.Tensor)]
        most = [0, 0]
        for tensor, moved in zip(tensors, traffic.per_argument, strict=True):
            # Other tensors may come an element at a time; that neighbours do it at once suffices.
            # So it does where a warp's threads stand side by side along the channels.
            wide = tensor.shape == x.shape
            width = (4 if "marching_channels" in launch.name else 16) if wide else 1
            width = max(width, tensor.element_size())
            most = [total + bytes / width for total, bytes in zip(most, moved, strict=True)]
        if "rows" in launch.name:  # of each row also the neighbours' columns, left and right
            most[0] *= 3
        # Strips of a plane may begin or end inside 16 bytes.
        assert traffic.loads <= 1.02 * most[0]
        assert traffic.stores <= 1.02 * most[1]

    output = passes.forward(x, lam, geometry, check)
    passes.backward(torch.ones_like(output), x, lam, geometry, (True, True), check)
