"""What one process notices when another one ends or hangs: its communication fails."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from training.errors import UserError

# Gloo's errors of communication reach Python as plain RuntimeErrors, as a bug's do. They begin
# with their place in the transport's source, other failures of Gloo ("[enforce fail at …") do not;
# the second is what an operation gets to hear whose neighbour has timed out.
# Source: gloo/common/error.h and gloo/transport/tcp/unbound_buffer.cc, github.com/pytorch/gloo.
GLOO_ERROR = re.compile(r"\[\S*gloo/transport/\S*:\d+\] (.+)|(Application timeout caused.+)")


class PeerFailure(UserError):
    """The communication with another process has failed, most often because that one has."""


@contextmanager
def peer_failure_in_one_line(rank: int, timeout: int, way_on: str) -> Iterator[None]:
    """Turn failures of communication, and no other error, into one that is told in a line.

    Args:
        rank: of this process.
        timeout: seconds that it waits for another one.
        way_on: what a person can do then; it ends the line.

    Raises:
        PeerFailure: what PyTorch raised was a ``torch.distributed.DistError``, NCCL's for instance,
            or Gloo's.
    """
    try:
        yield
    except RuntimeError as error:
        reason = reason_of_peer_failure(error)
        if reason is None:
            raise
        raise PeerFailure(
            f"process {rank} has lost contact with another one, which has ended or has not "
            f"answered for {timeout} s (--dist-timeout): {reason}; {way_on}"
        ) from error


def reason_of_peer_failure(error: RuntimeError) -> str | None:
    """Return what a failure of communication says, in a line; None if ``error`` is none.

    Example:
        >>> reason_of_peer_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    """
    if isinstance(error, dist.DistError):
        return " ".join(str(error).split("Exception raised from")[0].split())
    match = GLOO_ERROR.match(str(error))
    return match and (match[1] or match[2]).split(". ")[0]
