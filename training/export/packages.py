"""The packages that a format needs."""

from importlib import import_module
from types import ModuleType

from training.errors import UserError


def imported(name: str, option: str) -> ModuleType:
    """Return the package ``name``, or a module of one, imported.

    Raises:
        UserError: the package is not installed; ``option`` is what needs it.

    Example:
        >>> imported("json", "--format json").dumps([1])
        '[1]'
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UserError(f"{option}: needs {package}: pip install {package}") from error
