"""Train or evaluate the published networks: ``python train_imagenet.py --help``.

PyTorch takes seconds to import, so that it is imported only once the command line has been read.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.command_line import parse_options
from training.errors import exit_code

if TYPE_CHECKING:
    from training.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code.

    It is 2 if the user has to change something, and 130 after an interrupt from the keyboard
    before or after training.

    Raises:
        SystemExit: 143 or 130 after a signal during training; 1 if one of the processes that
            train has failed with a traceback.
    """

    def work() -> None:
        settings = parse_settings(argv)
        from training.command import start

        start(settings)

    try:
        return exit_code("train_imagenet.py", work)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def parse_settings(argv: Sequence[str] | None) -> "Settings":
    """Return the settings of the command line ``argv``, its open defaults filled in.

    Raises:
        UserError: ``argv`` is not a command line that ``--help`` describes.
    """
    options = parse_options(argv)
    from training.settings import Settings

    return Settings.of(options, os.environ)


if __name__ == "__main__":
    sys.exit(main())
