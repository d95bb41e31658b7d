"""Backend ``numba``: functions compiled for this machine's processor at run time, for CPU tensors.

It has the functions of :class:`..contract.Backend`. Four families of compiled functions pool any
window function that has functions for this backend (:mod:`.functions`): :mod:`.tiles` 2×2 windows
that tile the plane, :mod:`.overlapping` 3×3 windows at stride 2, :mod:`.long_windows` those of
about a thousand elements or more and contiguous whole planes, :mod:`.windows` all others; the last
two those of volumes, too.
:mod:`.plan` says which, and how a call is divided; :mod:`.loading` puts both together.

Contiguous and channels_last (of volumes channels_last_3d) tensors are used where they lie. float16
and bfloat16 are converted to float32, and the results back. The work is shared among
``torch.get_num_threads()`` threads; the results are the same bits whatever their number.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from ...geometry import PoolGeometry
from ...max_ent import MAX_ENT
from ...memory_format import dense, new_dense
from ...spread import pack_spread
from ...window_function import WindowFunction
from ..small_case import one_line, raise_if_memory_is_full, run_small_case, undisturbed
from ..torch import lam_backward
from .block import NO_PARTS, OF_EACH_PLANE, OF_EACH_ROW, OF_EACH_WINDOW, block_of
from .plan import Plan, plan
from .threads import Native, parts_of, run_together
from .whole_planes import by_channels, by_planes, is_better_by_channels

__all__ = ["backward", "forward", "forward_with_spread", "lam_backward", "unavailable"]

SMALLEST_PART = 32_000
"""Elements of windows for which it pays to wake a thread up."""


@functools.cache
def unavailable(device: torch.device) -> str | None:
    if device.type != "cpu":
        return "it serves CPU tensors only"
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed: pip install numba (or 'gfgp-cupy[cpu]')"
    try:
        with undisturbed():
            import numba
    except Exception as error:
        raise_if_memory_is_full(error, device)
        # It refuses a NumPy that it does not know; LLVM's library may not load.
        return f"Numba cannot be imported: {one_line(error)}"
    if numba.config.DISABLE_JIT:  # pyright: ignore  # made of the environment
        return "Numba is told not to compile: unset NUMBA_DISABLE_JIT"
    try:
        # Windows that most networks have, so that what it compiles is not for nothing.
        run_small_case(forward, device, size=2)
    except Exception as error:
        raise_if_memory_is_full(error, device)
        # Numba and LLVM raise types of their own; all become the reason.
        return f"Numba cannot compile: {one_line(error)}"
    return None


def forward(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, function: WindowFunction = MAX_ENT
) -> Tensor:
    return _forward(input, lam, geometry, function, with_spread=False)[0]


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, function: WindowFunction = MAX_ENT
) -> tuple[Tensor, Tensor]:
    output, spread = _forward(input, lam, geometry, function, with_spread=True)
    assert spread is not None
    return output, spread


def backward(
    grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry,
    needed: tuple[bool, bool], mean_grad: Tensor | None = None,
    function: WindowFunction = MAX_ENT,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    if is_better_by_channels(input, geometry):
        grad_input, grad_lam = backward(
            grad_output, by_channels(input), lam, geometry, needed, mean_grad, function
        )
        return None if grad_input is None else by_planes(grad_input), grad_lam
    how = plan(input, lam, geometry)
    x = _as_computed(input, lam, how)
    grad = _laid_out(_of_type(grad_output, lam.dtype), how.layout)
    grad_input = new_dense(lam, x.shape, how.layout) if needed[0] else None
    lam_parts, parts = _parts_of_lam(lam, how) if needed[1] else (NO_PARTS, None)
    # Where parts have one element a plane, both layouts are the same order.
    lam_layout = torch.contiguous_format if lam_parts == OF_EACH_PLANE else how.layout
    grad_lam = None if parts is None else new_dense(lam, parts, lam_layout)
    _run(
        "backward",
        how,
        (
            grad,
            x,
            _of_every_plane(lam, how),
            None if mean_grad is None else _laid_out(mean_grad, how.layout),
            grad_input,
            grad_lam,
        ),
        lam.dtype,
        function,
        lam_parts,
    )
    return (
        None if grad_input is None else _of_type(grad_input, input.dtype),
        None if grad_lam is None else _sum_to(grad_lam, lam.shape),
    )


def _parts_of_lam(lam: Tensor, plan: Plan) -> tuple[int, tuple[int, ...]]:
    """What λ's gradient comes in, and the shape of the tensor of its parts."""
    if lam.shape[-1] > 1:
        return OF_EACH_WINDOW, plan.output_shape
    if lam.shape[2] == 1 and plan.whole_planes:
        return OF_EACH_PLANE, (*plan.output_shape[:2], 1, 1)
    return OF_EACH_ROW, (*plan.output_shape[:-1], 1)


def _sum_to(parts: Tensor, shape: torch.Size) -> Tensor:
    # To ask takes less time than to sum what needs no sum.
    if parts.shape != shape:
        parts = parts.sum_to_size(shape)
    return dense(parts, torch.contiguous_format)


def _forward(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, function: WindowFunction, with_spread: bool
) -> tuple[Tensor, Tensor | None]:
    if is_better_by_channels(input, geometry):
        pooled = _forward(by_channels(input), lam, geometry, function, with_spread)
        output, spread = (
            None if tensor is None else dense(tensor, torch.contiguous_format) for tensor in pooled
        )
        assert output is not None
        return output, spread
    how = plan(input, lam, geometry)
    x = _as_computed(input, lam, how)
    output = new_dense(lam, how.output_shape, how.layout)
    spread = new_dense(lam, how.output_shape, how.layout) if with_spread else None
    _run("forward", how, (x, _of_every_plane(lam, how), output, spread), lam.dtype, function)
    if spread is not None:
        spread = dense(_as_kept(spread, input.dtype, function), how.layout)
    return _of_type(output, input.dtype), spread


def _as_kept(spread: Tensor, dtype: torch.dtype, function: WindowFunction) -> Tensor:
    return spread.to(dtype) if function.spread == "signed" else pack_spread(spread, dtype)


def _run(
    direction: str,
    plan: Plan,
    tensors: tuple[Tensor | None, ...],
    dtype: torch.dtype,
    function: WindowFunction,
    lam_parts: int = NO_PARTS,
) -> None:
    """Calls a compiled function for all rows of the output, on as many threads as pay."""
    assert function.cpu is not None
    together = 1
    if direction == "backward":
        together = plan.plane_rows if lam_parts == OF_EACH_PLANE else plan.rows_together
    parts = parts_of(plan.output_rows, -(-SMALLEST_PART // plan.row_elements))
    parts = max(1, min(parts, plan.output_rows // together))
    scratch = None
    if plan.scratch > 0:
        scratch = torch.empty(parts * plan.scratch, dtype=dtype, device="cpu")
    block = block_of(
        plan,
        [0 if tensor is None else tensor.data_ptr() for tensor in tensors],
        parts,
        scratch=0 if scratch is None else scratch.data_ptr(),
        lam_parts=lam_parts,
        rows_together=together,
        constant=function.constant,
    )
    run_together(
        _native(plan.module, function.cpu, function.spread, direction, dtype),
        block.buffer_info()[0],
        parts,
        memory=(block, scratch, tensors, plan),
    )


@functools.cache
def _native(module: str, functions: str, spread: str, direction: str, dtype: torch.dtype) -> Native:
    from .loading import family_of

    family = family_of(module, functions, spread)
    return getattr(family, direction)(str(dtype).removeprefix("torch.")).call


# To ask whether anything is to be done takes less time than to do nothing.


def _as_computed(input: Tensor, lam: Tensor, plan: Plan) -> Tensor:
    """``input`` in λ's type, dense."""
    input = _of_type(input, lam.dtype)
    return input if plan.input_is_dense else input.contiguous(memory_format=plan.layout)


def _of_every_plane(lam: Tensor, plan: Plan) -> Tensor:
    """λ repeated for all samples and channels, dense."""
    if plan.lam_fits:
        return lam
    planes = lam.expand(*plan.output_shape[:2], *lam.shape[2:])
    return planes.contiguous(memory_format=plan.layout)


def _of_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def _laid_out(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    if tensor.is_contiguous(memory_format=layout):
        return tensor
    return tensor.contiguous(memory_format=layout)
