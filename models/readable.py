"""Names of files and of classes as text that any file can hold."""

import re


def readable(text: str) -> str:
    """Return ``text`` with U+FFFD in place of each byte of a file's name that is no text.

    Such a byte is a lone surrogate in Python, which no file in UTF-8 can hold.

    Example:
        >>> readable(b"caf\\xe9".decode(errors="surrogateescape"))
        'caf\ufffd'
    """
    return re.sub(r"[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
