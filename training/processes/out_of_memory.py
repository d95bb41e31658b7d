"""Out of memory: one line that says what was tried, instead of a traceback."""

import errno
import math
import traceback
from collections.abc import Callable
from functools import wraps

import torch

from training.errors import UserError
from training.processes.launcher import Process
from training.settings import Settings

# PyTorch has a class of error for its CUDA allocator only. On the CPU, and where CUDA or one of
# its libraries allocates by itself, the text tells.
TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",
)
# oneDNN, which has found the operation supported, for lack of memory for its machine code.
ONEDNN_TEXT = "could not create a primitive"


def names_batch_when_out_of_memory(
    work: Callable[[Settings, Process], None],
) -> Callable[[Settings, Process], None]:
    """Return ``work`` so that it raises UserError where the memory does not suffice.

    Memory of the machine that the system grants and does not have is beyond it: Linux then kills
    a process.
    """

    @wraps(work)
    def checked(settings: Settings, process: Process) -> None:
        try:
            work(settings, process)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # What the failed pass holds is what there is too little of, even for words.
            traceback.clear_frames(error.__traceback__)
            raise UserError(out_of_memory_line(settings, process)) from error

    return checked


def is_out_of_memory(error: Exception) -> bool:
    """Return whether ``error`` says that memory could not be had, of a GPU or of the machine."""
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        # The system's answer where a worker cannot be started, for instance.
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or str(error) == ONEDNN_TEXT
        or any(text in str(error) for text in TEXTS)
    )


def out_of_memory_line(settings: Settings, process: Process) -> str:
    """Return what was tried and what takes less memory, in a line."""
    images = math.ceil(settings.images_per_step_here / settings.processes_here)
    tried = f"--batch-size {settings.images_per_step_here}"
    ways_out = ["lower --batch-size"]
    if not settings.evaluate:
        tried += f", --accum-steps {settings.accum_steps}"
        # Validation, whose pass keeps no activations, takes a process's images at once.
        ways_out.append("raise --accum-steps (for training)")
    if settings.amp == "off":
        ways_out.append("pass --amp bf16")
    return (
        f"out of memory on {process.device} with batches of {images} images in each process "
        f"({tried}, --amp {settings.amp}): {', or '.join(ways_out)}"
    )
