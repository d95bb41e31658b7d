"""The one error that a person at the command line can put right, and what a command makes of it."""

import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what to do about it.

    A command prints it as one line on the standard error and exits with code 2: ``exit_code``.
    """


def exit_code(program: str, work: Callable[[], None]) -> int:
    """Do ``work`` and return 0; return 2 where it raises ``UserError``, told in one line.

    Example:
        >>> exit_code("program", lambda: None)
        0
    """
    try:
        work()
    except UserError as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def shortened(names: Sequence[str]) -> str:
    """Return the names for a line, of many the first.

    Example:
        >>> shortened(list("abcdefgh"))
        'a, b, c, d, e, f, …'
    """
    return ", ".join([*names[:6], *(["…"] if len(names) > 6 else [])])
