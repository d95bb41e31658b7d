"""Networks whose names and shapes alone are looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

__all__ = ["without_memory"]


@contextmanager
def without_memory() -> Iterator[None]:
    """Create networks on the meta device in the block.

    Their normal initial numbers are not drawn, either: to draw none takes PyTorch as long as all
    the rest.
    """
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "normal_", lambda tensor, *_, **__: tensor)
        yield
