"""Lists and numbers in the sentences of the study's page."""

from collections.abc import Sequence

from experiments.comparison import PairedDifference


def listed(words: Sequence[str]) -> str:
    """Return ``words`` as a list in a sentence.

    Example:
        >>> listed(["one", "two", "three"])
        'one, two and three'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def points(value: float, sign: str = "") -> str:
    """Return ``value`` with two decimals, or those up to the first that is not 0.

    Example:
        >>> points(0.514), points(0.0012, "+"), points(-0.0)
        ('0.51', '+0.001', '0.00')
    """
    return f"{value:{sign}.1g}" if 0 < abs(value) < 0.005 else f"{value + 0.0:{sign}.2f}"


def with_interval(found: PairedDifference, more: str = "") -> str:
    """Return a mean difference with its interval and, behind that, what ``more`` there is to say.

    Example:
        >>> with_interval(PairedDifference.of("max", [9.0, 8.0], [9.5, 8.75]), more="; 2 seeds")
        '-0.62 (-2.21 to +0.96; 2 seeds)'
    """
    low, high = points(found.low, "+"), points(found.high, "+")
    return f"{points(found.mean, '+')} ({low} to {high}{more})"


def span(values: Sequence[float], digits: int = 2) -> str:
    """Return the least and the largest of ``values``, or one number where both are the same.

    Example:
        >>> span([2.0, 1.25, 1.5]), span([0.2, 0.2001]), span([9.0, 11.0], digits=0)
        ('1.25 to 2.00', '0.20', '9 to 11')
    """
    ends = [f"{end:.{digits}f}" for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))
