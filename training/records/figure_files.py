"""Figures as files: rendered in memory, then written whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from models.readable import readable
from training.atomic_write import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120


def drawable(name: str) -> str:
    """Return what matplotlib draws as ``name``: it refuses bytes that are no text.

    Two ``$`` would make it read what is between them as a formula.

    Example:
        >>> drawable("cost in $"), drawable("caf\\udce9")
        ('cost in \\\\$', 'caf\ufffd')
    """
    return readable(name).replace("$", r"\$")


def save_figure(figure: Figure, pdf_path: Path) -> None:
    """Write ``pdf_path`` and, beside it, a PNG file of the same stem.

    Raises:
        WriteError: a file cannot be written.
    """
    for path in (pdf_path, pdf_path.with_suffix(".png")):
        # In memory first: on a full disk matplotlib's writers raise errors of many kinds.
        encoded = io.BytesIO()
        figure.savefig(encoded, format=path.suffix[1:], dpi=DPI)
        with atomic_write(path) as temporary:
            temporary.write_bytes(encoded.getbuffer())
