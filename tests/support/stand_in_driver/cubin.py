"""What a cubin says of its kernels: the sizes of their parameters, the largest block.

A cubin is an ELF file; section ``.nv.info.NAME`` lists attributes of kernel NAME. NVIDIA documents
the tools that print them (``cuobjdump -elf``), not the bytes: the format here is what those tools
show, and :func:`kernels_of` refuses one that it does not find in full.
"""

import ctypes
import struct
from dataclasses import dataclass

__all__ = ["CompiledKernel", "kernels_of"]

EM_CUDA = 190
WITH_PAYLOAD = 4  # the formats below have their value in the entry itself
PARAMETER, LARGEST_BLOCK = 0x17, 0x05


@dataclass(frozen=True)
class CompiledKernel:
    """``parameter_bytes``: the size of each parameter; ``largest_block``: threads."""

    parameter_bytes: tuple[int, ...]
    largest_block: int


def kernels_of(address: int) -> dict[str, CompiledKernel]:
    """The kernels of the cubin in memory at ``address``, by name."""
    header = ctypes.string_at(address, 64)
    if header[:4] != b"\x7fELF" or struct.unpack_from("<H", header, 18) != (EM_CUDA,):
        raise ValueError(f"not a cubin: it begins with {header[:20]!r}")
    (sections_at,) = struct.unpack_from("<Q", header, 40)
    count, names_index = struct.unpack_from("<HH", header, 60)
    sections = []  # name's offset, where, size
    for index in range(count):
        name, _, _, _, at, size = struct.unpack(
            "<IIQQQQ", ctypes.string_at(address + sections_at + 64 * index, 40)
        )
        sections.append((name, address + at, size))
    _, names, _ = sections[names_index]
    kernels = {}
    for name, at, size in sections:
        _, info, kernel = ctypes.string_at(names + name).decode().partition(".nv.info.")
        if info:
            kernels[kernel] = _kernel_of(kernel, ctypes.string_at(at, size))
    return kernels


def _kernel_of(name: str, info: bytes) -> CompiledKernel:
    sizes, largest_block = {}, None
    at = 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != WITH_PAYLOAD:
            continue
        if attribute == PARAMETER:
            (ordinal,) = struct.unpack_from("<H", info, at + 4)
            sizes[ordinal] = struct.unpack_from("<I", info, at + 8)[0] >> 18
        elif attribute == LARGEST_BLOCK:
            largest_block = struct.unpack_from("<I", info, at)[0]
        at += size
    if sorted(sizes) != list(range(len(sizes))) or not sizes or largest_block is None:
        raise ValueError(f"the cubin does not tell all of {name}: {sizes}, {largest_block}")
    return CompiledKernel(tuple(sizes[i] for i in range(len(sizes))), largest_block)
