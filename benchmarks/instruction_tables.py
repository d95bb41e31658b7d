"""Counts of instructions as tables: the time that they need over the time that memory needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.gpus import GPUS
from benchmarks.instruction_counts import PASSES
from benchmarks.instruction_results import InstructionResults, Row
from benchmarks.shapes import Shape

__all__ = ["IN_FLIGHT", "limit", "lines", "page"]

IN_FLIGHT = 32 * 1024
"""Bytes that a multiprocessor should have asked of memory at a time."""

JUDGED = "90"
"""The architecture that the limits are for."""

HEAD = (
    "type layout shape pass kernel | registers, blocks, KB in flight | instructions a window: all; "
    "fp32, mufu, conversion, comparison, integer, shared, load, store, other | lanes there, bytes "
    "over the least | clocks a window: issue, fma, alu, mufu, memory | issue over memory, limit | "
    "binds"
)


def limit(row: Row) -> float:
    """What the issue time may be of the memory time."""
    half = 0.8 if Shape.parse(row.shape).kernel_size == 2 else 0.9
    return 0.5 if row.dtype == "float32" else half


def lines(results: InstructionResults) -> str:
    """A line for each launch."""
    return "\n".join(
        [f"sm_{results.arch}, {GPUS[results.arch].name}, NVRTC {results.nvrtc}", HEAD]
        + [_line(row, results.arch) for row in results.rows]
    )


def page(all_results: Sequence[InstructionResults]) -> str:
    """The Markdown page of the documentation."""
    parts = [_introduction(all_results)]
    for results in sorted(all_results, key=lambda results: results.arch != JUDGED):
        gpu = GPUS[results.arch]
        table = _by_shape if results.arch == JUDGED else _ranges
        parts += [f"## {gpu.name} (sm_{results.arch})", table(results)]
    return "\n\n".join(parts) + "\n"


def _line(row: Row, arch: str) -> str:
    counts, clocks = row.counts, row.clocks(arch)
    ratio = clocks["issue"] / clocks["memory"]
    notes = ["over"] * (ratio > limit(row)) + ["few bytes"] * (counts.in_flight < IN_FLIGHT)
    classes = " ".join(f"{value:.1f}" for value in counts.issued.values())
    return (
        f"{row.dtype:8s} {row.layout:13s} {row.shape:17s} {row.name:19s} "
        f"{counts.kernel.removeprefix('max_ent_pool2d_'):26s} | "
        f"{counts.registers:3d} {counts.blocks:2d} {counts.in_flight / 1024:5.1f} | "
        f"{counts.issue:6.1f}; {classes} | {counts.lanes:.2f} {counts.moved / row.floor:.2f} | "
        f"{' '.join(f'{time:.2f}' for time in clocks.values())} | "
        f"{ratio:.2f} {limit(row):.1f} | {max(clocks, key=clocks.__getitem__)} "
        f"{', '.join(notes)}".rstrip()
    )


def _introduction(all_results: Sequence[InstructionResults]) -> str:
    compilers = ", ".join(dict.fromkeys(results.nvrtc for results in all_results))
    gpus = "; ".join(
        f"{gpu.name}: {gpu.multiprocessors} multiprocessors of {gpu.issues} issues a clock at "
        f"{gpu.clock / 1e9:.4g} GHz, {gpu.bandwidth / 1e12:.3g} TB/s"
        for gpu in (GPUS[results.arch] for results in all_results)
    )
    return f"""# Counted instructions

The machine code that NVRTC {compilers} makes of each kernel, executed without a GPU, and what its
warps issue, counted, as `benchmarks/README.md` describes: nothing here is measured.
`python benchmarks/instructions.py` writes this page.

A figure is the time to issue a pass's instructions over the time to move its least bytes, at batch
{all_results[0].batch_size}; below 1, memory takes longer. Another unit's name follows where it is
the slowest. In brackets, KB that a multiprocessor has asked of memory at a time; 32 and more are
wanted. The fused backward pass has two launches, of which the brackets are for the one that moves
more. Bold, for the H100: more than 0.5 in float32, in half types more than 0.8 (windows of 2/2) or
0.9 (larger ones). Over all shapes, for the others.

{gpus}."""


def _by_shape(results: InstructionResults) -> str:
    """A line for each pass and plane, of the shape that has the fewest channels."""
    groups = _grouped(results)
    shapes: dict[tuple, str] = {}
    for shape in sorted({row.shape for row in results.rows}, key=_order):
        shapes.setdefault(_order(shape)[:-1], shape)
    return _table(
        results, list(shapes.values()), "shape", lambda *key: _cell(groups.get(key), results.arch)
    )


def _ranges(results: InstructionResults) -> str:
    """A line for all shapes with the same windows, and each pass."""
    groups = _grouped(results)

    def cell(windows: str, *key: str) -> str:
        ratios = [
            _total(rows, results.arch)
            for (shape, *others), rows in groups.items()
            if _windows(shape) == windows and others == list(key)
        ]
        if not ratios:
            return "–"
        values = [total["issue"] / total["memory"] for total in ratios]
        return "–".join(dict.fromkeys(f"{end(values):.2f}" for end in (min, max)))

    windows = sorted({_windows(row.shape) for row in results.rows})
    return _table(results, windows, "windows", cell)


def _grouped(results: InstructionResults) -> dict[tuple[str, str, str, str], list[Row]]:
    """The launches of each pass."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in results.rows:
        groups.setdefault((row.shape, row.name, row.dtype, row.layout), []).append(row)
    return groups


def _windows(shape: str) -> str:
    return shape.partition(":")[2]


def _order(text: str) -> tuple[int, int, int, int]:
    shape = Shape.parse(text)
    return shape.kernel_size, shape.stride, -shape.height, shape.channels


def _total(rows: list[Row], arch: str) -> dict[str, float]:
    """The clocks of a pass: where two launches read the input, its least bytes have it once."""
    clocks = [row.clocks(arch) for row in rows]
    total = {name: sum(each[name] for each in clocks) for name in clocks[0]}
    memory = {"lam_gradient" in row.counts.kernel: row.clocks(arch)["memory"] for row in rows}
    return total | {"memory": sum(memory.values())}


def _cell(rows: list[Row] | None, arch: str) -> str:
    if rows is None:
        return "–"
    total = _total(rows, arch)
    ratio = total["issue"] / total["memory"]
    text = f"**{ratio:.2f}**" if ratio > limit(rows[0]) else f"{ratio:.2f}"
    binds = max(total, key=total.__getitem__)
    unit = f" {binds}" if binds not in ("memory", "issue") else ""
    largest = max(rows, key=lambda row: row.counts.moved)
    return f"{text}{unit} ({largest.counts.in_flight / 1024:.0f})"


def _table(
    results: InstructionResults, places: Sequence[str], title: str, cell: Callable[..., str]
) -> str:
    """A line for each place and pass, a column for each type and memory format."""
    columns = list(dict.fromkeys((row.dtype, row.layout) for row in results.rows))
    names = [name for name in PASSES if any(row.name == name for row in results.rows)]
    rows = [[title, "pass", *(f"{dtype}, {layout}" for dtype, layout in columns)]]
    rows.append(["---"] * len(rows[0]))
    rows += [
        [place, name, *(cell(place, name, *column) for column in columns)]
        for place in places
        for name in names
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
