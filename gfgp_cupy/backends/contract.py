"""The contract between the operators and a backend."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..max_ent import MAX_ENT
from ..window_function import WindowFunction

__all__ = ["Backend"]


class Backend(Protocol):
    """The functions of a backend: one module, or one package, that has all of them.

    Their arguments have been checked (:func:`gfgp_cupy.window_pooling.pool_windows`). ``function``
    is one that the backend serves; below, ``lam`` is its parameter θ, Max-Ent pooling's λ:

    - ``input``, [N, C, H, W], is float16, bfloat16, float32 or float64; ``lam``, λ, has 4
      dimensions that broadcast to [N, C, oH, oW], is on the same device and has the type that is
      computed in: float64 for float64, float32 for the others.
    - ``geometry`` is the windows; oH and oW are its ``output_size(H, W)``. Of the sizes only N may
      be 0.
    - ``grad_output``, [N, C, oH, oW], has the input's type.

    All may have any strides. Of volumes all have an axis more, from ``input``, [N, C, D, H, W], to
    the 3 numbers of ``geometry``. Windows whose depth and step in depth are 1 come as those of
    planes (:mod:`gfgp_cupy.planes_of_volumes`).

    Nothing is differentiated here, and no argument is written to. Results that have the size of the
    input or the output are dense, in the memory format of the input
    (:func:`gfgp_cupy.memory_format.layout_of`); λ's gradient is contiguous. A backend gives the
    same bits on every run, and NaN for a window with a NaN in it.
    """

    def unavailable(self, device: torch.device) -> str | None:
        """Why the backend cannot serve tensors on ``device``, in words that go on after a colon and
        say what to do about it, if anything; ``None``: it can. A small case is run to find out,
        once, unless ``torch.OutOfMemoryError`` says that there is no memory for that now."""
        ...

    def forward(
        self, input: Tensor, lam: Tensor, geometry: PoolGeometry,
        function: WindowFunction = MAX_ENT,
    ) -> Tensor:  # fmt: skip
        """The pooled ``input``, [N, C, oH, oW], of its type."""
        ...

    def forward_with_spread(
        self, input: Tensor, lam: Tensor, geometry: PoolGeometry,
        function: WindowFunction = MAX_ENT,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """:meth:`forward`, and the derivative of each window's output by θ, [N, C, oH, oW], as
        :mod:`gfgp_cupy.spread` keeps it: for :meth:`lam_backward`.

        Of Max-Ent pooling it is kept as the standard deviation under the weights, not as the
        variance: the deviation has the range of the input, so it fits into as many bits.
        """
        ...

    def backward(
        self, grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry,
        needed: tuple[bool, bool], mean_grad: Tensor | None = None,
        function: WindowFunction = MAX_ENT,
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        """The gradients of ``input`` and of ``lam``, with their shapes and types; ``None`` for one
        that is not ``needed``.

        ``mean_grad``, [N, C, 1, 1] of λ's type and no less, is added to every element of the
        input's gradient; ``None``: nothing is.
        """
        ...

    def lam_backward(
        self, grad_output: Tensor, spread: Tensor, lam: Tensor, function: WindowFunction = MAX_ENT
    ) -> Tensor:
        """The gradient of a ``lam`` that is constant over planes, [·, ·, 1, 1], from what
        :meth:`forward_with_spread` gave: from output-sized tensors alone."""
        ...
