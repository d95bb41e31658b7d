"""The check of an argument that must be one of a fixed set of names."""

from collections.abc import Sequence
from difflib import get_close_matches


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``.

    The message names ``argument``, ``value`` and the choices close to it, or every choice
    when none is close.
    """
    if value in choices:
        return
    close = get_close_matches(str(value), choices)
    if close:
        advice = f"did you mean {' or '.join(map(repr, close))}?"
    else:
        advice = f"choose one of {', '.join(choices)}"
    raise ValueError(f"unknown {argument} {value!r}: {advice}")
