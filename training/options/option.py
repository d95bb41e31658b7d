"""What is said of one option, and the groups that ``--help`` shows them in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

GROUPS = {
    "data": "data",
    "network": "network",
    "recipe": "recipe",
    "optimizer": "optimizer",
    "augmentation": "augmentation",
    "computing": "computing",
    "checkpoints": "checkpoints and evaluation",
    "output": "output",
    "processes": "devices and processes",
    "advanced": "advanced",
}
"""The groups of ``--help`` in their order, and their titles."""

WHERE_AND_HOW = ("output", "processes", "advanced")
"""Groups whose options say where and how a run is made, and not what is trained."""


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its name, type and default.

    Attributes:
        group: a key of ``GROUPS``.
        help: a sentence of ``--help``, ``%`` written twice.
        metavar: stands for the value in ``--help``, where there is one and no ``choices``.
        short: the option's letter, if it has one.
        parse: makes a value of its text.
        choices: the values that there are, if not any.
        bare: the value of the option without one, where it may stand so.
        switch: it takes no value; it is on where it stands, off with ``--no-`` before its name, as
            are those with a ``bare`` value.
        from_recipe: the recipe decides where it is not given.
        tells: it says what is trained, and not where or how the run is made.
    """

    group: str
    help: str
    metavar: str = "N"
    short: str | None = None
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    bare: Any = None
    switch: bool = False
    from_recipe: bool = False
    tells: bool = True

    @property
    def off(self) -> Any:
        """The value that takes out what the recipe has."""
        return False if self.switch else 0


def option(group: str, help: str, default: Any = None, **others: Any) -> Any:
    """Return a field of ``Options``: its default and, from the other arguments, its ``Option``."""
    others = {"tells": group not in WHERE_AND_HOW, "switch": default is False} | others
    return field(default=default, metadata={"option": Option(group, help, **others)})
