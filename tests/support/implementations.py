"""The implementations of the operator that tests compare with the formulas.

To cover another backend, add it to BACKENDS.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from benchmarks.cuda_on_cpu import run_launch
from benchmarks.cuda_on_cpu.run import extent_bytes
from gfgp_cupy.backends import backend_module
from gfgp_cupy.kernels import Launch, passes
from tests.support import stand_in_driver
from tests.support.cxx import needs_cxx
from tests.support.kernel_cases import specialisation, specialisations
from tests.support.stand_in_driver import needs_stand_in

__all__ = [
    "Backend",
    "Implementation",
    "each_backend",
    "each_implementation",
    "each_implementation_of_its_own",
    "each_place",
    "kernels_on_cpu",
    "needs_cuda",
    "run_on_cpu",
    "run_on_gpu",
]

stand_in_driver.prepare()

needs_cuda = pytest.mark.gpu  # conftest.py skips it where there is none


@dataclass(frozen=True)
class Backend:
    """A backend, and the kind of device whose tensors it is tried on."""

    name: str
    device: str

    def parameter(self, value):
        """``value`` as a test's parameter, to be skipped where the device is missing."""
        marks = [needs_cuda] if self.device == "cuda" else []
        return pytest.param(value, marks=marks, id=f"{self.name}-{self.device}")


BACKENDS = (
    Backend("numba", "cpu"),
    Backend("torch", "cpu"),
    Backend("torch", "cuda"),
    Backend("cupy", "cuda"),
)


@dataclass(frozen=True)
class Implementation:
    """The functions of a backend's module, for tensors on ``device``.

    ``flushes``: float32 numbers below 2⁻¹²⁶, and so bfloat16 ones, may become 0.
    """

    device: str
    forward: Callable
    forward_with_spread: Callable
    backward: Callable
    lam_backward: Callable
    flushes: bool = False


FUNCTIONS = ("forward", "forward_with_spread", "backward", "lam_backward")


def run_on_cpu(launch: Launch, order: str = "forward") -> None:
    """Runs a kernel's source on CPU tensors, if it is among those that are compiled for GPUs."""
    assert specialisation(launch) in specialisations(), (
        f"{launch.name} with {' '.join(launch.defines)} is not among the specialisations that "
        "test_launches.py compiles: add a case to kernel_cases.py"
    )
    run_launch(launch, order=order)


@torch.no_grad()
def run_on_gpu(launch: Launch) -> None:
    """Runs a launch of CPU tensors on the GPU, and copies back what it has left in them."""
    device = torch.device("cuda", torch.cuda.current_device())
    moved = {id(arg): _moved(arg, device) for arg in launch.args if isinstance(arg, torch.Tensor)}
    there = replace(launch, args=tuple(moved.get(id(arg), arg) for arg in launch.args))
    backend_module("cupy").run_launch(there, device)
    for arg in launch.args:
        if isinstance(arg, torch.Tensor):
            _memory(arg).copy_(_memory(moved[id(arg)]))


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of the same strides, though they be 0."""
    return _memory(tensor).to(device).as_strided(tensor.shape, tensor.stride())


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """What the tensor's elements lie in, as a line."""
    return tensor.as_strided((extent_bytes(tensor) // tensor.element_size(),), (1,))


each_place = pytest.mark.parametrize(
    "run",
    [
        pytest.param(run_launch, marks=needs_cxx, id="cpu"),
        pytest.param(run_on_gpu, marks=needs_cuda, id="gpu"),
    ],
)
"""Where a kernel's source is run on CPU tensors; on the CPU the bytes that it moves are counted."""


def kernels_on_cpu(run: Callable[[Launch], object] = run_on_cpu) -> Implementation:
    """The kernels' sources for CPU tensors, each launch executed by ``run``."""
    functions = (getattr(passes, name) for name in FUNCTIONS)
    return Implementation("cpu", *(functools.partial(f, run=run) for f in functions))


def _of_backend(backend: Backend) -> Implementation:
    module = backend_module(backend.name)
    functions = (getattr(module, name) for name in FUNCTIONS)
    # CuPy compiles with -ftz=true.
    return Implementation(backend.device, *functions, flushes=backend == Backend("cupy", "cuda"))


def _on_stand_in() -> Implementation:
    """The cupy backend for CPU tensors: launched through CuPy, executed by ``cuda_on_cpu``."""
    module, on_cpu_tensors = backend_module("cupy"), stand_in_driver.on_cpu_tensors()
    return Implementation("cpu", *(on_cpu_tensors(getattr(module, name)) for name in FUNCTIONS))


each_backend = pytest.mark.parametrize(
    "backend", [backend.parameter(backend) for backend in BACKENDS]
)


def _each_implementation_of(backends):
    of_backends = (backend.parameter(_of_backend(backend)) for backend in backends)
    stand_in = pytest.param(_on_stand_in(), marks=needs_stand_in, id="cupy-stand_in")
    return pytest.mark.parametrize("implementation", [*of_backends, stand_in])


each_implementation = _each_implementation_of(BACKENDS)
each_implementation_of_its_own = _each_implementation_of(
    [backend for backend in BACKENDS if backend != Backend("torch", "cuda")]
)
"""Without PyTorch's operators on a GPU, which are those that the CPU has."""
