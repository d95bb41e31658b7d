"""Records that cannot be written: a line says so, and training goes on without them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from training.atomic_write import WriteError
from training.errors import UserError

LONGEST_REASON = 300


@dataclass
class Outcome:
    """Of a block of ``going_on``: the ``error`` that it ended with, None where it did not."""

    error: UserError | None = None


@contextmanager
def going_on(failure: str) -> Iterator[Outcome]:
    """Let the block fail in a line on the standard error, which begins with ``failure``.

    This is the one place that knows what writers raise. A full disk is an OSError here, a
    zlib.error or an AttributeError there; a lost network is whatever a library makes of it. A
    UserError has a line of its own.

    Example:
        >>> with going_on("cannot write the log") as outcome:
        ...     raise OSError(28, "No space left on device")
        >>> print(outcome.error)
        cannot write the log (No space left on device)
    """
    outcome = Outcome()
    try:
        yield outcome
    except Exception as error:
        outcome.error = error if isinstance(error, UserError) else _in_a_line(failure, error)
        print(f"{outcome.error}; training goes on", file=sys.stderr, flush=True)


def _in_a_line(failure: str, error: Exception) -> WriteError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:LONGEST_REASON]
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return WriteError(f"{failure} ({kind}{reason})")
