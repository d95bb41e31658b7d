"""Backend ``cupy``: CUDA kernels compiled at run time, for CUDA tensors.

It has the functions of :class:`.contract.Backend`; :mod:`gfgp_cupy.kernels.passes` says which
kernels they launch. Tensors cross to CuPy by DLPack, without a copy; the results come from
PyTorch's allocator. Kernels run on PyTorch's current stream and the tensor's own device, so that
the whole path can be captured in a CUDA graph once its kernels are compiled.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # pyright: ignore[reportPrivateImportUsage] documented

from ..geometry import PoolGeometry
from ..kernels import Launch, passes
from ..max_ent import MAX_ENT
from ..window_function import WindowFunction
from .small_case import one_line, run_small_case

__all__ = [
    "backward",
    "cannot_run_on",
    "compile_launches",
    "forward",
    "forward_with_spread",
    "lam_backward",
    "loaded_kernel",
    "pointer_to",
    "run_launch",
    "stream_at",
    "unavailable",
]

OLDEST_CUPY = 13

MAX_GRID = 2**31 - 1
"""Blocks along x; CuPy passes on the lower 32 bits of a larger number."""


def forward(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, function: WindowFunction = MAX_ENT
) -> Tensor:
    return passes.forward(input, lam, geometry, run=_runner(input), function=function)


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, function: WindowFunction = MAX_ENT
) -> tuple[Tensor, Tensor]:
    return passes.forward_with_spread(input, lam, geometry, run=_runner(input), function=function)


def backward(
    grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry,
    needed: tuple[bool, bool], mean_grad: Tensor | None = None,
    function: WindowFunction = MAX_ENT,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    return passes.backward(
        grad_output, input, lam, geometry=geometry, needed=needed, run=_runner(input),
        mean_grad=mean_grad, function=function,
    )  # fmt: skip


def lam_backward(
    grad_output: Tensor, spread: Tensor, lam: Tensor, function: WindowFunction = MAX_ENT
) -> Tensor:
    return passes.lam_backward(grad_output, spread, lam, run=_runner(spread), function=function)


def _runner(tensor: Tensor) -> Callable[[Launch], None]:
    device = tensor.device
    return lambda launch: run_launch(launch, device)


def run_launch(launch: Launch, device: torch.device) -> None:
    """Queues the launch on PyTorch's current stream of ``device``, which its tensors are on.

    Raises:
        ValueError: more blocks than a GPU can be given at once.
        RuntimeError: a tensor without memory, or a kernel's first use inside a CUDA graph's
            capture.
    """
    _on_device(device, _launch, launch, device)


def compile_launches(launches: Iterable[Launch], device: torch.device) -> int:
    """Compiles and loads what the launches need on ``device``, several programs at a time.

    Their grids and arguments do not matter. Returns the number of distinct programs.
    """
    programs: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for launch in launches:
        programs.setdefault((launch.source, launch.defines), set()).add(launch.name)

    def load(program: tuple[str, tuple[str, ...]]) -> None:
        # One after the other: CuPy compiles a program once and finds it on disk from then on.
        for name in programs[program]:
            _on_device(device, loaded_kernel, name, *program, device.index)

    # Threads are enough: NVRTC (since CUDA 12.3) compiles in several at once, outside the GIL.
    with ThreadPoolExecutor() as pool:
        list(pool.map(load, programs))  # raises what a thread has raised
    return len(programs)


def unavailable(device: torch.device) -> str | None:
    """As the contract says; a kernel is run on the device to find out, once.

    Raises:
        RuntimeError: asked for the first time inside a CUDA graph's capture, or while another
            thread captures one, where that cannot be found out.
        torch.OutOfMemoryError: the device's memory is full now.
    """
    return "it serves CUDA tensors only" if device.type != "cuda" else cannot_run_on(device)


def _says_that_memory_is_full(error: Exception) -> bool:
    """As PyTorch, CuPy and CUDA each say it."""
    text = str(error).lower().replace("_", " ")
    return "out of memory" in text or "memoryallocation" in text


def _says_that_a_graph_is_captured(error: Exception) -> bool:
    """As CUDA says it to another thread than the one that captures, too."""
    text = str(error).lower()
    return re.search("stream_?capture|is capturing|during capture", text) is not None


class _FirstUseInCapture(RuntimeError):
    """A kernel would have to be compiled and loaded inside a CUDA graph's capture."""


@functools.cache
def cannot_run_on(device: torch.device) -> str | None:
    """Why kernels cannot run on tensors of ``device``; ``None``: they can."""
    cupy = importlib.util.find_spec("cupy")
    if cupy is None:
        return "CuPy is not installed: pip install cupy-cuda12x (or cupy-cuda13x)"
    version = _version(cupy)
    if version is not None and int(version.split(".")[0]) < OLDEST_CUPY:
        return (
            f"CuPy {version} is too old, {OLDEST_CUPY} is the oldest that serves: "
            "pip install --upgrade cupy-cuda12x (or cupy-cuda13x)"
        )
    try:
        run_small_case(forward, device, size=1)
    except _FirstUseInCapture:
        raise
    except Exception as error:
        if _says_that_memory_is_full(error):
            # Now: that is no reason to do without kernels from then on.
            raise torch.OutOfMemoryError(
                f"the memory of {device} is too full to try a kernel: free some and call again "
                f"({one_line(error)})"
            ) from error
        if _says_that_a_graph_is_captured(error):
            raise _FirstUseInCapture(
                f"a kernel is used for the first time on {device} while another thread captures a "
                "CUDA graph, where none can be compiled or loaded: run one step before the capture "
                f"({one_line(error)})"
            ) from error
        # CuPy, its driver layer and NVRTC each raise types of their own; all become the reason.
        return f"CuPy cannot run a kernel on it: {type(error).__name__}: {error}"
    return None


def _version(cupy: ModuleSpec) -> str | None:
    """What CuPy calls itself. Read, not imported: an old CuPy fails beside a newer NumPy."""
    for folder in cupy.submodule_search_locations or ():
        file = Path(folder, "_version.py")
        if file.exists():
            found = re.search(r"""__version__ = ['"](\d+\.[^'"]*)""", file.read_text("utf-8"))
            return found and found.group(1)
    return None


def _on_device(device: torch.device, function: Callable, *args):
    current_of_cupy, Device = _device_functions()
    # PyTorch and CuPy may each carry a CUDA runtime, with a current device of its own. That both
    # are right is common, and found out at a tenth of the time of setting them.
    if torch.cuda.current_device() == current_of_cupy() == device.index:
        return function(*args)
    with torch.cuda.device(device.index), Device(device.index):
        return function(*args)


@functools.cache
def _device_functions() -> tuple:
    import cupy

    return cupy.cuda.runtime.getDevice, cupy.cuda.Device


def _launch(launch: Launch, device: torch.device) -> None:
    if launch.grid > MAX_GRID:
        raise ValueError(
            f"{launch.name} would take {launch.grid} blocks of threads, more than the {MAX_GRID} "
            "that a GPU can be given at once: pool the batch in parts, or inside "
            "use_backend('torch')"
        )
    kernel = loaded_kernel(launch.name, launch.source, launch.defines, device.index)
    # CuPy passes on an int in eight bytes; of None itself, CuPy 13 makes an address that is not
    # null. Tensors come before sizes, of which there are many.
    args: list = [*launch.args]
    for place, arg in enumerate(args):
        if type(arg) is int:
            break
        args[place] = 0 if arg is None else pointer_to(arg)
    # What torch.cuda.current_stream() wraps, at a twentieth of its time; it has no public name.
    stream = stream_at(torch._C._cuda_getCurrentRawStream(device.index))
    kernel((launch.grid,), (launch.block,), args, shared_mem=launch.shared_bytes, stream=stream)


@functools.cache
def loaded_kernel(name: str, source: str, defines: tuple[str, ...], device_index: int):
    """The ``cupy.RawKernel``, loaded on the device, which is the current one.

    Raises:
        RuntimeError: first asked for inside a CUDA graph's capture.
    """
    import cupy

    if torch.cuda.is_current_stream_capturing():
        raise _FirstUseInCapture(
            f"{name} is used for the first time inside a CUDA graph's capture, where it cannot be "
            "compiled or loaded: run one step on tensors of the same shapes before the capture, or "
            "call gfgp_cupy.compile_kernels(model, *sample_shapes)"
        )
    # Not as options: for each new set of those, CuPy runs NVRTC on an empty file, every time.
    macros = "".join(f"#define {define.replace('=', ' ', 1)}\n" for define in defines)
    # CuPy writes it to a file as the locale has it, which may lack what is in a comment.
    text = (macros + source).encode("ascii", "replace").decode()
    kernel = cupy.RawKernel(text, name, options=("-std=c++17",))
    kernel.compile()
    return kernel


@functools.lru_cache(maxsize=1024)
def stream_at(address: int):
    """The CUDA stream at ``address``, as CuPy takes it."""
    import cupy

    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_RawStream(address))
    return cupy.cuda.ExternalStream(address)  # CuPy 13


class _RawStream:
    """A stream as CuPy takes it; PyTorch's own know this protocol from version 2.10 on only."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


@functools.cache
def _memory_types() -> tuple:
    import cupy

    DLPackMemory = cupy._core.dlpack.DLPackMemory  # pyright: ignore[reportAttributeAccessIssue]
    return DLPackMemory, cupy.cuda.MemoryPointer


def pointer_to(tensor: Tensor):
    """``tensor``'s memory as a CuPy pointer, by DLPack.

    By what ``cupy.from_dlpack`` is made of: a kernel takes an address, and the array around it
    would cost nine times the crossing (and know no bfloat16). And by a capsule, not
    ``Tensor.__dlpack__``: that would ask what is known here (which device, which stream to wait
    for: none, the kernel runs on the one that PyTorch is using), at several times the cost again.
    """
    DLPackMemory, MemoryPointer = _memory_types()
    pointer = MemoryPointer(DLPackMemory(to_dlpack(tensor)), 0)
    if pointer.ptr == 0 and tensor.numel() > 0:
        raise RuntimeError(
            f"a kernel was given a tensor without memory, {type(tensor).__name__} of shape "
            f"{tuple(tensor.shape)}: fake tensors and those of a transform must go through "
            "gfgp_cupy.functional or torch.ops.gfgp_cupy"
        )
    return pointer
