"""Compiles a kernel for a GPU with NVRTC, as CuPy does at run time; no GPU needed."""

import functools
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch  # noqa: F401  loads the NVRTC of its own wheels, which is then the one CuPy finds
from cupy_backends.cuda.libs import nvrtc

from tests.support.warm_python import WARM

# Those cupy.RawKernel adds by itself.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


@dataclass(frozen=True)
class ResourceUsage:
    """What one kernel needs of a GPU: registers a thread, and bytes.

    ``stack_frame`` is local memory a thread, arrays indexed at run time included; spill bytes
    are counted over the kernel's instructions; ``shared_bytes`` is static shared memory.
    """

    registers: int
    stack_frame: int
    spill_stores: int
    spill_loads: int
    shared_bytes: int


def nvrtc_available() -> bool:
    """Whether CuPy finds an NVRTC library."""
    try:
        nvrtc.getVersion()
    except RuntimeError:
        return False
    return True


def compile_cubin(launch, arch: str) -> bytes:
    """Compile a launch's kernel to machine code.

    Args:
        launch: a ``gfgp_cupy.kernels.Launch``; only name, source and defines are used.
        arch: compute capability without its dot, such as ``"90"``.

    Raises:
        RuntimeError: NVRTC refused it, or it has no such kernel; the message holds the log.
    """
    cubin, _ = _compile(launch.name, launch.source, tuple(launch.defines), arch)
    return cubin


def resource_usage(launch, arch: str) -> ResourceUsage:
    """What the launch's kernel needs on an architecture, as ptxas reports it.

    NVRTC runs ptxas itself, so these are the figures of the code that compile_cubin returns.
    Arguments and errors are those of compile_cubin.
    """
    _, log = _compile(launch.name, launch.source, tuple(launch.defines), arch)
    report = log.partition(_heading(launch.name))[2].partition("Compiling entry function")[0]
    return ResourceUsage(
        registers=_figure(report, r"Used (\d+) registers"),
        stack_frame=_figure(report, r"(\d+) bytes stack frame"),
        spill_stores=_figure(report, r"(\d+) bytes spill stores"),
        spill_loads=_figure(report, r"(\d+) bytes spill loads"),
        shared_bytes=_figure(report, r"(\d+) bytes smem") if " bytes smem" in report else 0,
    )


def _figure(report: str, pattern: str) -> int:
    match = re.search(pattern, report)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in what ptxas reported:\n{report}")
    return int(match.group(1))


class Program(NamedTuple):
    """What of a launch is compiled; unlike its tensors, it can go to another process."""

    name: str
    source: str
    defines: tuple[str, ...]

    @classmethod
    def of(cls, launch) -> "Program":
        return cls(launch.name, launch.source, tuple(launch.defines))


def in_processes(function: Callable, arguments: Iterable[tuple]) -> list:
    """``function(*each)`` for each of ``arguments``, as many at a time as there are cores.

    In processes: older NVRTCs compile one program at a time in each.
    """
    with ProcessPoolExecutor(mp_context=WARM) as pool:
        return list(pool.map(function, *zip(*arguments, strict=True), chunksize=8))


@functools.cache
def _compile(name: str, source: str, defines: tuple[str, ...], arch: str) -> tuple[bytes, str]:
    """The cubin and the compilers' log."""
    options = ["-std=c++17", f"-arch=sm_{arch}", "--ptxas-options=-v", *CUPY_OPTIONS]
    options += [f"-D{define}" for define in defines]
    program = nvrtc.createProgram(source, f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        cubin, log = nvrtc.getCUBIN(program), _log(program)
    except nvrtc.NVRTCError as error:
        raise RuntimeError(
            f"NVRTC refused {name} with {' '.join(options)}: {error}\n{_log(program)}"
        ) from error
    finally:
        nvrtc.destroyProgram(program)
    if _heading(name) not in log:
        raise RuntimeError(f'the source has no extern "C" kernel {name}; NVRTC\'s log:\n{log}')
    return cubin, log


def _heading(name: str) -> str:
    """What begins ptxas's report on a kernel."""
    return f"Function properties for {name}\n"


def _log(program: int) -> str:
    return nvrtc.getProgramLog(program).rstrip("\0")
