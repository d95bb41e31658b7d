"""The packages that a format needs."""

from types import ModuleType

import models.packages
from training.errors import UserError


def imported(name: str, option: str) -> ModuleType:
    """Return the package ``name``, or a module of one, imported.

    Raises:
        UserError: the package is not installed; ``option`` is what needs it.
    """
    try:
        return models.packages.imported(name, option)
    except models.packages.MissingPackageError as error:
        raise UserError(str(error)) from error
