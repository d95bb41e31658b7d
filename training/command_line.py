"""The parser of ``train_imagenet.py``, made of ``training.options``."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from training.errors import UserError
from training.options import GROUPS, OPTIONS, Options, flag_of


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """Return the options of the command line ``argv``, that of this process without it.

    Raises:
        UserError: ``argv`` is not a command line that ``--help`` describes.
        SystemExit: it asks for ``--help``, which is printed.

    Example:
        >>> parse_options(["--lr", "0.5"]).lr
        0.5
    """
    return Options(**vars(make_parser().parse_args(argv)))


class OneLineParser(argparse.ArgumentParser):
    """Reports its errors as every other error of the command line, in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of every option."""
    parser = OneLineParser(
        description="Train or evaluate a network with maximum-entropy pooling. Without options: "
        "ResNet-50 on the handwritten digits that come with scikit-learn.",
        allow_abbrev=False,
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for field in fields(Options):
        option = OPTIONS[field.name]
        flags = [flag_of(field.name)]
        if option.short is not None:
            flags.insert(0, f"-{option.short}")
        takes: dict[str, Any] = {"type": option.parse, "metavar": option.metavar}
        if field.default is False:
            takes = {"action": "store_true"}
        elif option.choices is not None:
            takes = {"choices": option.choices}
        if option.bare is not None:
            takes |= {"nargs": "?", "const": option.bare}
        groups[option.group].add_argument(*flags, default=field.default, help=option.help, **takes)
    return parser
