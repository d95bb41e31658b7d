"""Where the processes of a run meet: the address of ``--dist-url``."""

from urllib.parse import urlsplit

from training.errors import UserError


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
    raise UserError(f"--dist-url {dist_url}: must be tcp://HOST:PORT, like tcp://127.0.0.1:8080")
