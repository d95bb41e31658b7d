"""Random state: every draw of a run follows from its one seed."""

import random
import zlib
from typing import Any

import numpy as np
import torch


def draw_seed() -> int:
    """Return a fresh seed in [0, 2**32) from the operating system's entropy."""
    return random.SystemRandom().getrandbits(32)


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a 64-bit seed for ``purpose`` and ``numbers`` (epoch, rank, sample...).

    Seeds of different purposes or numbers are statistically independent
    (``numpy.random.SeedSequence``), and the same arguments give the same seed everywhere.

    Example:
        >>> derive_seed(0, "shuffle", 3) == derive_seed(0, "shuffle", 3)
        True
        >>> derive_seed(0, "shuffle", 3) == derive_seed(0, "shuffle", 4)
        False
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *numbers])
    return int(sequence.generate_state(1, np.uint64)[0])


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch (every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of the generators that ``seed_everything`` seeds, in plain types.

    Of the GPUs', that of ``device``, if it is one.
    """
    _, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Continue from what ``random_state`` returned."""
    random.setstate(state["python"])
    np.random.set_state(("MT19937", *state["numpy"]))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
