"""Measures all contenders for one shape: time, traffic and memory."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from benchmarks.contenders import COMPILED, COPY, MAX_POOL, OP, Contender, make_contenders
from benchmarks.memory import allocations_of, leave_out_of_collections
from benchmarks.results import (
    FirstCall,
    LaunchCost,
    MemoryUse,
    PassTime,
    PoolingResults,
    Spread,
    Unavailable,
)
from benchmarks.rounds import Inputs, backward, time_round
from benchmarks.shapes import Shape
from benchmarks.timing import Cache, timer_of
from gfgp_cupy.backends.small_case import one_line

__all__ = ["Bench", "measure", "measure_launch_costs"]

EXPECTED = (TorchDynamoException, torch.OutOfMemoryError)
"""What a contender may lack: a compiler, or memory."""

MIN_REPEATS = 3
"""So many are made even where the time is up."""

LAUNCH_SHAPE = Shape(64, 8, 8, kernel_size=2, stride=2, padding=0)
LAUNCHED = (OP, MAX_POOL)
LAUNCH_BLOCKS, LAUNCHES_PER_BLOCK = 20, 50


@dataclass(frozen=True)
class Bench:
    """What all shapes of a run are measured with.

    Attributes:
        repeats: the most rounds for one shape.
        memory: one-dimensional; inputs are parts of it.
        shuffle: draws the order of the contenders in each round.
    """

    device: torch.device
    dtype: torch.dtype
    layout: str
    batch_size: int
    repeats: int
    memory: Tensor
    cache: Cache
    shuffle: random.Random

    def inputs(self, shape: Shape) -> Inputs:
        return Inputs.of(self.memory, shape, batch_size=self.batch_size, layout=self.layout)

    def contenders(self, shape: Shape) -> list[Contender]:
        return make_contenders(
            shape, batch_size=self.batch_size, dtype=self.dtype, device=self.device
        )


def measure(
    shape: Shape, bench: Bench, deadline: float, may_compile: bool, results: PoolingResults
) -> str:
    """Adds everything about ``shape`` to ``results``; returns it in one line.

    Args:
        deadline: of ``time.monotonic()``; no round begins later, but for ``MIN_REPEATS``.
        may_compile: whether there is time for ``torch.compile``.
    """
    inputs = bench.inputs(shape)
    first_calls = {
        contender: first_call(contender, shape, inputs, may_compile)
        for contender in bench.contenders(shape)
    }
    for outcome in first_calls.values():
        kept = results.first_calls if isinstance(outcome, FirstCall) else results.unavailable
        kept.append(outcome)
    ready = [
        contender for contender, outcome in first_calls.items() if isinstance(outcome, FirstCall)
    ]
    leave_out_of_collections()
    results.memory.extend(
        memory_use(contender, shape, bench, inputs)
        for contender in ready
        if contender.backward_bytes is not None
    )
    rounds = time_rounds(ready, bench, inputs, deadline)
    times = pass_times(shape, ready, rounds)
    results.times.extend(times)
    # Each shape compiles a code of its own, and Dynamo keeps a few only.
    torch.compiler.reset()
    medians = ", ".join(
        f"{time.contender} {1000 * time.seconds.median:.3g}"
        for time in times
        if time.direction == "both"
    )
    return f"{shape} ({len(rounds)} repeats), forward + backward in ms: {medians}"


def first_call(
    contender: Contender, shape: Shape, inputs: Inputs, may_compile: bool
) -> FirstCall | Unavailable:
    """Calls the contender once, so that it is compiled, or says why it cannot run."""
    if contender.name == COMPILED and not may_compile:
        reason = "no time left to compile it: ask for more --seconds"
        return Unavailable(str(shape), contender.name, reason, failed=False)
    start = time.perf_counter()
    missing = attempt(lambda: forward_and_backward(contender, inputs), shape, contender)
    return missing or FirstCall(str(shape), contender.name, time.perf_counter() - start)


def attempt(call: Callable[[], object], shape: Shape, contender: Contender) -> Unavailable | None:
    """Calls; returns why that cannot be, if it cannot.

    One contender's failure takes no other's times away; but for the copy's, which all are
    compared with.
    """
    try:
        call()
    except Exception as error:
        if contender.name == COPY:
            raise
        failed = not isinstance(error, EXPECTED)
        if failed:
            traceback.print_exc()
        return Unavailable(str(shape), contender.name, one_line(error), failed)
    return None


def forward_and_backward(contender: Contender, inputs: Inputs) -> tuple:
    input, grad_output = inputs.input(), inputs.grad_outputs.next()
    output = contender.forward(input)
    if contender.backward_bytes is None:
        return ()
    return backward(contender, output, input, grad_output)


def memory_use(contender: Contender, shape: Shape, bench: Bench, inputs: Inputs) -> MemoryUse:
    """The memory of one forward and one backward pass."""
    input_bytes, output_bytes = (
        bench.batch_size * elements * bench.dtype.itemsize
        for elements in (shape.input_elements, shape.output_elements)
    )
    forward = allocations_of(lambda: contender.forward(inputs.input()), bench.device)
    both = allocations_of(lambda: forward_and_backward(contender, inputs), bench.device)
    return MemoryUse(
        shape=str(shape),
        contender=contender.name,
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        peak_bytes=both.peak,
        saved_bytes=forward.kept - output_bytes,
    )


def time_rounds(
    contenders: Sequence[Contender], bench: Bench, inputs: Inputs, deadline: float
) -> list[dict[str, tuple[float, float | None]]]:
    """What :func:`benchmarks.rounds.time_round` gives, until the deadline or all repeats."""
    timer, rounds = timer_of(bench.device), []
    while len(rounds) < min(MIN_REPEATS, bench.repeats) or (
        len(rounds) < bench.repeats and time.monotonic() < deadline
    ):
        rounds.append(
            time_round(contenders, inputs, timer=timer, cache=bench.cache, shuffle=bench.shuffle)
        )
    return rounds


def pass_times(
    shape: Shape,
    contenders: Sequence[Contender],
    rounds: Sequence[dict[str, tuple[float, float | None]]],
) -> list[PassTime]:
    """The times of every contender and direction, over all rounds."""
    copies = Spread.of([times[COPY][0] for times in rounds])
    (copied,) = (one.forward_bytes for one in contenders if one.name == COPY)
    bandwidth = copied / copies.median

    def pass_time(contender, direction, seconds, floor_bytes) -> PassTime:
        spread = Spread.of(seconds)
        achieved = floor_bytes / spread.median
        return PassTime(
            shape=str(shape),
            contender=contender.name,
            direction=direction,
            seconds=spread,
            floor_bytes=floor_bytes,
            bytes_per_second=achieved,
            fraction_of_copy=achieved / bandwidth,
        )

    passes = []
    for contender in contenders:
        forwards, backwards = zip(*(times[contender.name] for times in rounds), strict=True)
        read_and_written = contender.forward_bytes, contender.backward_bytes
        passes.append(pass_time(contender, "forward", forwards, read_and_written[0]))
        if contender.backward_bytes is not None:
            both = [sum(pair) for pair in zip(forwards, backwards, strict=True)]
            passes.append(pass_time(contender, "backward", backwards, read_and_written[1]))
            passes.append(pass_time(contender, "both", both, sum(read_and_written)))
    return passes


def measure_launch_costs(bench: Bench, results: PoolingResults) -> None:
    """Adds the host's time for a forward call on a GPU, of this operator and of PyTorch's."""
    inputs = bench.inputs(LAUNCH_SHAPE)
    for contender in bench.contenders(LAUNCH_SHAPE):
        if contender.name in LAUNCHED:
            input = inputs.input()
            missing = attempt(partial(contender.forward, input), LAUNCH_SHAPE, contender)
            if missing is not None:
                results.unavailable.append(missing)
                continue
            seconds = [launch_seconds(contender, input) for _ in range(LAUNCH_BLOCKS)]
            results.launches.append(LaunchCost(contender.name, Spread.of(seconds)))


def launch_seconds(contender: Contender, input: Tensor) -> float:
    """Seconds a call until it returns, over a block of calls that fits into the GPU's queue."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(LAUNCHES_PER_BLOCK):
        contender.forward(input)
    return (time.perf_counter() - start) / LAUNCHES_PER_BLOCK
