"""Packages that only some need: imported when they are asked for."""

from importlib import import_module
from types import ModuleType


class MissingPackageError(ModuleNotFoundError):
    """A package is not installed; the message says how to install it."""


def imported(name: str, needed_by: str) -> ModuleType:
    """Return the package ``name``, or a module of one, imported.

    Raises:
        MissingPackageError: the package is not installed; ``needed_by`` is what needs it.

    Example:
        >>> imported("json", "the example").dumps([1])
        '[1]'
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingPackageError(f"{needed_by}: needs {package}: pip install {package}") from error
