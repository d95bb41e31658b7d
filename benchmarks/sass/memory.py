"""Global and shared memory, and which sectors of it a block touches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["GlobalMemory", "access_bytes"]

SPACE = 36
"""Each tensor has 2^36 bytes of addresses of its own, so an address tells its tensor."""

SECTOR = 5  # 2^5 bytes
BLOCK = 40  # where a block's number stands in front of a sector's

Numbers = Callable[[Tensor, int], Tensor]
"""So many numbers of what a tensor without memory holds."""


class GlobalMemory:
    """The tensors of a launch.

    One without memory (of device "meta") is a random one that repeats every ``PERIOD`` bytes, so
    that a launch of any size fits.

    Attributes:
        arguments: the kernel's parameters, 64 bits each.
    """

    PERIOD = 1 << 19

    def __init__(self, args: tuple[Tensor | int | None, ...], numbers: Numbers) -> None:
        self.arguments, self._sizes, contents = [], [0], [np.zeros(4, np.uint32)]
        self._tensors: list[Tensor | None] = [None]
        for arg in args:
            if isinstance(arg, Tensor):
                self.arguments.append(len(contents) << SPACE)
                self._sizes.append(_extent(arg) * arg.element_size())
                contents.append(self._content(arg, numbers))
                self._tensors.append(arg)
            else:
                self.arguments.append((arg or 0) & 0xFFFFFFFFFFFFFFFF)
        self._periods = [4 * content.size for content in contents]
        self._starts = np.cumsum([0, *self._periods[:-1]])
        self._words = np.concatenate(contents)
        self._loaded: list[np.ndarray] = []
        self._stored: list[tuple[np.ndarray, int]] = []  # blocks, bytes

    def _content(self, tensor: Tensor, numbers: Numbers) -> np.ndarray:
        size = tensor.element_size()
        bytes = -(-_extent(tensor) * size // 16) * 16
        if tensor.device.type == "meta":
            content = numbers(tensor, min(bytes, self.PERIOD) // size)
        else:
            content = torch.zeros(bytes // size, dtype=tensor.dtype)
            content[: _extent(tensor)] = tensor.as_strided((_extent(tensor),), (1,))
        return content.view(torch.uint8).numpy().view(np.uint32).copy()

    def load_bytes(self, blocks: int) -> np.ndarray:
        """Of each block, the bytes of the sectors that it has loaded, each once."""
        if not self._loaded:
            return np.zeros(blocks)
        sectors = np.unique(np.concatenate(self._loaded))
        return np.bincount(sectors >> BLOCK, minlength=blocks) * 2.0**SECTOR

    def store_bytes(self, blocks: int) -> np.ndarray:
        """Of each block, the bytes that it has stored."""
        return sum(
            (np.bincount(of, minlength=blocks) * bytes for of, bytes in self._stored),
            np.zeros(blocks),
        )

    def read_back(self) -> None:
        """Writes what the launch has left in memory into its tensors."""
        for index, tensor in enumerate(self._tensors):
            if tensor is None or tensor.device.type == "meta":
                continue
            start = int(self._starts[index]) // 4
            words = self._words[start : start + self._periods[index] // 4]
            numbers = torch.from_numpy(words.view(np.uint8).copy()).view(tensor.dtype)
            tensor.as_strided((_extent(tensor),), (1,)).copy_(numbers[: _extent(tensor)])

    def load(self, address, blocks, mask, bytes: int) -> list[np.ndarray]:
        """The words at each lane's address, a half word for two bytes."""
        tensor, at = self._place(address, mask, bytes)
        sectors = (tensor << 34) + (self._offset(address) >> SECTOR)
        self._loaded.append(((blocks << BLOCK) + sectors)[mask])
        if bytes < 4:
            if bytes == 1:
                return [self._words.view(np.uint8)[at].astype(np.uint32)]
            return [self._words.view(np.uint16)[at >> 1].astype(np.uint32)]
        return [self._words[(at >> 2) + i] for i in range(bytes // 4)]

    def store(self, address, blocks, mask, values: list[np.ndarray], bytes: int) -> None:
        at = self._place(address, mask, bytes)[1][mask]
        self._stored.append((np.broadcast_to(blocks, mask.shape)[mask], bytes))
        if bytes < 4:
            kind = {1: np.uint8, 2: np.uint16}[bytes]
            self._words.view(kind)[at // bytes] = values[0][mask].astype(kind)
            return
        for i, value in enumerate(values):
            self._words[(at >> 2) + i] = value[mask]

    def _place(self, address, mask, bytes: int) -> tuple[int, np.ndarray]:
        """Which tensor, and where in memory. An access outside its tensor is an error."""
        if not mask.any():
            return 0, np.zeros(address.shape, np.int64)
        offset = self._offset(address)
        tensors = (address[mask] >> np.uint64(SPACE)).astype(np.int64)
        tensor = int(tensors[0])
        if not (tensors == tensor).all():
            raise RuntimeError("lanes of one access touch several tensors")
        last = offset[mask].max() + bytes
        if not 0 < tensor < len(self._sizes) or last > self._sizes[tensor]:
            raise RuntimeError(f"access outside tensor {tensor}, up to byte {last}")
        if (offset[mask] % bytes).any():
            raise RuntimeError(f"misaligned access of {bytes} bytes")
        return tensor, np.where(mask, offset % self._periods[tensor] + self._starts[tensor], 0)

    def _offset(self, address) -> np.ndarray:
        return (address & np.uint64((1 << SPACE) - 1)).astype(np.int64)


def access_bytes(modifiers: tuple[str, ...]) -> int:
    """Bytes of one access, by the modifiers of its instruction."""
    sizes = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    return next((sizes[one] for one in modifiers if one in sizes), 4)


def _extent(tensor: Tensor) -> int:
    """Elements from the first to the last one."""
    if tensor.numel() == 0:
        return 0
    return 1 + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
