"""What one process notices when another one ends or hangs: its communication fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch.distributed as dist

from training.errors import UserError

if TYPE_CHECKING:
    # What it imports may be missing where only tests of the GPU are run.
    from training.settings import Settings

# Gloo's errors of communication reach Python as plain RuntimeErrors, as a bug's do. They begin
# with their place in the transport's source, other failures of Gloo ("[enforce fail at …") do not;
# the second is what an operation gets to hear whose neighbour has timed out.
# Source: gloo/common/error.h and gloo/transport/tcp/unbound_buffer.cc, github.com/pytorch/gloo.
GLOO_ERROR = re.compile(r"\[\S*gloo/transport/\S*:\d+\] (.+)|(Application timeout caused.+)")


class LostContact(UserError):
    """The communication with another process has failed, most often because that one has."""


@contextmanager
def lost_contact_in_one_line(settings: Settings, rank: int) -> Iterator[None]:
    """Turn failures of communication, and no other error, into one that is told in a line.

    Raises:
        LostContact: what PyTorch raised was a ``torch.distributed.DistError``, NCCL's for instance,
            or Gloo's.
    """
    try:
        yield
    except RuntimeError as error:
        reason = reason_of_lost_contact(error)
        if reason is None:
            raise
        raise LostContact(
            f"process {rank} has lost contact with another one, which has ended or has not "
            f"answered for {settings.dist_timeout} s (--dist-timeout): {reason}; "
            f"{way_on(settings)}"
        ) from error


def reason_of_lost_contact(error: RuntimeError) -> str | None:
    """Return what a failure of communication says, in a line; None if ``error`` is none.

    Example:
        >>> reason_of_lost_contact(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    """
    if isinstance(error, dist.DistError):
        return " ".join(str(error).split("Exception raised from")[0].split())
    match = GLOO_ERROR.match(str(error))
    return match and (match[1] or match[2]).split(". ")[0]


def way_on(settings: Settings) -> str:
    """Return how to go on with a run after one of its processes has failed."""
    if settings.evaluate:
        return "start it again"
    return f"--resume auto goes on from the newest whole checkpoint in --out-dir {settings.out_dir}"
