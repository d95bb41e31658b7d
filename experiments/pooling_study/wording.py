"""Lists and numbers in the sentences of the study's page."""

from collections.abc import Sequence


def listed(words: Sequence[str]) -> str:
    """Return ``words`` as a list in a sentence.

    Example:
        >>> listed(["one", "two", "three"])
        'one, two and three'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def points(value: float, sign: str = "") -> str:
    """Return ``value`` with two decimals, or three where these are 0.

    Example:
        >>> points(0.514), points(0.0012, "+"), points(0.0)
        ('0.51', '+0.001', '0.00')
    """
    digits = 3 if abs(value) < 0.005 and value else 2
    return f"{value:{sign}.{digits}f}"
