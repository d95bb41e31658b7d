"""Recording the λ, or whatever parameter, that each layer of a network pools with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from .guided import GuidedPool2d
from .layers import MaxEntPool2d

__all__ = ["LambdaRecord", "record_lambdas"]


class LambdaRecord(Mapping[str, Tensor]):
    """λ of each layer that has run, by the layer's path in the network, in the order they ran.

    Of guided layers that are no Max-Ent poolings it is the parameter that their head predicts. Each
    is a tensor [N, C] on the CPU, float32 (float64 in networks of that type), with the
    samples of all batches one after the other.
    """

    def __init__(self) -> None:
        self._batches: dict[str, list[Tensor]] = {}

    def _append(self, path: str, lam: Tensor) -> None:
        """Adds the λ [N, C, 1, 1] of a batch to those of the layer at ``path``."""
        dtype = torch.promote_types(lam.dtype, torch.float32)
        # A copy: an optimizer may change in place what λ is a view of.
        lam = lam.detach().flatten(1).to("cpu", dtype, copy=True)
        self._batches.setdefault(path, []).append(lam)

    def __getitem__(self, path: str) -> Tensor:
        if path not in self._batches:
            raise KeyError(f"no λ recorded for {path!r}, only for {list(self)}")
        return torch.cat(self._batches[path])

    def __iter__(self) -> Iterator[str]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{path!r}: {list(lam.shape)}" for path, lam in self.items())
        return f"{type(self).__name__}({{{shapes}}})"


@contextmanager
def record_lambdas(model: nn.Module) -> Iterator[LambdaRecord]:
    """Records the λ of each Max-Ent layer for the batches run inside the ``with`` block.

    Of every other guided layer it records what the head predicts: log-sum-exp's λ, a proportion, a
    bias, the generalised mean's p − 1.

    Results, gradients and random numbers stay the same, and no graph is kept. Each batch waits for
    its λ to reach the CPU. A compiled model runs uncompiled inside the block, for compiled code
    calls no hooks. Under :class:`torch.nn.DataParallel` with several GPUs, the parts of a batch
    come in the order in which the GPUs finish them. Under ``torch.utils.checkpoint`` a backward
    pass runs layers once more; inside the block that is recorded, too.

    Args:
        model: a network with guided layers, which are all that derive from
            :class:`~gfgp_cupy.poolings.GuidedPool2d` (:class:`~gfgp_cupy.GFGPMaxEntPool2d`, the
            other guided poolings, those of your own), or with :class:`~gfgp_cupy.MaxEntPool2d`
            layers, compiled or not. Paths are those of ``model.named_modules()``, without the
            prefixes of ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``.

    Yields:
        LambdaRecord: a mapping from path to λ [N, C]. It can be read inside the block and after.

    Raises:
        ValueError: ``model`` has no such layer.

    Example:
        >>> from gfgp_cupy import GFGPMaxEntPool2d
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), GFGPMaxEntPool2d(8, kernel_size=2))
        >>> with record_lambdas(net) as lambdas:
        ...     output = net(torch.randn(4, 3, 10, 10))
        >>> lambdas
        LambdaRecord({'1': [4, 8]})
    """
    record = LambdaRecord()
    with ExitStack() as stack:
        layers = {
            path: module
            for path, module in _unwrapped(model).named_modules()
            if isinstance(module, (GuidedPool2d, MaxEntPool2d))
        }
        if not layers:
            raise ValueError(
                f"{type(model).__name__} has no guided layer, such as GFGPMaxEntPool2d, and no "
                "MaxEntPool2d to record: build it with one, or put them in place of its poolings"
            )
        for path, layer in layers.items():
            stack.enter_context(_hook(path, layer, record))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield record


def _hook(path: str, layer: GuidedPool2d | MaxEntPool2d, record: LambdaRecord) -> RemovableHandle:
    """A handle on the hook that records the parameter of ``layer``."""
    if isinstance(layer, GuidedPool2d):
        # The head sees the mean, [N, C, 1, 1], to which what it predicts broadcasts.
        return layer.head.register_forward_hook(
            lambda _, args, parameter: record._append(path, parameter.expand_as(args[0]))
        )
    return layer.register_forward_hook(partial(_record_own, path, record))


def _record_own(
    path: str, record: LambdaRecord, layer: MaxEntPool2d, _: object, output: Tensor
) -> None:
    samples = output.shape[0] if output.dim() == 4 else 1
    record._append(path, layer.lam.expand(samples, output.shape[-3], 1, 1))


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        if isinstance(model, (nn.DataParallel, DistributedDataParallel)):
            wrapped = model.module
        else:
            wrapped = getattr(model, "_orig_mod", None)  # of a compiled module
        if not isinstance(wrapped, nn.Module):
            return model
        model = wrapped
