"""Random numbers that are the same on every machine."""

import torch
from torch import Tensor

__all__ = ["random_numbers"]


def random_numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Standard normal numbers on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
