"""Programs that ONNX has no means for."""

from __future__ import annotations

import warnings
from typing import NoReturn

__all__ = ["refuse_open_sizes"]


def refuse_open_sizes(what: str) -> NoReturn:
    """Ends an export to ONNX for images of any size, of which ``what`` depends on the size.

    It warns, too: after an error the exporter tries other ways, and shows that of the last alone.

    Raises:
        ValueError: always.
    """
    message = (
        f"{what} differs from image size to image size, for which an ONNX program has no means: "
        "export it for images of one size"
    )
    warnings.warn(message, stacklevel=2)
    raise ValueError(message)
