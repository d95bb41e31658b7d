"""Makes Python processes take the CPU for a GPU, so that scripts for a GPU run to their end.

For child processes, with this folder on ``PYTHONPATH``. There the device "cuda" means CPU tensors,
``torch.cuda`` answers as one GPU would, and the cupy backend runs on the stand-in driver. What only
a GPU does (streams, graphs, waiting) is not imitated. Test equipment, never a run-time path.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

REPOSITORY = Path(__file__).resolve().parents[3]
MEMORY = 40 * 2**30
"""In all; too little for tests that need most of a large GPU's memory."""

CPU = torch.device("cpu")


class CudaMeansCpu(TorchFunctionMode):
    """Replaces "cuda" in the arguments of all that PyTorch makes tensors by."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.cuda:
            return args[0]
        if function is torch.device:  # a name, and no tensor yet
            return function(*args, **kwargs)
        kwargs = {name: on_cpu(value) for name, value in kwargs.items()}
        return function(*map(on_cpu, args), **kwargs)


def on_cpu(argument):
    if isinstance(argument, torch.device) and argument.type == "cuda":
        return CPU
    if isinstance(argument, str) and argument.split(":")[0] == "cuda":
        return "cpu"
    return argument


class Event:
    """A moment of the host, which does all the work itself."""

    def __init__(self, enable_timing=False):
        self._moment = None

    def record(self, stream=None):
        self._moment = time.perf_counter()

    def synchronize(self):
        assert self._moment is not None, "waits for an event that was not recorded"

    def elapsed_time(self, end):
        return 1000 * max(end._moment - self._moment, 1e-9)


def nothing(*_):
    """Done already, or not needed."""


def install():
    properties = SimpleNamespace(
        name="stand-in GPU", total_memory=MEMORY, L2_cache_size=2**16, multi_processor_count=1,
        major=9, minor=0,
    )  # fmt: skip
    answers = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: 1,
        "get_device_name": lambda _=None: properties.name,
        "get_device_properties": lambda _=None: properties,
        "get_device_capability": lambda _=None: (9, 0),
        "mem_get_info": lambda _=None: (MEMORY, MEMORY),
        "memory_allocated": lambda _=None: 0,
        "max_memory_allocated": lambda _=None: 0,
        "memory_reserved": lambda _=None: 0,
        "reset_peak_memory_stats": nothing,
        "empty_cache": nothing,
        "synchronize": nothing,
        "Event": Event,
    }
    for name, answer in answers.items():
        assert hasattr(torch.cuda, name)
        setattr(torch.cuda, name, answer)
    torch.cuda.profiler.start = torch.cuda.profiler.stop = nothing
    install_driver()
    CudaMeansCpu().__enter__()


def install_driver():
    sys.path.append(str(REPOSITORY))
    from gfgp_cupy.backends import cupy
    from tests.support import stand_in_driver

    # The scripts have to find the repository by themselves.
    sys.path.remove(str(REPOSITORY))
    stand_in_driver.install()
    of_cpu = cupy.unavailable
    cupy.unavailable = lambda device: of_cpu(CPU)


install()
