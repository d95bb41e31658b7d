"""How ``planes.cu`` shares out contiguous planes of windows that tile them."""

from __future__ import annotations

from dataclasses import dataclass

from .lanes import BLOCK, inverse

__all__ = ["Planes"]

BYTES_AHEAD = 64
"""Of the input, that a thread asks for before it computes: enough to keep the memory busy."""

MOST_ITEMS = 4

ROUNDS = 4
"""After so many a block ends, and leaves the rest of a large plane to others: with fewer and longer
blocks, more of the GPU is idle while the last ones run."""


@dataclass(frozen=True)
class Planes:
    """The deal of planes to blocks of ``BLOCK`` threads.

    Attributes:
        vector: windows of a group, which a thread takes at once.
        items: groups that a thread reads before it computes.
        whole: whether blocks own whole planes.
        share: planes a block, or chunks (that blocks own) a plane.
        most: groups a block.
        groups: groups a plane.
        groups_w: groups a row.
        planes: number of planes.
    """

    vector: int
    items: int
    whole: bool
    share: int
    most: int
    groups: int
    groups_w: int
    planes: int

    @classmethod
    def of(cls, shape: tuple[int, int, int, int], vector: int, window_bytes: int) -> Planes:
        """The deal of output-sized tensors of ``shape``, whose windows have so many bytes each."""
        samples, channels, out_h, out_w = shape
        items = min(max(BYTES_AHEAD // (vector * window_bytes), 1), MOST_ITEMS)
        groups_w = out_w // vector
        groups = out_h * groups_w
        turns = BLOCK * items
        whole = 2 * groups <= turns
        if whole:
            share = turns // groups
            most = share * groups
        else:
            chunks = -(-groups // (turns * ROUNDS))
            most = -(-groups // (32 * chunks)) * 32
            share = -(-groups // most)
        return cls(vector, items, whole, share, most, groups, groups_w, samples * channels)

    @property
    def chunks(self) -> int:
        """In how many parts a plane is added up."""
        return 1 if self.whole else self.share

    @property
    def grid(self) -> int:
        return -(-self.planes // self.share) if self.whole else self.planes * self.share

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros of ``planes.cu``."""
        return (f"VECTOR={self.vector}", f"ITEMS={self.items}", f"WHOLE_PLANES={int(self.whole)}")

    def sizes(self, channels: int) -> tuple[int, ...]:
        """``SIZES`` of ``planes.cu``, without the steps through λ."""
        return (
            self.planes, channels, inverse(channels), self.share, inverse(self.share), self.most,
            self.groups, inverse(self.groups), self.groups_w, inverse(self.groups_w),
        )  # fmt: skip

    def shared_elements(self, sums: bool) -> int:
        """The size of a block's shared memory: two numbers of each whole plane, and where a block
        adds up λ's gradient, one of each group or warp."""
        table = 2 * self.share if self.whole else 0
        return table + (0 if not sums else self.most if self.whole else BLOCK // 32)
