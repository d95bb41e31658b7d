"""What hardly any run needs."""

from dataclasses import dataclass

from training.argument_types import natural_int, positive_int
from training.options.option import option


@dataclass(frozen=True)
class AdvancedOptions:
    """See ``training.options.Options``."""

    start_epoch: int = option(
        "advanced",
        "epochs to leave out, counted from 0; with --resume the checkpoint decides",
        default=0,
        parse=natural_int,
        tells=True,
    )
    worker_timeout: int = option(
        "advanced",
        "end with an error if --workers deliver no batch for so long (default: %(default)s)",
        default=600,
        parse=positive_int,
        metavar="SECONDS",
    )
    dist_timeout: int = option(
        "advanced",
        "how long a process waits for another one before the run ends with an error (default: "
        "%(default)s)",
        default=600,
        parse=positive_int,
        metavar="SECONDS",
    )
