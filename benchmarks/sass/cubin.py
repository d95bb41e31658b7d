"""What a compiled kernel says of itself beside its instructions.

A cubin is an ELF file. NVIDIA documents the tools that print it, not its bytes: the fields here are
what ``cuobjdump -elf`` and ``nvdisasm`` show, and :meth:`Cubin.of` refuses a file without them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

__all__ = ["Cubin"]

WITH_PAYLOAD = 4  # the formats below have their value in the entry itself
PARAMETERS_AT, REGISTERS = 0x0A, 0x2F
NOBITS = 8


@dataclass(frozen=True)
class Cubin:
    """A cubin's only kernel.

    Attributes:
        registers: of a thread.
        static_shared: bytes a block.
        parameters_at: where constant bank 0 has the kernel's parameters.
        literals: constant bank 2, for numbers that no instruction holds.
    """

    registers: int
    static_shared: int
    parameters_at: int
    literals: np.ndarray

    @classmethod
    def of(cls, file: bytes, kernel: str) -> Cubin:
        """What ``file`` says of ``kernel``.

        Raises:
            ValueError: it is not a cubin with that kernel.
        """
        sections = _sections(file)
        if f".text.{kernel}" not in sections:
            raise ValueError(f"the cubin has no kernel {kernel}")
        place = _attribute(sections[f".nv.info.{kernel}"].content, PARAMETERS_AT)
        registers = _attribute(sections[".nv.info"].content, REGISTERS)
        shared = sections.get(f".nv.shared.{kernel}")
        literals = sections.get(f".nv.constant2.{kernel}")
        return cls(
            registers=struct.unpack_from("<I", registers, 4)[0],
            static_shared=0 if shared is None else shared.size,
            parameters_at=struct.unpack_from("<H", place, 4)[0],
            literals=np.frombuffer(b"" if literals is None else literals.content, np.uint32),
        )


@dataclass(frozen=True)
class _Section:
    size: int
    content: bytes


def _sections(file: bytes) -> dict[str, _Section]:
    if file[:4] != b"\x7fELF":
        raise ValueError(f"not a cubin: it begins with {file[:4]!r}")
    (start,) = struct.unpack_from("<Q", file, 40)
    count, names_index = struct.unpack_from("<HH", file, 60)
    headers = [struct.unpack_from("<IIQQQQ", file, start + 64 * i) for i in range(count)]
    names = headers[names_index][4]
    return {
        file[names + name : file.index(b"\0", names + name)].decode(): _Section(
            size, b"" if kind == NOBITS else file[at : at + size]
        )
        for name, kind, _, _, at, size in headers
    }


def _attribute(info: bytes, wanted: int) -> bytes:
    at = 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != WITH_PAYLOAD:
            continue
        if attribute == wanted:
            return info[at : at + size]
        at += size
    raise ValueError(f"the cubin does not have attribute {wanted:#x}")
