"""The files that hold counts of instructions: one for each architecture, a line for each launch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpus import GPUS
from benchmarks.instruction_counts import CLASSES, UNITS, Counts
from benchmarks.shapes import Shape

__all__ = ["InstructionResults", "Row", "read_instructions", "write_instructions"]

SCHEMA = 1
"""Version of the files' form."""

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
OF_LAUNCH = ("dtype", "layout", "shape", "name")
CLASS_NAMES = (*CLASSES, "other")
OTHERS = (
    "kernel", "registers", "shared_bytes", "block", "blocks", "in_flight", "lanes", "moved",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One launch of a pass.

    Attributes:
        dtype, layout, shape: of the input.
        name: of the pass.
    """

    dtype: str
    layout: str
    shape: str
    name: str
    counts: Counts

    @property
    def floor(self) -> float:
        """The least bytes a window that the launch must move."""
        shape = Shape.parse(self.shape)
        inputs = shape.input_elements / shape.output_elements
        if "lam_gradient" in self.counts.kernel:
            elements = 2.0  # the output's gradient and the spread
        elif "backward" in self.name:
            elements = 2 * inputs + 1
        else:
            elements = inputs + 1 + ("spread" in self.name)
        return elements * ITEM_BYTES[self.dtype]

    def clocks(self, arch: str) -> dict[str, float]:
        """Clocks a window and multiprocessor that each of what may bind needs."""
        gpu, counts = GPUS[arch], self.counts
        return {
            "issue": counts.issue / 32 / gpu.issues,
            "fma": counts.units["fma"] / gpu.fma,
            "alu": counts.units["alu"] / gpu.alu,
            "mufu": counts.units["xu"] / gpu.xu,
            "memory": self.floor * gpu.multiprocessors * gpu.clock / gpu.bandwidth,
        }


@dataclass(frozen=True)
class InstructionResults:
    """What one run counted for one architecture.

    Attributes:
        arch: ``"90"`` for sm_90.
        nvrtc: version of the compiler.
        batch_size: samples.
    """

    arch: str
    nvrtc: str
    batch_size: int
    rows: list[Row]


def write_instructions(results: InstructionResults, path: Path) -> None:
    """Writes ``results`` to ``path``, whole or not at all."""
    head = {
        "schema": SCHEMA, "benchmark": "instructions", "arch": results.arch,
        "nvrtc": results.nvrtc, "batch_size": results.batch_size,
        "columns": [*OF_LAUNCH, *OTHERS, *CLASS_NAMES, *UNITS],
    }  # fmt: skip
    lines = ",\n".join(json.dumps(_flat(row), separators=(",", ":")) for row in results.rows)
    text = json.dumps(head)[:-1] + f',\n"rows": [\n{lines}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)  # rather than lose what was counted
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)


def read_instructions(path: Path) -> InstructionResults:
    """The results in the file ``path``.

    Raises:
        ValueError: the file is not of this version of the benchmark.
    """
    content = json.loads(path.read_text())
    if (content.get("schema"), content.get("benchmark")) != (SCHEMA, "instructions"):
        raise ValueError(f"{path} holds no counts of instructions of schema {SCHEMA}")
    rows = [_row(dict(zip(content["columns"], line, strict=True))) for line in content["rows"]]
    return InstructionResults(content["arch"], content["nvrtc"], content["batch_size"], rows)


def _flat(row: Row) -> list[str | float]:
    counts = asdict(row.counts)
    values = [getattr(row, name) for name in OF_LAUNCH]
    values += [counts[name] for name in OTHERS]
    values += [row.counts.issued[name] for name in CLASS_NAMES]
    values += [row.counts.units[name] for name in UNITS]
    return [round(value, 3) if isinstance(value, float) else value for value in values]


def _row(values: dict) -> Row:
    counts = Counts(
        **{name: values[name] for name in OTHERS},
        issued={name: values[name] for name in CLASS_NAMES},
        units={name: values[name] for name in UNITS},
    )
    return Row(**{name: values[name] for name in OF_LAUNCH}, counts=counts)
