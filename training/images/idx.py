"""IDX files, the format of MNIST and the data sets in its place."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from training.errors import UserError

GZIP_START = b"\x1f\x8b"
UINT8 = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Return the array of bytes in the IDX file ``path``, gzipped or not.

    The format, from Y. LeCun's page of MNIST: two zero bytes, the type of the elements (0x08:
    unsigned bytes, the only one read here), the number of dimensions, each one's size as a
    big-endian int32, and the elements, the last dimension innermost.

    Raises:
        UserError: the file cannot be read, or is no IDX file of bytes, or not all of it is there.
    """
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_START):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy it here again") from error
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if content[:3] != bytes([0, 0, UINT8]) or len(content) < start:
        raise UserError(f"{path}: is no IDX file of bytes; copy it here again")
    shape = tuple(np.frombuffer(content, ">i4", dimensions, offset=4).tolist())
    elements = np.frombuffer(content, np.uint8, offset=start)
    if min(shape, default=-1) < 0 or len(elements) != np.prod(shape, dtype=np.int64):
        raise UserError(
            f"{path}: says {'x'.join(map(str, shape))} bytes and holds {len(elements)}; copy it "
            "here again"
        )
    return elements.reshape(shape)
