"""How ``lanes.cu`` shares out planes to threads, and how wide their memory accesses are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["BLOCK", "Lanes", "aligned_elements", "largest_power_of_two"]

BLOCK = 256

WINDOWS_PER_THREAD = 8
"""In channels_last: enough to spread the reading of λ, few enough to fill the GPU."""


@dataclass(frozen=True)
class Lanes:
    """The deal of output-sized tensors of shape [N, C, oH, oW] to blocks of ``BLOCK`` threads.

    Attributes:
        vector: elements a thread takes at once.
        lanes: neighbouring threads that share a plane, or stand side by side along the channels.
        chunks: parts a plane is cut into, each of which a block adds up.
        grid: number of blocks.
        reduction_elements: size of the shared memory in which a block adds up.
    """

    vector: int
    lanes: int
    chunks: int
    grid: int
    reduction_elements: int

    @classmethod
    def of(cls, shape: tuple[int, int, int, int], channels_last: bool, vector: int) -> Lanes:
        samples, channels, out_h, out_w = shape
        if channels_last:
            vectors = channels // vector
            lanes = largest_power_of_two(min(vectors, 32))
            chunks = -(-out_h * out_w // (BLOCK // lanes * WINDOWS_PER_THREAD))
            grid = samples * -(-vectors // lanes) * chunks
            return cls(vector, lanes, chunks=chunks, grid=grid, reduction_elements=BLOCK * vector)
        groups = out_h * out_w // vector
        # About four rounds a lane, on whole warps where the plane is large enough for one.
        lanes = largest_power_of_two(min(max(groups // 4, min(groups, 32)), BLOCK))
        grid = -(-samples * channels * lanes // BLOCK)
        return cls(vector, lanes, chunks=1, grid=grid, reduction_elements=BLOCK // 32)

    def shared_elements(self, sums: bool) -> int:
        """The size of a block's shared memory where it adds up λ's gradient, or does not."""
        return self.reduction_elements if sums else 0

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros of ``lanes.cu``, but CHANNELS_LAST."""
        return (
            f"VECTOR={self.vector}",
            f"LANES={self.lanes}",
            f"WINDOWS_PER_THREAD={WINDOWS_PER_THREAD}",
        )


def aligned_elements(tensor: Tensor, *others: Tensor | None) -> int:
    """How many elements one access of at most 16 bytes may hold, by the tensors' addresses.

    All have elements of one size.
    """
    bits = 16 | tensor.data_ptr()
    for other in others:
        if other is not None:
            bits |= other.data_ptr()
    return (bits & -bits) // tensor.element_size()


def largest_power_of_two(limit: int, dividing: int = 0) -> int:
    """The largest power of two up to ``limit`` that divides ``dividing``."""
    power = 1
    while 2 * power <= limit and dividing % (2 * power) == 0:
        power *= 2
    return power
