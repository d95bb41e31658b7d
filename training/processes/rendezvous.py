"""Where the processes of a run meet, and how many machines they are on."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from training.errors import UserError
from training.options.processes import ProcessOptions

FROM_ENVIRONMENT = "env://"


def address_of(dist_url: str) -> tuple[str, int]:
    """Return the host and port of ``tcp://HOST:PORT``.

    Raises:
        UserError: ``dist_url`` is not of that form.

    Example:
        >>> address_of("tcp://127.0.0.1:8080")
        ('127.0.0.1', 8080)
    """
    try:
        parts = urlsplit(dist_url)
        if parts.scheme == "tcp" and parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:  # a port that is no number or out of range: the same advice
        pass
    raise UserError(
        f"--dist-url {dist_url}: must be tcp://HOST:PORT, like tcp://127.0.0.1:8080, or env://"
    )


def meeting_of(options: ProcessOptions, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return ``world_size``, ``rank`` and ``dist_url`` with what ``environ`` says filled in.

    The environment decides where ``options`` say -1, and where they say nothing under ``env://``;
    without its variables there is one machine. Only several processes need an address.

    Raises:
        UserError: a variable is no whole number, or there is no address.

    Example:
        >>> meeting_of(ProcessOptions(dist_url="env://"), {"MASTER_ADDR": "a", "MASTER_PORT": "80"})
        {'world_size': 1, 'rank': 0, 'dist_url': 'tcp://127.0.0.1:8080'}
    """
    by_environment = options.dist_url == FROM_ENVIRONMENT
    filled = {"world_size": options.world_size, "rank": options.rank}
    for name, variable, default in (("world_size", "WORLD_SIZE", 1), ("rank", "RANK", 0)):
        if filled[name] == -1 or (filled[name] is None and by_environment):
            filled[name] = _number_of(variable, environ, default)
        elif filled[name] is None:
            filled[name] = default
    dist_url = options.dist_url
    if by_environment and (filled["world_size"] > 1 or options.multiprocessing_distributed):
        dist_url = _address_in(environ)
    elif by_environment:
        dist_url = ProcessOptions().dist_url
    return {**filled, "dist_url": dist_url}


def _number_of(variable: str, environ: Mapping[str, str], default: int) -> int:
    text = environ.get(variable, str(default))
    if not text.isdecimal():
        raise UserError(f"the environment's {variable} must be a whole number, not {text!r}")
    return int(text)


def _address_in(environ: Mapping[str, str]) -> str:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environ]
    if missing:
        raise UserError(
            f"--dist-url {FROM_ENVIRONMENT}: the environment has no {missing[0]}; set it to where "
            "machine 0 is met, or pass --dist-url tcp://HOST:PORT"
        )
    host = environ["MASTER_ADDR"]
    return f"tcp://{f'[{host}]' if ':' in host else host}:{environ['MASTER_PORT']}"
