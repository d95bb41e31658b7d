"""What the benchmark compares: this project's pooling, its alternatives, and a copy.

Bytes are counted with X, the size of the input, and O, that of the output: the least that a pass
has to read and write, whoever computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shapes import Shape
from gfgp_cupy import GFGPMaxEntPool2d
from gfgp_cupy.functional import max_ent_pool2d

__all__ = [
    "AVG_POOL",
    "COMPILED",
    "COMPOSED",
    "COPY",
    "EAGER",
    "FUSED",
    "MAX_POOL",
    "OP",
    "Contender",
    "composition",
    "make_contenders",
]

OP, MAX_POOL, AVG_POOL, COPY = "max_ent_pool2d", "max_pool2d", "avg_pool2d", "copy"
FUSED, COMPOSED = "GFGP fused", "GFGP composed"
EAGER, COMPILED = "eager composition", "compiled composition"

INDEX_BYTES = 8
"""PyTorch's max pooling saves the place of each maximum as an int64."""


@dataclass(frozen=True)
class Contender:
    """One implementation, ready to be called on inputs of one shape.

    Attributes:
        forward: takes the input [N, C, H, W].
        parameters: tensors that get a gradient beside the input's.
        forward_bytes, backward_bytes: the least traffic of each pass; no ``backward_bytes`` for
            one that has no backward pass.
    """

    name: str
    forward: Callable[[Tensor], Tensor]
    parameters: tuple[Tensor, ...]
    forward_bytes: int
    backward_bytes: int | None


def make_contenders(
    shape: Shape, batch_size: int, dtype: torch.dtype, device: torch.device
) -> list[Contender]:
    """The contenders for one shape. λ is one number per sample and channel, with a gradient."""
    window = (shape.kernel_size, shape.stride, shape.padding)
    options = {"dtype": dtype, "device": device}
    samples = (batch_size, shape.channels, 1, 1)
    lam = torch.rand(samples, **options).requires_grad_()
    layer = GFGPMaxEntPool2d(shape.channels, *window, **options)
    head = tuple(layer.parameters())
    compiled = torch.compile(composition, fullgraph=True, dynamic=False)
    copied = torch.empty(batch_size * shape.input_elements, **options)

    def layer_composed(input: Tensor) -> Tensor:
        return max_ent_pool2d(input, layer.head(input.mean((2, 3), keepdim=True)), *window)

    def copy(input: Tensor) -> Tensor:
        return torch.as_strided(copied, input.shape, input.stride()).copy_(input.detach())

    x = batch_size * shape.input_elements * dtype.itemsize
    o = batch_size * shape.output_elements * dtype.itemsize
    indices = batch_size * shape.output_elements * INDEX_BYTES
    return [
        Contender(OP, lambda input: max_ent_pool2d(input, lam, *window), (lam,),
                  forward_bytes=x + o, backward_bytes=2 * x + o),
        # Its forward pass writes each window's spread too, so that its backward reads x once.
        Contender(FUSED, layer, head,
                  forward_bytes=2 * x + 2 * o, backward_bytes=2 * x + 3 * o),
        Contender(COMPOSED, layer_composed, head,
                  forward_bytes=2 * x + o, backward_bytes=6 * x + o),
        Contender(EAGER, lambda input: composition(input, lam, *window), (lam,),
                  forward_bytes=x + o, backward_bytes=2 * x + o),
        Contender(COMPILED, lambda input: compiled(input, lam, *window), (lam,),
                  forward_bytes=x + o, backward_bytes=2 * x + o),
        Contender(MAX_POOL, lambda input: F.max_pool2d(input, *window), (),
                  forward_bytes=x + o + indices, backward_bytes=x + o + indices),
        Contender(AVG_POOL, lambda input: F.avg_pool2d(input, *window), (),
                  forward_bytes=x + o, backward_bytes=x + o),
        Contender(COPY, copy, (), forward_bytes=2 * x, backward_bytes=None),
    ]  # fmt: skip


def composition(input: Tensor, lam: Tensor, kernel_size: int, stride: int, padding: int) -> Tensor:
    """Max-Ent pooling as one would write it in PyTorch, out of its own operators.

    Args:
        input: [N, C, H, W].
        lam: λ, [N, C, 1, 1].
    """
    samples, channels, height, width = input.shape
    out_h, out_w = ((size + 2 * padding - kernel_size) // stride + 1 for size in (height, width))
    taps = kernel_size * kernel_size
    windows = F.unfold(input, kernel_size, padding=padding, stride=stride)
    windows = windows.reshape(samples, channels, taps, out_h * out_w)
    scores = lam * windows
    if padding:
        ones = input.new_ones(1, 1, height, width)
        inside = F.unfold(ones, kernel_size, padding=padding, stride=stride)
        scores = scores.masked_fill(inside.reshape(1, 1, taps, -1) == 0, float("-inf"))
    weights = torch.softmax(scores, dim=2)
    return (weights * windows).sum(2).reshape(samples, channels, out_h, out_w)
