"""The stand-in's modules, functions and launches: what CuPy asks of the driver, executed."""

import ctypes
import functools
import re
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy
import torch
from torch.utils.dlpack import to_dlpack

from benchmarks.cuda_on_cpu.run import compile_library, extent_bytes, kernel_kinds, run_launch
from gfgp_cupy.kernels import Launch

from .cubin import CompiledKernel, kernels_of
from .runtime import replace_runtime

__all__ = ["STREAM", "capsule_of_gpu", "crossing", "launch_count", "load_driver"]

SOURCE = Path(__file__).with_name("libcuda.cpp")
STREAM = 0x57AE_A300
"""The address of "PyTorch's current stream"."""
REFUSED = 1
DL_CUDA = 2

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = ctypes.py_object, ctypes.c_char_p


_MACROS_AND_SOURCE = re.compile(r"((?:#define [^\n]*\n)*)(.*)", re.DOTALL)

_HANDLE = ctypes.c_void_p
_LOAD = ctypes.CFUNCTYPE(ctypes.c_int, _HANDLE, ctypes.POINTER(_HANDLE))
_FIND = ctypes.CFUNCTYPE(ctypes.c_int, _HANDLE, ctypes.c_char_p, ctypes.POINTER(_HANDLE))
_THREE = ctypes.POINTER(ctypes.c_uint * 3)
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, _HANDLE, _THREE, _THREE, ctypes.c_uint, _HANDLE, ctypes.POINTER(_HANDLE)
)


class _Callbacks(ctypes.Structure):
    """``GfgpDriver`` of libcuda.cpp."""

    _fields_ = ("load", _LOAD), ("find", _FIND), ("launch", _LAUNCH)


class Refused(Exception):
    """The launch is one that a GPU would not take, or would do harm with."""


@dataclass(frozen=True)
class Module:
    """What was compiled, and the kernels in the machine code that it was compiled to."""

    source: str
    defines: tuple[str, ...]
    kernels: dict[str, CompiledKernel]


@dataclass(frozen=True)
class Function:
    module: Module
    name: str


class _ThisThread(threading.local):
    """What is under way: CuPy hands the driver less than is needed to check it."""

    def __init__(self) -> None:
        self.program: str | None = None  # the text that is compiled and loaded
        self.arguments: list[tuple[str, int]] | None = None  # kinds and sizes
        self.crossed: list[tuple[int, int]] = []  # where tensors begin and end


_now = _ThisThread()
_handles: list[Module | Function] = []  # a handle is a place in it, counted from 1
_launches = 0


def launch_count() -> int:
    """How many launches have been handed to the driver in this process."""
    return _launches


def capsule_of_gpu(tensor: torch.Tensor):
    """A CPU tensor's DLPack capsule, which says that the memory is a GPU's."""
    capsule = to_dlpack(tensor)
    managed_tensor = _capsule_pointer(capsule, b"dltensor")
    # A DLManagedTensor begins with the address and the type of the device.
    ctypes.c_int32.from_address(managed_tensor + ctypes.sizeof(_HANDLE)).value = DL_CUDA
    return capsule


def crossing(tensor: torch.Tensor):
    """:func:`capsule_of_gpu`, and the next launch of this thread may use the memory."""
    capsule = capsule_of_gpu(tensor)
    _now.crossed.append((tensor.data_ptr(), tensor.data_ptr() + extent_bytes(tensor)))
    return capsule


@functools.cache
def load_driver() -> None:
    """Puts the stand-in between CuPy and the CPU; nothing but CuPy finds it, least of all PyTorch.

    Raises:
        RuntimeError: as :func:`replace_runtime`.
    """
    replace_runtime()
    library = _library()
    library.gfgp_set_driver(ctypes.byref(_callbacks))
    open_library = ctypes.CDLL

    def instead(name, *args, **kwargs):
        return library if name == "libcuda.so.1" else open_library(name, *args, **kwargs)

    with mock.patch.object(ctypes, "CDLL", instead):
        from cupy_backends.cuda.api import driver

        driver.CUDADriverError(REFUSED)  # the first thing asked of the driver opens its library

    import cupy

    cupy.RawKernel = _noting(cupy.RawKernel)


@functools.cache
def _library() -> ctypes.CDLL:
    # Not by the soname libcuda.so.1: PyTorch's runtime would find it in the process.
    return ctypes.CDLL(compile_library(SOURCE.read_text(), ("-O1",), ()))


def _guarded(function):
    """As a callback of C: a refusal becomes an error code and its text."""

    @functools.wraps(function)
    def callback(*args) -> int:
        try:
            function(*args)
        except Exception as error:
            _library().gfgp_set_error(f"{type(error).__name__}: {error}".encode())
            return REFUSED
        return 0

    return callback


def _noting(RawKernel):
    class NotingRawKernel(RawKernel):
        def compile(self, *args, **others):
            _now.program = self.code
            try:
                super().compile(*args, **others)
            finally:
                _now.program = None

        def __call__(self, grid, block, args, **others):
            _now.arguments = [_kind_and_size(arg) for arg in args]
            try:
                super().__call__(grid, block, args, **others)
            finally:
                _now.arguments = None
                _now.crossed.clear()

    return NotingRawKernel


def _kind_and_size(argument) -> tuple[str, int]:
    """How CuPy passes an argument: what it is and how many bytes."""
    import cupy

    if isinstance(argument, cupy.cuda.MemoryPointer):
        return "pointer", 8
    if argument is None or type(argument) is int:
        return "int", 8
    if type(argument) is float:
        return "float", 8
    if isinstance(argument, numpy.generic | numpy.ndarray):
        return argument.dtype.name, argument.nbytes
    raise TypeError(f"the stand-in knows no kernel argument of type {type(argument).__name__}")


# ---------------------------------------------------------------- what the library calls


def _new_handle(of: Module | Function, out) -> None:
    _handles.append(of)
    out[0] = len(_handles)


def _load(image: int, out) -> None:
    if _now.program is None:
        raise Refused("a module is loaded that RawKernel did not compile")
    macros, source = _MACROS_AND_SOURCE.fullmatch(_now.program).groups()
    # As Launch.defines has them: benchmarks.cuda_on_cpu keeps what it has compiled by these.
    defines = tuple(
        line.removeprefix("#define ").replace(" ", "=", 1) for line in macros.splitlines()
    )
    _new_handle(Module(source, defines, kernels_of(image)), out)


def _find(module: int, name: bytes, out) -> None:
    module, name = _handles[module - 1], name.decode()
    if name not in module.kernels:
        raise Refused(f"the module has no kernel {name}, only {sorted(module.kernels)}")
    _new_handle(Function(module, name), out)


def _launch(function: int, grid, block, shared_bytes: int, stream: int | None, parameters) -> None:
    global _launches
    _launches += 1
    function = _handles[function - 1]
    (grid, *more_grid), (block, *more_block) = grid.contents, block.contents
    if [*more_grid, *more_block] != [1] * 4:
        raise Refused(f"grid and block have one dimension here, got {more_grid}, {more_block}")
    kernel = function.module.kernels[function.name]
    if block > kernel.largest_block:
        raise Refused(f"{block} threads a block, compiled for at most {kernel.largest_block}")
    if (stream or 0) != torch._C._cuda_getCurrentRawStream(0):
        raise Refused(f"launched on stream {stream}, which is not PyTorch's current one")
    launch = Launch(
        name=function.name,
        source=function.module.source,
        defines=function.module.defines,
        grid=grid,
        block=block,
        args=(),
        shared_bytes=shared_bytes,
    )
    launch.args = _arguments(launch, kernel, parameters)
    run_launch(launch)


def _arguments(launch: Launch, kernel: CompiledKernel, parameters) -> tuple:
    """The kernel's arguments, read from where CuPy has put them."""
    given = _now.arguments
    if given is None:
        raise Refused(f"{launch.name} was not called as a RawKernel")
    if len(given) != len(kernel.parameter_bytes):
        raise Refused(
            f"{launch.name} takes {len(kernel.parameter_bytes)} arguments, got {len(given)}"
        )
    kinds = kernel_kinds(launch)
    arguments = []
    for index, ((what, size), wanted, kind) in enumerate(
        zip(given, kernel.parameter_bytes, kinds, strict=True)
    ):
        where = f"argument {index} of {launch.name}"
        if size != wanted:
            raise Refused(f"{where} has {wanted} bytes, got {what} of {size}")
        if not parameters[index]:
            raise Refused(f"{where} is missing: there is nothing at its place in the list")
        arguments.append(_argument(where, what, kind, ctypes.string_at(parameters[index], size)))
    return tuple(arguments)


def _argument(where: str, what: str, kind: str, given: bytes):
    form, fits = {
        "p": ("<Q", what == "pointer" or not any(given)),
        "i": ("<q", what == "int"),
        "d": ("<d", what == "float"),
    }[kind]
    if not fits:
        words = {"p": "a pointer", "i": "a long long", "d": "a double"}
        raise Refused(f"{where} is {words[kind]}, got {what}")
    (value,) = struct.unpack(form, given)
    return _memory(where, value) if kind == "p" else value


def _memory(where: str, address: int) -> torch.Tensor | None:
    """The bytes from ``address`` to the end of the tensor it lies in."""
    if address == 0:
        return None
    for begin, end in _now.crossed:
        if begin <= address < end:
            memory = (ctypes.c_uint8 * (end - address)).from_address(address)
            return torch.frombuffer(memory, dtype=torch.uint8)
    raise Refused(f"{where} points to {address:#x}, outside every tensor of this launch")


# C code points to these.
_callbacks = _Callbacks(_LOAD(_guarded(_load)), _FIND(_guarded(_find)), _LAUNCH(_guarded(_launch)))
