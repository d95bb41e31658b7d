"""What a launch issues, by its machine code: counted, without a GPU.

The kernel is compiled as the backend compiles it, and disassembled. Blocks of the launch are
executed instruction by instruction (:mod:`benchmarks.sass`): all, or ``BLOCKS`` of them, the last
one and others spread evenly. So what a warp goes through is counted as it is: prologue, loops, idle
lanes, barriers, tails. Inputs are normal numbers and λ lies between 0 and 1; kernels take the paths
that such data take.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from cupy_backends.cuda.libs import nvrtc
from torch import Tensor

from benchmarks.gpus import GPUS
from benchmarks.sass.cubin import Cubin
from benchmarks.sass.listing import Instruction, Listing
from benchmarks.sass.machine import Program, Warps
from benchmarks.sass.memory import GlobalMemory
from benchmarks.shapes import Shape
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.kernels import Launch, passes

__all__ = [
    "CLASSES",
    "PASSES",
    "UNITS",
    "Counts",
    "annotated",
    "class_of",
    "count",
    "launches",
    "nvrtc_version",
]

BLOCKS = 32
"""So many of a large launch are executed."""

CLASSES = {
    "fp32": "FADD FMUL FFMA FFMA2 FADD2 FMUL2 HADD2 HMUL2 HFMA2",
    "mufu": "MUFU",
    "conversion": "F2FP F2F I2F I2FP F2I FRND",
    "comparison": "FMNMX FMNMX3 FSETP FSEL SEL PLOP3 FSET",
    "integer": "IADD IADD3 IMAD LEA LOP3 SHF ISETP PRMT VIADD VIADDMNMX VIMNMX VIMNMX3 IMNMX IABS "
    "POPC FLO LOP BREV",
    "shared": "LDS STS SHFL VOTE",
    "load": "LDG LD LDGSTS",
    "store": "STG ST",
}
"""The instructions of each class by name; the others, moves, constants, uniform ones and control,
are ``other``."""

UNITS = {
    "fma": "FADD FMUL FFMA FFMA2 FADD2 FMUL2 HADD2 HMUL2 HFMA2 IMAD",
    "alu": "IADD IADD3 LEA LOP3 SHF ISETP PRMT VIADD VIADDMNMX VIMNMX VIMNMX3 IMNMX IABS MOV P2R "
    "R2P FMNMX FMNMX3 FSETP FSET FSEL SEL PLOP3 F2FP",
    "xu": "MUFU I2F F2I F2F FRND POPC FLO BREV",
}
"""The instructions of each unit of :class:`benchmarks.gpus.Gpu`, as Nsight Compute's guide says."""

PASSES = ("forward", "forward with spread", "backward", "fused backward")
"""The operator's forward pass and its backward pass with both gradients; the fused layer's forward
pass, and its backward pass, which has a kernel for λ's gradient and one for the input's."""


@dataclass(frozen=True)
class Counts:
    """What one launch needs of a GPU.

    Attributes:
        registers: of a thread.
        shared_bytes: of a block.
        block: threads.
        blocks: that a multiprocessor holds at once.
        in_flight: bytes that a multiprocessor has asked of memory at a time, were instructions
            free: what its blocks load, over the latencies of memory that they wait for it, one
            after the other.
        issued: for each class, ``other`` included, instructions times the 32 lanes of a warp, over
            the number of windows.
        units: likewise for each of ``UNITS``.
        lanes: share of lanes that are there when a warp issues an instruction.
        moved: bytes a window: of stores, and of loads the 32-byte sectors, each once a block.
    """

    kernel: str
    registers: int
    shared_bytes: int
    block: int
    blocks: int
    in_flight: float
    issued: dict[str, float]
    units: dict[str, float]
    lanes: float
    moved: float

    @property
    def issue(self) -> float:
        """All instructions of a window."""
        return sum(self.issued.values())


def launches(
    shape: Shape, dtype: torch.dtype, layout: torch.memory_format, batch_size: int
) -> Iterator[tuple[str, Launch]]:
    """The launches of each pass, on tensors without memory."""
    size = (batch_size, shape.channels, shape.height, shape.width)
    input = torch.empty(size, dtype=dtype, device="meta", memory_format=layout)
    lam = torch.empty(*size[:2], 1, 1, device="meta")
    geometry = pool_geometry(shape.kernel_size, shape.stride, shape.padding)
    found: list[Launch] = []
    output, spread = passes.forward_with_spread(input, lam, geometry, lambda launch: None)

    def fused_backward() -> None:
        passes.lam_backward(output, spread, lam, found.append)
        passes.backward(output, input, lam, geometry, (True, False), found.append, mean_grad=lam)

    todo: tuple[Callable[[], object], ...] = (
        lambda: passes.forward(input, lam, geometry, found.append),
        lambda: passes.forward_with_spread(input, lam, geometry, found.append),
        lambda: passes.backward(output, input, lam, geometry, (True, True), found.append),
        fused_backward,
    )
    for name, run in zip(PASSES, todo, strict=True):
        found.clear()
        run()
        yield from ((name, launch) for launch in found)


def count(launch: Launch, arch: str, windows: int) -> Counts:
    """Counts a launch on tensors without memory, of so many windows.

    Raises:
        RuntimeError: NVRTC or nvdisasm refused the kernel, or an instruction is not known.
        FileNotFoundError: there is no nvdisasm.
    """
    warps = executed(launch, arch)
    cubin = warps.program.cubin
    shared = launch.shared_bytes + cubin.static_shared
    blocks = GPUS[arch].blocks_at_once(launch.block, cubin.registers, shared)
    classes = dict.fromkeys((*CLASSES, "other"), 0.0)
    units = dict.fromkeys(UNITS, 0.0)
    for instruction, issued in zip(warps.program.instructions, warps.issued.tolist(), strict=True):
        classes[class_of(instruction)] += issued * 32 / windows
        for unit in units:
            if instruction.name in UNITS[unit].split():
                units[unit] += issued * 32 / windows
    weights = warps.weights[:: warps.warps_per_block]
    loaded = float(weights @ warps.memory.load_bytes(len(weights)))
    stored = float(weights @ warps.memory.store_bytes(len(weights)))
    waited = float(weights @ warps.latencies.reshape(len(weights), -1).max(1))
    return Counts(
        kernel=launch.name,
        registers=cubin.registers,
        shared_bytes=shared,
        block=launch.block,
        blocks=blocks,
        in_flight=blocks * loaded / waited if waited else 0.0,
        issued=classes,
        units=units,
        lanes=float(warps.lanes_there.sum() / warps.issued.sum() / 32),
        moved=(loaded + stored) / windows,
    )


def annotated(launch: Launch, arch: str) -> str:
    """The kernel's instructions, before each how often a warp issues it on average."""
    warps = executed(launch, arch)
    all_warps = launch.grid * launch.block / 32
    return "\n".join(
        f"{number:5d} {issued / all_warps:8.2f}  {instruction}"
        for number, (issued, instruction) in enumerate(
            zip(warps.issued, warps.program.instructions, strict=True)
        )
    )


def nvrtc_version() -> str:
    """Such as ``"13.0"``."""
    return ".".join(map(str, nvrtc.getVersion()))


def class_of(instruction: Instruction) -> str:
    """The name of its class."""
    if instruction.name == "HADD2" and "F32" in instruction.modifiers:
        return "conversion"  # of a half to float32
    if instruction.name == "HFMA2" and "RZ" in instruction.operands[2]:
        return "other"  # a constant
    return next(
        (name for name, names in CLASSES.items() if instruction.name in names.split()), "other"
    )


def executed(launch: Launch, arch: str) -> Warps:
    """A launch, blocks of it executed."""
    program = _program(launch.name, launch.source, launch.defines, arch)
    blocks, weights = _sample(launch.grid)
    memory = GlobalMemory(launch.args, _numbers)
    warps = Warps(
        program, blocks, weights,
        block_size=launch.block, grid=launch.grid, shared_bytes=launch.shared_bytes, memory=memory,
    )  # fmt: skip
    warps.run()
    return warps


def _sample(grid: int) -> tuple[list[int], list[float]]:
    """Blocks, and how many of the grid each stands for."""
    if grid <= BLOCKS:
        return list(range(grid)), [1.0] * grid
    # Multiples of the golden ratio keep step with no number of blocks a plane.
    golden = (5**0.5 - 1) / 2
    blocks = sorted(int((i * golden % 1) * (grid - 1)) for i in range(BLOCKS - 1))
    return [*blocks, grid - 1], [(grid - 1) / (BLOCKS - 1)] * (BLOCKS - 1) + [1.0]


def _numbers(tensor: Tensor, count: int) -> Tensor:
    """What a tensor without memory holds."""
    return _drawn(tensor.dtype, count, tensor.shape[2:] == (1, 1))


@functools.lru_cache(maxsize=8)
def _drawn(dtype: torch.dtype, count: int, lam: bool) -> Tensor:
    numbers, generator = torch.empty(count, dtype=dtype), torch.Generator().manual_seed(0)
    if not dtype.is_floating_point:
        return numbers.fill_(0x3F00)  # spreads of half types
    return numbers.uniform_(generator=generator) if lam else numbers.normal_(generator=generator)


@functools.lru_cache(maxsize=64)
def _program(name: str, source: str, defines: tuple[str, ...], arch: str) -> Program:
    cubin = _compiled(name, source, defines, arch)
    return Program(Cubin.of(cubin, name), Listing.of(cubin, name))


def _compiled(name: str, source: str, defines: tuple[str, ...], arch: str) -> bytes:
    # As the backend and cupy.RawKernel do.
    options = ["-std=c++17", f"-arch=sm_{arch}", "-ftz=true", "--device-as-default-execution-space"]
    program = nvrtc.createProgram(source, f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, [*options, *(f"-D{define}" for define in defines)])
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise RuntimeError(f"NVRTC refused {name} {' '.join(defines)}: {error}\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)
