"""The parser of ``train_imagenet.py``, made of ``training.options``."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from training.errors import UserError
from training.options import GROUPS, OPTIONS, Options, flag_of
from training.options.config_file import words_of_config


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """Return the options of the command line ``argv``, that of this process without it.

    Raises:
        UserError: ``argv`` is not a command line that ``--help`` describes.
        SystemExit: it asks for ``--help``, which is printed.

    Example:
        >>> parse_options(["--lr", "0.5"]).lr
        0.5
    """
    parser, words = make_parser(), list(sys.argv[1:] if argv is None else argv)
    config = parser.parse_args(words).config
    if config is not None:
        of_file = words_of_config(config)
        try:
            parser.parse_args(of_file)
        except UserError as error:
            raise UserError(f"--config {config}: {error}") from error
        words = [*of_file, *words]
    named = vars(parser.parse_args(words))
    del named["config"]
    return Options(**named)


class OneLineParser(argparse.ArgumentParser):
    """Reports its errors as every other error of the command line, in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of every option."""
    parser = OneLineParser(
        description="Train or evaluate a network with maximum-entropy pooling. Without options: "
        "ResNet-50 on the handwritten digits that come with scikit-learn. A long option may be "
        "shortened as long as it is one option's.",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="options from a .json or .yaml file, such as a run's config.json, which repeats it; "
        "those of the command line come on top, where --no-OPTION switches off one without a value",
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for field in fields(Options):
        option = OPTIONS[field.name]
        flags = [flag_of(field.name)]
        if option.short is not None:
            flags.insert(0, f"-{option.short}")
        takes: dict[str, Any] = {"type": option.parse, "metavar": option.metavar}
        group = groups[option.group]
        if option.switch:
            takes = {"action": "store_true"}
        elif option.choices is not None:
            takes = {"choices": option.choices}
        if option.bare is not None:
            takes |= {"nargs": "?", "const": option.bare}
        if option.switch or option.bare is not None:
            group.add_argument(
                flag_of(f"no_{field.name}"),
                dest=field.name,
                action="store_const",
                const=option.off if option.from_recipe else field.default,
                default=field.default,
                help=argparse.SUPPRESS,
            )
        group.add_argument(*flags, default=field.default, help=option.help, **takes)
    return parser
