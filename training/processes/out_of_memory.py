"""Out of memory: one line that says what was tried, instead of a traceback."""

import errno
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch

from training.errors import UserError

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

P = ParamSpec("P")


def out_of_memory_in_one_line(
    line: Callable[P, str],
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator whose function raises UserError where the memory does not suffice.

    Memory of the machine that the system grants and does not have is beyond it: Linux then kills
    a process.

    Args:
        line: called with the function's own arguments; what was tried and what takes less memory.
    """

    def decorate(work: Callable[P, None]) -> Callable[P, None]:
        @wraps(work)
        def checked(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                work(*args, **kwargs)
            except (MemoryError, OSError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                # What the failed pass holds is what there is too little of, even for words.
                traceback.clear_frames(error.__traceback__)
                raise UserError(line(*args, **kwargs)) from error

        return checked

    return decorate


def is_out_of_memory(error: Exception) -> bool:
    """Return whether ``error`` says that memory could not be had, of a GPU or of the machine."""
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        # The system's answer where a worker cannot be started, for instance.
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or str(error) == ONEDNN_TEXT
        or any(text in str(error) for text in TEXTS)
    )
