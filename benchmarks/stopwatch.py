"""A stopwatch at each module of a network, forward and backward, where calls return when done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

__all__ = ["Stopwatch"]


class Stopwatch:
    """Counts the seconds spent in some modules of a network that computes on the CPU.

    Forward it is the time of the call. Backward it is that of the autograd nodes which the call
    made; adding up a parameter's gradients is not among them. A module inside another counts for
    both forward, and for the inner one alone backward.

    Args:
        modules: by what they are called in the result.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._forward, self._backward = Counter(), Counter()
        self._started: dict[str, float] = {}
        self._nodes: set[Node] = set()
        self.shapes: dict[str, torch.Size] = {}
        """Of the input of each module's last call."""
        for name, module in modules.items():
            module.register_forward_pre_hook(lambda module, args, name=name: self._start(name))
            module.register_forward_hook(
                lambda module, args, output, name=name: self._stop(name, args[0], output)
            )

    def take(self) -> tuple[Counter[str], Counter[str]]:
        """Seconds forward and backward since the last time, by module."""
        taken = self._forward, self._backward
        self._forward, self._backward = Counter(), Counter()
        self._nodes.clear()
        return taken

    def _start(self, name: str) -> None:
        self._started[name] = time.perf_counter()

    def _stop(self, name: str, input: Tensor, output: Tensor) -> None:
        self._forward[name] += time.perf_counter() - self._started[name]
        self.shapes[name] = input.shape
        left = [output.grad_fn]
        while left:
            node = left.pop()
            if node is None or node is input.grad_fn or node in self._nodes or _adds_up(node):
                continue
            self._nodes.add(node)
            self._time(node, name)
            left += [before for before, _ in node.next_functions]

    def _time(self, node: Node, name: str) -> None:
        def start(*_) -> None:
            self._started[name] = time.perf_counter()

        def stop(*_) -> None:
            self._backward[name] += time.perf_counter() - self._started[name]

        node.register_prehook(start)
        node.register_hook(stop)


def _adds_up(node: Node) -> bool:
    """Whether ``node`` adds up the gradients of a parameter, from step to step."""
    return hasattr(node, "variable")
