"""How ``planes.cu`` shares out contiguous planes of windows that tile them."""

from __future__ import annotations

from dataclasses import dataclass

from .lanes import inverse, largest_power_of_two

__all__ = ["MOST_THREADS", "Planes", "team_size"]

MOST_THREADS = 256

BYTES_AHEAD = 64
"""Of the input, that a thread asks for before it computes: enough to keep the memory busy."""

MOST_ITEMS = 8

ROUNDS = 2
"""After so many a block ends: with fewer and longer blocks, more of the GPU is idle while the last
ones run."""

ENOUGH_BLOCKS = 1536
"""With fewer, blocks end earlier."""

MOST_PARTS = 2048
"""Groups of a block that keeps a number of each in shared memory."""


def team_size(threads: int, planes: int) -> int:
    """``TEAM`` of ``plane_sums.cu``: as many as there are for each of a block's planes."""
    return largest_power_of_two(min(max(threads // planes, 4), 32))


def _side_by_side(groups_w: int) -> int:
    """Rows for a block's threads: those that leave least of its warps idle, at least three quarters
    of the most there can be."""
    most = max(MOST_THREADS // groups_w, 1)

    def busy(turn: int) -> float:
        return turn * groups_w / (-(-turn * groups_w // 32) * 32)

    return max(range(-(-most * 3 // 4), most + 1), key=lambda turn: (busy(turn), turn))


@dataclass(frozen=True)
class Planes:
    """The deal of planes to blocks of ``threads`` threads. Rows are rows of groups.

    Attributes:
        vector: windows of a group, which a thread takes at once.
        items: groups that a thread reads before it computes.
        rows_h: rows a plane.
        rows: of all planes.
        most: rows a block.
        cut: whether no block's rows are of two planes, and planes are cut into ``chunks``.
        turn: rows that a block's threads take side by side.
        groups_w: groups a row.
        team: threads that add up a plane where blocks take several; else of no account.
    """

    vector: int
    items: int
    rows_h: int
    rows: int
    most: int
    cut: bool
    turn: int
    groups_w: int
    team: int

    @classmethod
    def of(cls, shape: tuple[int, ...], vector: int, window_bytes: int, sums: bool) -> Planes:
        """The deal of output-sized tensors of ``shape``, whose windows have so many bytes each.

        ``sums``: something is added up over planes. A block then takes whole planes, or a part of
        one.
        """
        samples, channels, rows_h, out_w = shape
        items = min(max(BYTES_AHEAD // (vector * window_bytes), 1), MOST_ITEMS)
        groups_w = out_w // vector
        rows = samples * channels * rows_h
        turn = _side_by_side(groups_w)
        at_once = turn * items
        rounds = min(max(rows // (at_once * ENOUGH_BLOCKS), 1), ROUNDS)
        most, cut, team = at_once * rounds, False, 1
        if sums:
            # Of the numbers of planes that a block may take, the one that leaves least idle.
            shares = range(1, min(most, MOST_PARTS // groups_w) // rows_h + 1)
            share = max(shares, key=lambda s: s * rows_h / -(-s * rows_h // at_once), default=0)
            cut = share == 0
            most = share * rows_h or -(-rows_h // -(-rows_h // (at_once * ROUNDS)))
            team = team_size(MOST_THREADS, share or 1)
        return cls(vector, items, rows_h, rows, most, cut, turn, groups_w, team)

    @property
    def threads(self) -> int:
        """Of a block."""
        return -(-min(self.turn * self.groups_w, MOST_THREADS) // 32) * 32

    @property
    def chunks(self) -> int:
        """In how many parts a plane is added up."""
        return -(-self.rows_h // self.most) if self.cut else 1

    @property
    def grid(self) -> int:
        return self.rows // self.rows_h * self.chunks if self.cut else -(-self.rows // self.most)

    @property
    def _table(self) -> int:
        """The most planes that a block's rows are of, wherever they begin."""
        return -(-(self.most - 1) // self.rows_h) + 1

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros of ``planes.cu``."""
        return (
            f"VECTOR={self.vector}", f"ITEMS={self.items}", f"CHUNKED={int(self.cut)}",
            f"TEAM={self.team}",
        )  # fmt: skip

    def sizes(self, channels: int) -> tuple[int, ...]:
        """``SIZES`` of ``planes.cu``, without the steps through λ."""
        return (
            channels, inverse(channels), self.rows, self.rows_h, inverse(self.rows_h), self.most,
            self.chunks, inverse(self.chunks), self.turn, self.groups_w, inverse(self.groups_w),
            self.threads, -(-self.groups_w // self.threads), self._table,
        )  # fmt: skip

    def shared_elements(self, sums: bool) -> int:
        """The size of a block's shared memory: two numbers of each plane, and where a block adds
        up λ's gradient, one of each group or warp."""
        parts = MOST_THREADS // 32 if self.cut else self.most * self.groups_w
        return 2 * self._table + (parts if sums else 0)
