"""Compiles a kernel for the CPU with the host C++ compiler and runs one launch of it."""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
ENGINE = Path(__file__).with_name("engine.cpp")
ORDERS = ("forward", "reverse", "shuffled")
MAX_BLOCK = 1024
MAX_SHARED_BYTES = 48 * 1024  # what every GPU grants without asking
MAX_THREADS = 2**32 - 2  # a launch's threads are numbered in 32 bits to detect races
# Kernels reinterpret memory freely; a * b + c must not depend on the CPU; and in the engine,
# glibc's checked longjmp would refuse to jump between stacks.
FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-shared",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
    "-Wno-unknown-pragmas",
    "-Werror=attributes",
)
# A specialisation runs for milliseconds, so that compiling it is what takes the time. What a device
# function cannot have either is left out, and so is the C++ library that would be there for it.
QUICK = (
    "-O0",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-asynchronous-unwind-tables",
    "-nostdlib",
)

_one_launch_at_a_time = threading.Lock()


class LaunchError(RuntimeError):
    """A kernel broke a rule while running: bounds, alignment, a race, a divergent barrier."""


@dataclass(frozen=True)
class Traffic:
    """Global memory accesses of one launch.

    ``per_argument`` has one ``(load_bytes, store_bytes)`` for each tensor argument, in order;
    an address inside several tensors counts for the first. ``sector_bytes`` are those of the
    32-byte sectors that loads touch, each once a block: a block's first-level cache serves the
    others.
    """

    loads: int
    stores: int
    load_bytes: int
    store_bytes: int
    sector_bytes: int
    per_argument: tuple[tuple[int, int], ...]


class _Tensor(ctypes.Structure):
    """``GfgpTensor`` of cuda_on_cpu.h."""

    _fields_ = (
        ("begin", ctypes.c_ulonglong),
        ("bytes", ctypes.c_ulonglong),
        ("argument", ctypes.c_longlong),
        ("load_bytes", ctypes.c_longlong),
        ("store_bytes", ctypes.c_longlong),
    )


class _Launch(ctypes.Structure):
    """``GfgpLaunch`` of cuda_on_cpu.h."""

    _fields_ = (
        ("call", ctypes.c_void_p),
        ("slots", ctypes.POINTER(ctypes.c_ulonglong)),
        ("tensors", ctypes.POINTER(_Tensor)),
        ("tensor_count", ctypes.c_longlong),
        ("grid", ctypes.c_longlong),
        ("block", ctypes.c_longlong),
        ("shared_bytes", ctypes.c_longlong),
        ("order", ctypes.c_longlong),
        ("seed", ctypes.c_longlong),
        ("loads", ctypes.c_longlong),
        ("stores", ctypes.c_longlong),
        ("sector_bytes", ctypes.c_longlong),
    )


def compiler_available() -> bool:
    """Whether kernels can run here: Linux, and ``$CXX`` or else ``g++`` is there."""
    return sys.platform == "linux" and shutil.which(_compiler()[0]) is not None


def run_launch(launch, order: str = "forward", seed: int = 0) -> Traffic:
    """Run a launch on CPU tensors, in place.

    Args:
        launch: a ``gfgp_cupy.kernels.Launch``, or anything with its fields.
        order: which thread runs first wherever several can: ``"forward"``, ``"reverse"`` or
            ``"shuffled"``. A correct kernel gives the same result under each.
        seed: of the shuffled order.

    Returns:
        The global loads and stores made.

    Raises:
        ValueError: the launch is not one a GPU would take.
        TypeError: the arguments do not fit the kernel's parameters.
        RuntimeError: the source does not compile.
        LaunchError: the kernel broke a rule while running; the message says which, where.
    """
    _check_launch(launch, order)
    library = _load(launch.name, launch.source, tuple(launch.defines))
    _check_arguments(launch, kernel_kinds(launch))
    slots = (ctypes.c_ulonglong * len(launch.args))(*map(_slot, launch.args))
    extents = [
        _Tensor(argument.data_ptr(), extent_bytes(argument), index)
        for index, argument in enumerate(launch.args)
        if isinstance(argument, torch.Tensor)
    ]
    tensors = (_Tensor * len(extents))(*extents)
    call = ctypes.cast(library.gfgp_kernel_call, ctypes.c_void_p)
    state = _Launch(
        call=call,
        slots=slots,
        tensors=tensors,
        tensor_count=len(tensors),
        grid=launch.grid,
        block=launch.block,
        shared_bytes=launch.shared_bytes,
        order=ORDERS.index(order),
        seed=seed,
    )
    message = ctypes.create_string_buffer(2048)
    with _one_launch_at_a_time:
        failed = _engine().gfgp_host_launch(ctypes.byref(state), message, len(message))
    if failed:
        raise LaunchError(f"{launch.name}: {message.value.decode()}")
    per_argument = tuple((tensor.load_bytes, tensor.store_bytes) for tensor in tensors)
    return Traffic(
        loads=state.loads,
        stores=state.stores,
        load_bytes=sum(load for load, _ in per_argument),
        store_bytes=sum(store for _, store in per_argument),
        sector_bytes=state.sector_bytes,
        per_argument=per_argument,
    )


def kernel_kinds(launch) -> str:
    """A letter for each of the kernel's parameters: p a pointer, i a long long, d a double."""
    library = _load(launch.name, launch.source, tuple(launch.defines))
    return library.gfgp_kernel_kinds().decode()


def _check_launch(launch, order: str) -> None:
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    if launch.block % 32 or not 32 <= launch.block <= MAX_BLOCK:
        raise ValueError(f"block must be a multiple of 32 up to {MAX_BLOCK}, got {launch.block}")
    if not 1 <= launch.grid < 2**31:
        raise ValueError(f"grid must be from 1 to 2**31 - 1, got {launch.grid}")
    if launch.grid * launch.block > MAX_THREADS:
        raise ValueError(f"grid * block is {launch.grid * launch.block}, over {MAX_THREADS}")
    if not 0 <= launch.shared_bytes <= MAX_SHARED_BYTES:
        raise ValueError(
            f"shared_bytes must be from 0 to {MAX_SHARED_BYTES}, got {launch.shared_bytes}"
        )


def _check_arguments(launch, kinds: str) -> None:
    """Compare with the kernel's parameters."""
    if len(launch.args) != len(kinds):
        raise TypeError(f"{launch.name} takes {len(kinds)} arguments, got {len(launch.args)}")
    wanted = {"p": torch.Tensor | None, "i": int, "d": float}
    words = {"p": "Tensor or None", "i": "int", "d": "float"}
    for index, (argument, kind) in enumerate(zip(launch.args, kinds, strict=True)):
        if type(argument) is bool or not isinstance(argument, wanted[kind]):
            raise TypeError(
                f"{launch.name}: argument {index} must be a {words[kind]}, got {argument!r}"
            )
        if isinstance(argument, torch.Tensor) and argument.device.type != "cpu":
            raise ValueError(
                f"{launch.name}: argument {index} must be a CPU tensor, it is on {argument.device}"
            )


def _slot(argument) -> int:
    """The 64 bits that the kernel gets for an argument."""
    if argument is None:
        return 0
    if isinstance(argument, torch.Tensor):
        return argument.data_ptr()
    if isinstance(argument, float):
        return ctypes.c_ulonglong.from_buffer(ctypes.c_double(argument)).value
    if not -(2**63) <= argument < 2**63:
        raise ValueError(f"the integer argument {argument} does not fit in 64 bits")
    return argument % 2**64


def extent_bytes(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    if tensor.numel() == 0:
        return 0
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return (last + 1) * tensor.element_size()


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


@functools.cache
def _load(name: str, source: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    _engine()
    text = (
        f'#include "{HEADER}"\n#line 1 "{name}.cu"\n{source}\n'
        f'#line 1 "{name}"\nGFGP_HOST_KERNEL({name})\n'
    )
    # With -z defs, a name that neither the source nor the engine defines is an error here.
    library = ctypes.CDLL(
        compile_library(
            text,
            (*QUICK, *(f"-D{define}" for define in defines)),
            ("-Wl,-z,defs", str(_engine_path()), "-lm", "-lc", "-lgcc"),
        )
    )
    library.gfgp_kernel_kinds.restype = ctypes.c_char_p
    return library


@functools.cache
def _engine_path() -> Path:
    return compile_library(f'#include "{ENGINE}"\n', ("-O2",), ())


@functools.cache
def _engine() -> ctypes.CDLL:
    return ctypes.CDLL(_engine_path())


@functools.cache
def _own_text() -> bytes:
    return HEADER.read_bytes() + ENGINE.read_bytes()


def compile_library(text: str, options: tuple[str, ...], link: tuple[str, ...]) -> Path:
    """Compile C++ text into a shared library, kept in the temporary folder under its hash."""
    command = [*_compiler(), *FLAGS, *options, "-x", "c++", "-", "-x", "none", *link]
    key = hashlib.sha256(_own_text() + "\0".join([*command, text]).encode()).hexdigest()
    library = _cache_folder() / f"{key[:32]}.so"
    if library.exists():
        return library
    unfinished = library.with_suffix(f".{os.getpid()}")
    process = subprocess.run(
        [*command, "-o", str(unfinished)],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if process.returncode:
        raise RuntimeError(
            f"{shlex.join(command)} failed; {HEADER.name} says how a kernel must be written\n"
            f"{process.stderr}"
        )
    unfinished.rename(library)
    return library


@functools.cache
def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"gfgp-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user; set TMPDIR to a folder of your own")
    return folder
