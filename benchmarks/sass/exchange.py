"""Memory, and what other lanes hold."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

from .actions import instruction, mask_of, next_register, writer
from .memory import access_bytes
from .operands import integers, is_predicate, wide_integers

U32, U64, I64 = np.uint32, np.uint64, np.int64

LOCAL_WORDS = 1024
"""Of a thread's own memory, where what the compiler has no register for lies."""


def _address(text: str) -> Callable:
    """Such as ``desc[UR4][R2.64+0x10]`` or ``[R2+UR4+-0x8]``; of 64 bits where it says so."""
    match = re.fullmatch(r"(?:desc\[UR\d+\])?\[(.*)\]", text)
    if match is None:
        raise ValueError(f"no address: {text}")
    parts, offset = [], 0
    for part in match[1].split("+"):
        if re.fullmatch(r"-?0x[0-9a-f]+", part):
            offset = int(part, 16)
        elif part.endswith(".64"):
            parts.append(wide_integers(part))
        else:
            name = re.sub(r"\.(U32|X\d+)$", "", part)
            scale = U64(int(part.split(".X")[1])) if ".X" in part else U64(1)
            wide = name.startswith("UR") and "desc" in text
            source = wide_integers(name) if wide else integers(name)
            parts.append(functools.partial(_scaled, source, scale))
    offset = U64(offset % 2**64)

    def address(warps):
        total = np.full(warps.lanes.shape, offset, U64)
        for part in parts:
            total = total + part(warps)
        return total

    return address


def _scaled(source: Callable, scale: np.uint64, warps) -> np.ndarray:
    return source(warps).astype(U64) * scale


@instruction("LDG", "LD")
def _load(one):
    target, text = (text for text in one.operands if not is_predicate(text))
    address, bytes, mask = _address(text), access_bytes(one.modifiers), mask_of(one, target)
    writes = [writer(next_register(target, i)) for i in range(max(bytes // 4, 1))]

    def act(warps):
        where = mask(warps)
        words = warps.memory.load(address(warps), warps.block_slot, where, bytes)
        for write, word in zip(writes, words, strict=True):
            write(warps, word, where)

    return act


@instruction("LDGSTS")
def _copy_to_shared(one):
    """Copies at once; when it would come, :meth:`.machine.Warps.copy` notes."""
    to, from_ = (text for text in one.operands if not is_predicate(text))
    if "ZFILL" in one.modifiers:
        raise ValueError("ZFILL")
    shared, address = _address(to), _address(from_)
    bytes, mask = access_bytes(one.modifiers), mask_of(one, "R0")

    def act(warps):
        where = mask(warps)
        words = warps.memory.load(address(warps), warps.block_slot, where, bytes)
        at = _shared_place(warps, shared, where, bytes)[where]
        for i, word in enumerate(words):
            warps.shared[(at >> 2) + i] = word[where]
        warps.copy()

    return act


@instruction("LDGDEPBAR")
def _close_group(one):
    return lambda warps: warps.close_copies()


@instruction("DEPBAR")
def _await_groups(one):
    if one.modifiers != ("LE",) or one.operands[0] != "SB0":
        return lambda warps: None
    open = int(one.operands[1], 16)
    return lambda warps: warps.await_copies(open)


@instruction("STG", "ST")
def _store(one):
    text, source = one.operands
    address, bytes, mask = _address(text), access_bytes(one.modifiers), mask_of(one, "R0")
    sources = [integers(next_register(source, i)) for i in range(max(bytes // 4, 1))]

    def act(warps):
        values = [np.broadcast_to(read(warps), warps.lanes.shape) for read in sources]
        warps.memory.store(address(warps), warps.block_slot, mask(warps), values, bytes)

    return act


def _shared_place(warps, address, mask, bytes: int) -> np.ndarray:
    at = address(warps).astype(I64) & 0xFFFFFF
    if mask.any() and (at[mask].max() + bytes > 4 * warps.shared_words or (at[mask] % bytes).any()):
        raise RuntimeError("shared memory: out of bounds or misaligned")
    return np.where(mask, at + 4 * warps.shared_words * warps.block_slot, 0)


@instruction("LDS")
def _load_shared(one):
    target, text = one.operands
    address, bytes, mask = _address(text), access_bytes(one.modifiers), mask_of(one, target)
    writes = [writer(next_register(target, i)) for i in range(max(bytes // 4, 1))]

    def act(warps):
        where = mask(warps)
        at = _shared_place(warps, address, where, bytes)
        if bytes < 4:
            kind = {1: np.uint8, 2: np.uint16}[bytes]
            writes[0](warps, warps.shared.view(kind)[at // bytes].astype(U32), where)
            return
        for i, write in enumerate(writes):
            write(warps, warps.shared[(at >> 2) + i], where)

    return act


@instruction("STS")
def _store_shared(one):
    text, source = one.operands
    address, bytes, mask = _address(text), access_bytes(one.modifiers), mask_of(one, "R0")
    sources = [integers(next_register(source, i)) for i in range(max(bytes // 4, 1))]

    def act(warps):
        where = mask(warps)
        at = _shared_place(warps, address, where, bytes)[where]
        for i, read in enumerate(sources):
            value = np.broadcast_to(read(warps), where.shape)[where]
            if bytes < 4:
                kind = {1: np.uint8, 2: np.uint16}[bytes]
                warps.shared.view(kind)[at // bytes] = value.astype(kind)
            else:
                warps.shared[(at >> 2) + i] = value

    return act


def _local_place(warps, address, mask, bytes: int) -> np.ndarray:
    """Which word; the stack begins at the end of a thread's memory."""
    at = np.where(mask, address(warps).astype(I64) % (4 * LOCAL_WORDS), 0)
    if (at % bytes).any():
        raise RuntimeError("local memory: misaligned")
    return at // 4


@instruction("LDL")
def _load_local(one):
    target, text = one.operands
    address, bytes, mask = _address(text), access_bytes(one.modifiers), mask_of(one, target)
    writes = [writer(next_register(target, i)) for i in range(bytes // 4)]

    def act(warps):
        where = mask(warps)
        at = _local_place(warps, address, where, bytes)
        for i, write in enumerate(writes):
            write(warps, np.take_along_axis(warps.local, (at + i)[None], 0)[0], where)

    return act


@instruction("STL")
def _store_local(one):
    text, source = one.operands
    address, bytes, mask = _address(text), access_bytes(one.modifiers), mask_of(one, "R0")
    sources = [integers(next_register(source, i)) for i in range(bytes // 4)]

    def act(warps):
        where = mask(warps)
        at = _local_place(warps, address, where, bytes)
        for i, read in enumerate(sources):
            value = np.broadcast_to(read(warps), where.shape)
            warps.local[(at[where] + i, *np.nonzero(where))] = value[where]

    return act


@instruction("SHFL")
def _shuffle(one):
    present, target, source, lane, limits = one.operands
    source, lane, limits = integers(source), integers(lane), integers(limits)
    kind = one.modifiers[0]
    write, out, mask = writer(target), writer(present), mask_of(one, target)
    own = np.arange(32, dtype=np.int64)[None, :]

    def act(warps):
        where = mask(warps)
        by, limit = lane(warps).astype(I64) & 31, limits(warps).astype(I64)
        segment = limit >> 8 & 31
        last = own & segment | limit & 31 & ~segment
        from_ = {
            "BFLY": own ^ by, "DOWN": own + by, "UP": own - by,
            "IDX": own & segment | by & ~segment,
        }[kind]  # fmt: skip
        inside = from_ >= last if kind == "UP" else from_ <= last
        from_ = np.broadcast_to(np.where(inside, from_, own) & 31, where.shape)
        value = np.take_along_axis(np.broadcast_to(source(warps), where.shape), from_, 1)
        write(warps, value, where)
        out(warps, np.broadcast_to(inside, where.shape), where)

    return act
