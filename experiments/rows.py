"""The raw results of an experiment, as CSV files of dataclasses."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from training.atomic_write import atomic_write
from training.errors import UserError

AnyRow = TypeVar("AnyRow")


def write_rows(rows: Sequence[Any], path: Path) -> None:
    """Write one or more ``rows``, dataclasses of one type, to the CSV file ``path``.

    Raises:
        UserError: the file cannot be written.
    """
    columns = [field.name for field in fields(rows[0])]
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_rows(kind: type[AnyRow], path: Path) -> list[AnyRow]:
    """Return the rows of the dataclass ``kind`` that ``write_rows`` wrote.

    Raises:
        UserError: there is no such file, or it is not one, or not all of one.
    """
    columns = [field.name for field in fields(kind)]
    try:
        with open(path, newline="", encoding="utf-8") as file:
            text = file.read()
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        if header != columns or not text.endswith("\n"):
            raise ValueError("its first line is another, or its last one has no end")
        return [
            kind(*(field.type(value) for field, value in zip(fields(kind), row, strict=True)))
            for row in rows
        ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: holds no rows of {kind.__name__} ({error!r})") from error
