"""Machine code as ``nvdisasm`` of NVIDIA's wheel lists it."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Instruction", "Listing", "find_nvdisasm"]

WHEEL = "nvidia-cuda-nvdisasm"


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as ``@!P0 IADD3.X R5, RZ, R5, RZ, P1, !PT``.

    Attributes:
        guard: the predicate under which a lane executes it, ``"!P0"``; ``None``: always.
        name: ``"IADD3"``.
        modifiers: ``("X",)``.
        operands: as they are written, a label for its instruction's number.
    """

    guard: str | None
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]

    def __str__(self) -> str:
        guard = f"@{self.guard} " if self.guard else ""
        return f"{guard}{'.'.join((self.name, *self.modifiers))} {', '.join(self.operands)}"


@dataclass(frozen=True)
class Listing:
    """A kernel's instructions, in their order, up to the last that can be reached.

    Attributes:
        targets: the numbers of the instructions that others name.
    """

    instructions: tuple[Instruction, ...]
    targets: frozenset[int]

    @classmethod
    def of(cls, cubin: bytes, kernel: str) -> Listing:
        """Disassembles ``kernel``.

        Raises:
            FileNotFoundError: there is no ``nvdisasm``; the message says how to install it.
            RuntimeError: it refused the file.
        """
        lines, labels = [], {}
        for line in _disassembled(cubin, kernel):
            if label := re.match(r"(\.L_x_\d+):", line):
                labels[label[1]] = len(lines)
            elif instruction := re.match(r"\s+/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
                lines.append(instruction[1])
        while lines and lines[-1] == "NOP":
            lines.pop()
        targets = set()

        def number(match: re.Match) -> str:
            targets.add(labels[match[1]])
            return str(labels[match[1]])

        lines = [re.sub(r"`\((\.L_x_\d+)\)", number, line) for line in lines]
        return cls(tuple(map(_parsed, lines)), frozenset(targets))


@functools.cache
def find_nvdisasm() -> str:
    """The path of ``nvdisasm``: on PATH, or of the installed wheel."""
    if found := shutil.which("nvdisasm"):
        return found
    namespace = importlib.util.find_spec("nvidia")
    for folder in (namespace.submodule_search_locations or ()) if namespace else ():
        for found in sorted(Path(folder).glob("*/bin/nvdisasm*")):
            return str(found)
    raise FileNotFoundError(f"nvdisasm is not installed: pip install {WHEEL}")


def _disassembled(cubin: bytes, kernel: str) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin + b"\0")  # CuPy takes the last byte for the end of a string
        file.flush()
        # Without the analysis that would name the targets of branches through a register, which
        # these kernels have none of: it takes a quarter of the time.
        command = [find_nvdisasm(), "--print-code", "--no-dataflow", file.name]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if process.returncode:
        raise RuntimeError(f"nvdisasm refused {kernel}: {process.stderr}")
    _, found, text = process.stdout.partition(f"\n.text.{kernel}:\n")
    if not found:
        raise RuntimeError(f"nvdisasm lists no {kernel}")
    return re.split(r"\n\s*\.section", text)[0].splitlines()


def _parsed(line: str) -> Instruction:
    match = re.fullmatch(r"(?:@(\S+)\s+)?([\w.]+)\s*(.*)", line)
    if match is None:
        raise RuntimeError(f"not an instruction: {line!r}")
    guard, opcode, operands = match.groups()
    name, *modifiers = opcode.split(".")
    return Instruction(
        guard, name, tuple(modifiers), tuple(filter(None, re.split(r"\s*,\s*", operands.strip())))
    )
