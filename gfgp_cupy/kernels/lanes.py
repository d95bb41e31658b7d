"""How ``lanes.cu`` shares out channels_last planes to threads, and how wide accesses are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["BLOCK", "Lanes", "aligned_elements", "inverse", "largest_power_of_two"]

BLOCK = 256

RUN_BYTES = 128
"""How much neighbouring threads read of one pixel. A line of the cache; with
more, a block would hold fewer windows of a small plane."""

MOST_WINDOWS = 4
"""Windows a thread, of a plane that is cut into chunks: enough to spread the
reading of λ, few enough to fill the GPU to the end."""

MOST_WINDOWS_UNCUT = 8
"""Windows a thread, of a plane that a block adds up alone: the chunks' sums would be one more
launch."""

ENOUGH_BLOCKS = 512
"""With fewer, planes are cut into more chunks."""


@dataclass(frozen=True)
class Lanes:
    """The deal of output-sized tensors of shape [N, C, oH, oW] to blocks of ``BLOCK`` threads.

    Attributes:
        vector: elements a thread takes at once.
        lanes: neighbouring threads, side by side along the channels.
        chunks: parts a plane is cut into, each of which a block adds up.
        most: windows of a chunk.
        channel_blocks: parts the channels are cut into.
        grid: number of blocks.
        reduction_elements: size of the shared memory in which a block adds up.
    """

    vector: int
    lanes: int
    chunks: int
    most: int
    channel_blocks: int
    grid: int
    reduction_elements: int

    @classmethod
    def of(cls, shape: tuple[int, ...], vector: int, element_size: int) -> Lanes:
        samples, channels, out_h, out_w = shape
        vectors, windows = channels // vector, out_h * out_w
        run = max(RUN_BYTES // (vector * element_size), 1)
        lanes = largest_power_of_two(min(vectors, run, 32))
        rows = BLOCK // lanes
        channel_blocks = -(-vectors // lanes)
        blocks = samples * channel_blocks
        chunks = 1
        if windows > MOST_WINDOWS_UNCUT * rows:
            chunks = -(-windows // (MOST_WINDOWS * rows))
        chunks = max(chunks, min(-(-ENOUGH_BLOCKS // blocks), -(-windows // rows)))
        most = -(-windows // (chunks * rows)) * rows
        chunks = -(-windows // most)
        return cls(
            vector, lanes, chunks=chunks, most=most, channel_blocks=channel_blocks,
            grid=blocks * chunks, reduction_elements=BLOCK // 32 * lanes * vector,
        )  # fmt: skip

    @property
    def threads(self) -> int:
        return BLOCK

    def shared_elements(self, sums: bool) -> int:
        """The size of a block's shared memory: two numbers of each channel, and where a block adds
        up λ's gradient, what that takes."""
        return 2 * self.lanes * self.vector + (self.reduction_elements if sums else 0)

    @property
    def sizes(self) -> tuple[int, ...]:
        """``DEAL`` of ``lanes.cu``."""
        return (
            self.most, self.chunks, inverse(self.chunks),
            self.channel_blocks, inverse(self.channel_blocks),
        )  # fmt: skip

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros of ``lanes.cu``."""
        return (f"VECTOR={self.vector}", f"LANES={self.lanes}")


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


def inverse(divisor: int) -> int:
    """What ``divide`` of ``divide.cu`` multiplies and shifts by in place of dividing.

    With shift = ⌊log2 divisor⌋ and multiplier = ⌊(2^(32 + shift) − 1) / divisor⌋, below 2^32,
    ⌊(n + 1) multiplier / 2^(32 + shift)⌋ = ⌊n / divisor⌋ for 0 ≤ n < 2^31.
    """
    divisor = min(divisor, 2**31)  # with more the quotient is 0, too, and a shift would be too far
    shift = divisor.bit_length() - 1
    return (2 ** (32 + shift) - 1) // divisor + (shift << 32)
