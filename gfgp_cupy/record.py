"""Recording the parameter, such as λ, that each pooling of a network pools with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from .guided import HeadPool2d
from .learned import LearnedPool2d

__all__ = ["LambdaRecord", "has_parameters", "record_lambdas", "record_parameters"]

WITH_PARAMETERS = (HeadPool2d, LearnedPool2d)


class LambdaRecord(Mapping[str, Tensor]):
    """The parameter of each layer that has run, by the layer's path, in the order they ran.

    Each is a tensor [N, C] on the CPU, float32 (float64 in networks of that type), with the
    samples of all batches one after the other, and of each call where a layer is called several
    times in one forward. Where a parameter is more than one number a sample and channel it has two
    more dimensions: [N, C, oH, oW] of a weight for each window (``stochasticity="HWCN"`` in
    training), [N, C, kH, kW] of the gates of :class:`~gfgp_cupy.GatedPool2d`.

    A layer that was called with several numbers of channels, or whose weights are for each window
    of outputs of several sizes, has no such tensor, but ``calls(path)``.
    """

    def __init__(self) -> None:
        self._batches: dict[str, list[Tensor]] = {}

    def _append(self, path: str, parameter: Tensor, of: Tensor) -> None:
        """Adds the parameter of a batch, [N, C, …], to those of the layer at ``path``.

        ``of`` is what the layer was given, or made.

        Raises:
            RuntimeError: inside a transform of torch.func, after which nothing of it is left.
        """
        if _is_transformed(parameter) or _is_transformed(of):
            raise RuntimeError(
                f"the parameter of {path!r} cannot be recorded inside torch.func's vmap, grad and "
                "other transforms: call the network outside of them to record it"
            )
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        if parameter.shape[2:].numel() == 1:
            parameter = parameter.flatten(1)
        # A copy: an optimizer may change in place what the parameter is a view of.
        parameter = parameter.detach().to("cpu", dtype, copy=True)
        self._batches.setdefault(path, []).append(parameter)

    def __getitem__(self, path: str) -> Tensor:
        calls, shapes = self.calls(path), self._shapes(path)
        if shapes[1:]:
            raise ValueError(
                f"{path!r} was called with parameters of several shapes, "
                f"{' and '.join(map(str, shapes))}: calls({path!r}) has each by itself"
            )
        return torch.cat(calls)

    def calls(self, path: str) -> list[Tensor]:
        """The parameter of each call of the layer at ``path``, each [N, C] or [N, C, …], as the
        mapping has those of all calls together.

        Raises:
            KeyError: it has not run.
        """
        if path not in self._batches:
            raise KeyError(f"no parameter recorded for {path!r}, only for {list(self)}")
        return list(self._batches[path])

    def _shapes(self, path: str) -> list[list[int]]:
        """Of the parameter of all calls together, [N, C, …]: one, unless calls differ in it."""
        samples: dict[tuple[int, ...], int] = {}
        for each in self._batches[path]:
            samples[each.shape[1:]] = samples.get(each.shape[1:], 0) + len(each)
        return [[count, *rest] for rest, count in samples.items()]

    def __contains__(self, path: object) -> bool:
        return path in self._batches

    def __iter__(self) -> Iterator[str]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{path!r}: {' and '.join(map(str, self._shapes(path)))}" for path in self
        )
        return f"{type(self).__name__}({{{shapes}}})"


def has_parameters(model: nn.Module) -> bool:
    """Whether ``model`` has a pooling that :func:`record_parameters` records."""
    return any(isinstance(module, WITH_PARAMETERS) for module in model.modules())


@contextmanager
def record_parameters(model: nn.Module) -> Iterator[LambdaRecord]:
    """Records what each pooling of a network pools with, for the batches inside the ``with`` block.

    Of a guided layer that is what its head predicts: λ, a proportion, a bias, Gaussian pooling's w
    (in training with its noise), the generalised mean's p − 1. Of a layer that learns a parameter
    of its own it is that parameter, the same for every sample. ``record_lambdas`` is another name
    of this function.

    Results, gradients and random numbers stay the same, and no graph is kept. Each batch waits for
    its parameters to reach the CPU. A compiled model runs uncompiled inside the block, for compiled
    code calls no hooks. Under :class:`torch.nn.DataParallel` with several GPUs, the parts of a
    batch come in the order in which the GPUs finish them. Under ``torch.utils.checkpoint`` a
    backward pass runs layers once more; inside the block that is recorded, too.

    Args:
        model: a network with guided poolings (:class:`~gfgp_cupy.GFGPMaxEntPool2d` and the others,
            and those of your own, derived from :class:`~gfgp_cupy.poolings.GuidedPool2d`) or with
            poolings that learn a parameter (:class:`~gfgp_cupy.MaxEntPool2d`,
            :class:`~gfgp_cupy.GeneralizedMeanPool2d` …), compiled or not. Paths are those of
            ``model.named_modules()``, without the prefixes of ``DataParallel``,
            ``DistributedDataParallel`` and ``torch.compile``.

    Yields:
        LambdaRecord: a mapping from path to parameter, [N, C] in most cases. It can be read inside
        the block and after.

    Raises:
        ValueError: ``model`` has no such layer.
        RuntimeError: a layer runs inside a transform of torch.func, such as vmap.

    Example:
        >>> from gfgp_cupy import GFGPMaxEntPool2d
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), GFGPMaxEntPool2d(8, kernel_size=2))
        >>> with record_parameters(net) as parameters:
        ...     output = net(torch.randn(4, 3, 10, 10))
        >>> parameters
        LambdaRecord({'1': [4, 8]})
    """
    record = LambdaRecord()
    with ExitStack() as stack:
        layers = {
            path: module
            for path, module in _unwrapped(model).named_modules()
            if isinstance(module, WITH_PARAMETERS)
        }
        if not layers:
            raise ValueError(
                f"{type(model).__name__} has no guided layer, such as GFGPMaxEntPool2d, and no "
                "MaxEntPool2d or other pooling with a parameter to record: build it with one, or "
                "put them in place of its poolings"
            )
        for path, layer in layers.items():
            stack.enter_context(_hook(path, layer, record))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield record


record_lambdas = record_parameters


def _hook(path: str, layer: HeadPool2d | LearnedPool2d, record: LambdaRecord) -> RemovableHandle:
    """A handle on the hook that records the parameter of ``layer``."""
    if isinstance(layer, HeadPool2d):
        return layer.head.register_forward_hook(partial(_record_predicted, path, record))
    # Before the hook by which FSDP takes the parameter away.
    return layer.register_forward_hook(partial(_record_own, path, record), prepend=True)


def _record_predicted(
    path: str, record: LambdaRecord, _: object, args: tuple[Tensor, ...], parameter: Tensor
) -> None:
    samples, channels = args[0].shape[:2]  # of the mean, to which what is predicted broadcasts
    parameter = parameter.expand(samples, channels, *parameter.shape[2:])
    record._append(path, parameter, of=args[0])


def _record_own(
    path: str, record: LambdaRecord, layer: LearnedPool2d, _: object, output: Tensor
) -> None:
    samples = output.shape[0] if output.dim() == layer.axes + 2 else 1
    sizes = layer.parameter.shape[2:]
    parameter = layer.parameter.expand(samples, output.shape[-1 - layer.axes], *sizes)
    record._append(path, parameter, of=output)


def _is_transformed(tensor: Tensor) -> bool:
    # No public name says so.
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    return functorch.is_functorch_wrapped_tensor(tensor)


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        if isinstance(model, (nn.DataParallel, DistributedDataParallel)):
            wrapped = model.module
        else:
            wrapped = getattr(model, "_orig_mod", None)  # of a compiled module
        if not isinstance(wrapped, nn.Module):
            return model
        model = wrapped
