"""Memory that a call takes."""

from __future__ import annotations

import gc
import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Allocations", "allocations_of", "leave_out_of_collections"]


def leave_out_of_collections() -> None:
    """From now on, what there is by now is not looked through for garbage, which takes a fifth of a
    second each time once ``torch.compile`` has been imported."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Allocations:
    """What a call has allocated, in bytes.

    Counted is what PyTorch's allocator of the device hands out, to its own operators, to compiled
    code and to ``gfgp_cupy`` alike; not a library's private memory (such as a thread's buffers).

    Attributes:
        peak: the most at one time.
        kept: what is left when the call has returned, its result included.
    """

    peak: int
    kept: int


def allocations_of(call: Callable[[], object], device: torch.device) -> Allocations:
    """The allocations of ``call``, over what there was before."""
    gc.collect()  # or tensors of before may be freed meanwhile, and be counted off
    return _on_gpu(call, device) if device.type == "cuda" else _on_cpu(call)


def _on_gpu(call, device: torch.device) -> Allocations:
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = call()
    kept = torch.cuda.memory_allocated(device) - before
    del result
    return Allocations(torch.cuda.max_memory_allocated(device) - before, kept)


def _on_cpu(call) -> Allocations:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    del result
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"
    )
    totals = list(itertools.accumulate((change for _, change in changes), initial=0))
    return Allocations(max(totals), totals[-1])
