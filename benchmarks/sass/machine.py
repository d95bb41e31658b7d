"""Executes a launch's machine code, some blocks side by side, and counts what they issue.

A warp issues an instruction when any of its lanes is there, executes it or not. Lanes that part
ways meet again where the code says so (BSSY, BSYNC). Of lanes in several places of the code, those
at the lowest go first.

Not modelled, since neither counts nor branches of finite numbers depend on it: MUFU's results are
correctly rounded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cubin import Cubin
from .exchange import LOCAL_WORDS
from .listing import Instruction, Listing
from .memory import GlobalMemory, access_bytes
from .operands import predicate, registers_of
from .semantics import compiled

__all__ = ["Program", "Warps"]

ENDS = {"BRA", "EXIT", "BSYNC", "BAR", "CALL", "RET", "BRX", "JMP", "BREAK"}
REGISTERS = 256
GROUPS = 64  # of copies to shared memory, that can be on their way
RUNS, AT_BARRIER = -1, -2  # what a lane waits for, else the number of a BSYNC


class Program:
    """A kernel's instructions, ready to be executed."""

    def __init__(self, cubin: Cubin, listing: Listing) -> None:
        self.cubin = cubin
        self.instructions = listing.instructions
        starts = {0, *listing.targets}
        starts |= {i + 1 for i, one in enumerate(self.instructions) if one.name in ENDS}
        starts.discard(len(self.instructions))
        ordered = sorted(starts)
        self._ends = dict(zip(ordered, [*ordered[1:], len(self.instructions)], strict=True))
        self._loaded = {
            register
            for one in self.instructions
            if one.name == "LDG"
            for register in _load_targets(one)
        }
        self.uses_local = any(one.name in ("LDL", "STL") for one in self.instructions)
        self._steps: list = [None] * len(self.instructions)

    def end(self, start: int) -> int:
        """The end of the straight line that starts there."""
        return self._ends[start]

    def step(self, index: int):
        """What instruction ``index`` does to warps, and what loads it waits for."""
        if self._steps[index] is None:
            one = self.instructions[index]
            action = None if one.name in ENDS else compiled(one)
            waits = tuple(sorted(self._loaded.intersection(_touched(one))))
            targets = _load_targets(one) if one.name == "LDG" else ()
            guard = None if one.guard is None else predicate(one.guard)
            self._steps[index] = action, waits, targets, guard
        return self._steps[index]


class Warps:
    """Blocks of one launch, their warps side by side.

    Attributes:
        issued: how often each instruction was issued, summed up over warps, each with its weight.
        lanes_there: likewise of lanes.
        latencies: for each warp, how many latencies of memory it has waited.
    """

    def __init__(
        self,
        program: Program,
        blocks: Sequence[int],
        weights: Sequence[float],
        block_size: int,
        grid: int,
        shared_bytes: int,
        memory: GlobalMemory,
    ) -> None:
        self.program, self.memory = program, memory
        per_block = block_size // 32
        count = len(blocks) * per_block
        shape = (count, 32)
        self.count, self.warps_per_block = count, per_block
        self.weights = np.repeat(np.asarray(weights, float), per_block)
        self.block_index = np.repeat(np.asarray(blocks, np.int64), per_block)[:, None]
        self.block_slot = np.repeat(np.arange(len(blocks)), per_block)[:, None]
        self.thread = np.arange(count * 32).reshape(shape) % block_size
        self.registers = [np.zeros(shape, np.uint32) for _ in range(REGISTERS)]
        self.uniform_registers = [np.zeros((count, 1), np.uint32) for _ in range(REGISTERS)]
        self.predicates = [np.zeros(shape, bool) for _ in range(8)]
        self.uniform_predicates = [np.zeros((count, 1), bool) for _ in range(8)]
        words = -(-(shared_bytes + program.cubin.static_shared) // 4) + 4
        self.shared_words = words
        self.shared = np.zeros(len(blocks) * words, np.uint32)
        self.local = np.zeros((LOCAL_WORDS if program.uses_local else 0, *shape), np.uint32)
        self.issued = np.zeros(len(program.instructions))
        self.lanes_there = np.zeros(len(program.instructions))
        self.latencies = np.zeros(count)
        self._arrival = np.zeros((REGISTERS, count))
        self._copies = np.zeros((count, GROUPS + 1))  # when each group comes; last, the open one
        self._groups = np.zeros(count, np.int64)
        self._constants = self._bank_0(grid, block_size), program.cubin.literals
        self._at = np.zeros(shape, np.int64)
        self._waits = np.full(shape, RUNS)
        self._gone = np.zeros(shape, bool)
        self._meeting: dict[str, np.ndarray] = {}
        self._slots: dict[str, int] = {}
        self.lanes = np.ones(shape, bool)
        self.warps = np.ones((count, 1), bool)

    def _bank_0(self, grid: int, block_size: int) -> np.ndarray:
        at = self.program.cubin.parameters_at
        bank = np.zeros(at // 4 + 2 * len(self.memory.arguments) + 4, np.uint32)
        sizes = 0x360 if at >= 0x380 else 0
        bank[sizes // 4 : sizes // 4 + 6] = block_size, 1, 1, grid, 1, 1
        arguments = np.array(self.memory.arguments, np.uint64).view(np.uint32)
        bank[at // 4 : at // 4 + arguments.size] = arguments
        return bank

    def constant(self, bank: int, at: int) -> np.ndarray:
        """A word of a constant bank."""
        words = {0: self._constants[0], 2: self._constants[1]}[bank]
        return words[at // 4 : at // 4 + 1].reshape(1, 1)

    def run(self) -> None:
        """Executes the blocks to their end."""
        while True:
            ready = ~self._gone & (self._waits == RUNS)
            if not ready.any():
                if self._gone.all():
                    return
                if not self._open_barriers():
                    raise RuntimeError("lanes wait for others that never come")
                continue
            at = int(self._at[ready].min())
            self.lanes = ready & (self._at == at)
            self.warps = self.lanes.any(1, keepdims=True)
            self._run_line(at)

    def _run_line(self, start: int) -> None:
        program, stop = self.program, self.program.end(start)
        there = self.warps[:, 0]
        self.issued[start:stop] += self.weights[there].sum()
        self.lanes_there[start:stop] += (self.lanes.sum(1) * self.weights).sum()
        for index in range(start, stop):
            action, waits, targets, guard = program.step(index)
            for register in waits:
                np.maximum(self.latencies, self._arrival[register], out=self.latencies, where=there)
            if action is None:
                self._transfer(index, program.instructions[index], guard)
                return
            action(self)
            for register in targets:
                self._arrival[register][there] = self.latencies[there] + 1
        self._at[self.lanes] = stop

    def _transfer(self, index: int, one: Instruction, guard) -> None:
        """An instruction after which lanes may go on elsewhere."""
        taken = self.lanes if guard is None else self.lanes & guard(self)
        self._at[self.lanes] = index + 1
        if one.name == "EXIT":
            self._gone |= taken
            self._meet()
        elif one.name in ("BRA", "CALL", "JMP"):
            if "DIV" in one.modifiers:
                return  # taken by warps that are not whole
            if one.name == "CALL" and "NOINC" not in one.modifiers:  # that one is a jump
                raise RuntimeError(f"{one} is not understood")
            *conditions, target = one.operands
            for condition in conditions:
                taken = taken & predicate(condition)(self)
            self._at[taken] = int(target)
        elif one.name == "BSYNC":
            slot = self._slots.setdefault(one.operands[-1], len(self._slots))
            self._waits[taken] = slot
            self._meet()
        elif one.name == "BREAK":
            self._meeting[one.operands[-1]] = self._meeting[one.operands[-1]] & ~taken
        elif one.name == "BAR" and one.modifiers[0] == "SYNC" and one.operands == ("0x0",):
            self._waits[taken] = AT_BARRIER
            self._open_barriers()
        else:
            raise RuntimeError(f"{one} is not understood")

    def set_meeting(self, name: str) -> None:
        """BSSY: the lanes here will meet at the BSYNC of that name."""
        known = self._meeting.get(name)
        if known is None:
            known = np.zeros(self.lanes.shape, bool)
        self._meeting[name] = np.where(self.warps, self.lanes, known)

    def copy(self) -> None:
        """Notes that a copy to shared memory is on its way."""
        there = self.warps[:, 0]
        self._copies[there, GROUPS] = self.latencies[there] + 1

    def close_copies(self) -> None:
        """The copies so far are a group that can be waited for."""
        there = np.flatnonzero(self.warps)
        self._copies[there, self._groups[there] % GROUPS] = self._copies[there, GROUPS]
        self._groups[there] += 1

    def await_copies(self, still_open: int) -> None:
        """Waits for all groups but the last ``still_open``."""
        there = np.flatnonzero(self.warps[:, 0] & (self._groups > still_open))
        last = (self._groups[there] - still_open - 1) % GROUPS
        self.latencies[there] = np.maximum(self.latencies[there], self._copies[there, last])

    def _meet(self) -> None:
        for name, slot in self._slots.items():
            waiting = self._waits == slot
            if waiting.any():
                missing = (self._meeting[name] & ~waiting & ~self._gone).any(1, keepdims=True)
                self._waits[waiting & ~missing] = RUNS

    def _open_barriers(self) -> bool:
        """Lets the blocks on all of whose lanes wait at the barrier; whether there were any."""
        at_barrier = self._waits == AT_BARRIER
        whole = (at_barrier | self._gone).reshape(-1, 32 * self.warps_per_block).all(1)
        open = np.repeat(whole, self.warps_per_block)[:, None] & at_barrier
        self._waits[open] = RUNS
        return bool(open.any())


def _touched(one: Instruction) -> set[int]:
    """Registers whose loads must have come: the instruction reads or writes them."""
    words = max(access_bytes(one.modifiers) // 4, 1)
    is_wide = "WIDE" in one.modifiers or (one.name == "CS2R" and "32" not in one.modifiers)
    touched: set[int] = set()
    for position, text in enumerate(one.operands):
        if "[" in text:
            count = 2 if ".64" in text else 1  # an address
        elif one.name in ("LDG", "STG", "LDS", "STS", "LDL", "STL", "LDC"):
            count = words
        elif position == 0 and is_wide:
            count = 2
        elif position == len(one.operands) - 1 and {"WIDE", "HI"} & set(one.modifiers):
            count = 2  # what is added to a product
        else:
            count = 1
        touched.update(registers_of(text, count))
    return touched


def _load_targets(one: Instruction) -> tuple[int, ...]:
    target = next(text for text in one.operands if not text.startswith(("P", "!P")))
    return registers_of(target, max(access_bytes(one.modifiers) // 4, 1))
