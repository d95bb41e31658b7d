"""What ``poolings.py`` has measured, its file and its table."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import Environment
from benchmarks.shapes import Shape
from training.atomic_write import atomic_write

__all__ = ["LIMITS", "Copy", "PoolingCosts", "Time", "Traffic", "page", "read_costs", "write_costs"]

LIMITS = {"time": 1.5, "bytes": 1.15}
"""Of a pooling's time on the CPU over Max-Ent pooling's; of its kernels' bytes over the least."""


@dataclass(frozen=True)
class Copy:
    """PyTorch's copy of the input to another tensor on a GPU, the median of the same rounds."""

    shape: str
    ms: float


@dataclass(frozen=True)
class Time:
    """A pooling: medians over rounds in which all poolings take their turn.

    Attributes:
        forward_ms, backward_ms: milliseconds.
        ratio: of the time forward and backward to Max-Ent pooling's in the same round.
        peak_bytes: the most that PyTorch's allocator has handed out, over what there was before.
        allowed_bytes: Max-Ent pooling's, and an output.
        rounds: of which these are the medians.
    """

    shape: str
    pooling: str
    forward_ms: float
    backward_ms: float
    ratio: float
    peak_bytes: int
    allowed_bytes: int
    rounds: int


@dataclass(frozen=True)
class Traffic:
    """A pooling's kernels on a GPU: bytes that they move over the least there is."""

    shape: str
    dtype: str
    pooling: str
    forward: float
    backward: float


@dataclass(frozen=True)
class PoolingCosts:
    """All of a run.

    Attributes:
        rounds: the most for one shape.
    """

    environment: Environment
    layout: str
    dtype: str
    batch_size: int
    rounds: int
    copies: list[Copy]
    times: list[Time]
    traffic: list[Traffic]

    @property
    def on_gpu(self) -> bool:
        """Whether it was measured on one: beside copies."""
        return bool(self.copies)

    def beyond_the_limits(self) -> list[str]:
        """What misses a limit, in words."""
        slow = [
            f"{each.pooling} at {each.shape}: {each.ratio:.2f} of Max-Ent pooling's time"
            for each in self.times
            if each.ratio > LIMITS["time"] and not self.on_gpu
        ]
        large = [
            f"{each.pooling} at {each.shape}: {each.peak_bytes} bytes, allowed are "
            f"{each.allowed_bytes}"
            for each in self.times
            if each.peak_bytes > each.allowed_bytes
        ]
        moved = [
            f"{each.pooling} at {each.shape} in {each.dtype}: {value:.2f} of the least bytes {way}"
            for each in self.traffic
            for way, value in (("forward", each.forward), ("backward", each.backward))
            if value > LIMITS["bytes"]
        ]
        return [*slow, *large, *moved]


def write_costs(costs: PoolingCosts, path: Path) -> None:
    """Writes a file for :func:`read_costs`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(costs), indent=1) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_costs(path: Path) -> PoolingCosts:
    """What :func:`write_costs` has written."""
    content = json.loads(path.read_text(encoding="utf-8"))
    # Files from before there was a time limit: all rounds were made.
    times = [{"rounds": content["rounds"], **each} for each in content["times"]]
    return PoolingCosts(
        **{
            **content,
            "environment": Environment(**content["environment"]),
            "copies": [Copy(**each) for each in content["copies"]],
            "times": [Time(**each) for each in times],
            "traffic": [Traffic(**each) for each in content["traffic"]],
        }
    )


def page(runs: list[PoolingCosts]) -> str:
    """A page of Markdown with the tables of all runs."""
    parts = [
        "# What the poolings cost\n",
        "Made by `python benchmarks/poolings.py`, from files in `benchmarks/results/`.\n",
        *(_tables(run) for run in runs),
    ]
    return "\n".join(parts)


def _tables(run: PoolingCosts) -> str:
    of, on_gpu = run.environment, run.on_gpu
    software = [
        *([f"driver {of.driver}, CUDA {of.cuda}"] if on_gpu else [f"{of.threads} threads"]),
        f"PyTorch {of.torch}",
        f"CuPy {of.cupy}" if on_gpu else f"Numba {of.numba}",
        f"Python {of.python}",
    ]
    lines = [
        f"## {of.device}: {run.dtype}, {run.layout}\n",
        f"{of.device}, {', '.join(software)}, commit {(of.commit or 'unknown')[:12]}"
        f"{' (changed)' * bool(of.dirty)}, {of.date[:10]}: batches of {run.batch_size}, medians of "
        f"{_rounds(run)} interleaved rounds, {run.dtype}.\n",
        f"{_what_is_told(run)}:\n",
        _table(
            ("shape", "pooling", "forward, ms", "backward, ms", "× Max-Ent", "peak, MB", "allowed"),
            [
                (each.shape, each.pooling, *_milliseconds(each, run), f"{each.ratio:.2f}",
                 f"{each.peak_bytes / 1e6:.1f}", f"{each.allowed_bytes / 1e6:.1f}")
                for each in run.times
            ],
        ),
    ]  # fmt: skip
    if run.traffic:
        lines += [
            f"\nOn a GPU, bytes over the least (X + O forward, 2X + O backward), at most "
            f"{LIMITS['bytes']}; counted by running the kernels' sources on the CPU:\n",
            _table(
                ("shape", "type", "pooling", "forward", "backward"),
                [
                    (each.shape, each.dtype, each.pooling, f"{each.forward:.3f}",
                     f"{each.backward:.3f}")
                    for each in run.traffic
                ],
            ),
        ]  # fmt: skip
    if beyond := run.beyond_the_limits():
        lines += ["\nBeyond the limits:\n", *(f"- {each}" for each in beyond)]
    return "\n".join(lines) + "\n"


def _rounds(run: PoolingCosts) -> str:
    """How many were made, from the shape with the fewest to that with the most."""
    made = [each.rounds for each in run.times]
    return " to ".join(map(str, sorted({min(made), max(made)})))


def _what_is_told(run: PoolingCosts) -> str:
    """What the limits are, and the percentages."""
    limits = (
        f"Limits are {LIMITS['time']} × Max-Ent pooling's time, and its peak memory and one output "
        "(below: what is beyond them)"
    )
    if run.on_gpu:
        limits = (
            "The limit is Max-Ent pooling's peak memory and one output; in brackets: the least "
            "bytes over the time, of those of a copy"
        )
    return limits


def _milliseconds(time: Time, run: PoolingCosts) -> tuple[str, str]:
    """Forward and backward, and what they are of a copy's speed where that was measured."""
    shape = Shape.parse(time.shape)
    x, o = shape.input_elements, shape.output_elements
    speeds = [2 * x / copy.ms for copy in run.copies if copy.shape == time.shape]
    forward, backward = (
        f"{ms:#.3g}" + "".join(f" ({least / ms / speed:.0%})" for speed in speeds)
        for least, ms in ((x + o, time.forward_ms), (2 * x + o, time.backward_ms))
    )
    return forward, backward


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
