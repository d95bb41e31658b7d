"""The packages that a format needs."""

from importlib import import_module
from types import ModuleType

from training.errors import UserError


def imported(name: str, option: str) -> ModuleType:
    """Return the package ``name``, imported.

    Raises:
        UserError: it is not installed; ``option`` is what needs it.

    Example:
        >>> imported("json", "--format json").dumps([1])
        '[1]'
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"{option}: needs {name}: pip install {name}") from error
