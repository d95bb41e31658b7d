"""GPU kernels compiled before the first step that needs them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode  # no public name, but documented
from torch.utils._python_dispatch import TorchDispatchMode  # likewise
from torch.utils._pytree import tree_leaves, tree_map  # likewise

from . import ops
from .backends import backend_module
from .geometry import PoolGeometry
from .kernels import Launch, passes
from .planes_of_volumes import passes_of
from .tracing import (
    check_sample_shape,
    explained,
    fake_images,
    skeleton_of,
    way_to_copy,
    without_data,
)

__all__ = ["CompiledKernels", "compile_kernels"]


@dataclass(frozen=True)
class CompiledKernels:
    """What :func:`compile_kernels` has done; as a string, a line.

    Attributes:
        programs: number of distinct programs; those that were compiled before count as well.
        seconds: that it took, finding out what to compile included.
        backends: the backend that serves the poolings, by device.
    """

    programs: int
    seconds: float
    backends: dict[torch.device, str]

    def __str__(self) -> str:
        if self.programs:
            return f"{self.programs} GPU programs in {self.seconds:.1f} s"
        served = (f"backend {name!r} serves {device}" for device, name in self.backends.items())
        return f"nothing to compile: {', '.join(served) or 'no pooling with kernels of its own'}"


def compile_kernels(
    model: nn.Module,
    *sample_shapes: tuple[int, ...],
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    training: bool = True,
) -> CompiledKernels:
    """Compiles the GPU kernels that steps of ``model`` need, several at a time, before the first.

    Without it, each kernel is compiled when it is first called, one after the other. CuPy keeps
    what is compiled on disk, so that only the first process on a machine waits.

    A copy of the network that holds no data runs on images of the shapes given, forward and, in
    training, backward; nothing is computed, and the network, its buffers and gradients, its
    training mode and PyTorch's random state stay as they are. No hook is called but those without
    which the forward may be another: PyTorch's, this package's, methods of the network's own
    modules and of objects that these hold, and functions of a package that one of its modules'
    classes is from. The copy runs under the autocast and the ``use_backend`` of the call, and as an
    eager network: compiled by ``torch.compile``, the layers call other kernels.

    Where no kernel of this package serves the model (on the CPU, or without CuPy), there is nothing
    to compile, and the result says so.

    Args:
        model: any network of one argument, on the GPU.
        sample_shapes: [N, C, H, W] of the batches to come, one or more; of networks for volumes
            [N, C, D, H, W]. A last batch that is smaller may need programs of its own, and so may
            a view whose memory begins elsewhere than PyTorch's own tensors do, at a multiple of 16
            bytes. For training of guided layers N is at least 2.
        dtype: of the images. Default: the type of the network.
        memory_format: of the images: ``torch.contiguous_format``, ``torch.channels_last``
            or, of volumes, ``torch.channels_last_3d``.
        training: a forward and a backward pass in training mode, or, if False, a forward pass in
            evaluation mode without gradients.

    Raises:
        TypeError: ``model`` is no module, or a shape no tuple of ints.
        ValueError: no shape, a network that cannot be copied or run on images without data, or a
            backend asked for by name that cannot serve its device.

    Example:
        >>> import gfgp_cupy
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), gfgp_cupy.GFGPMaxEntPool2d(8, 2))
        >>> with gfgp_cupy.use_backend("torch"):
        ...     print(gfgp_cupy.compile_kernels(model, (64, 3, 224, 224)))
        nothing to compile: backend 'torch' serves cpu
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not sample_shapes:
        raise ValueError("sample_shapes must be one or more, such as (64, 3, 224, 224), got none")
    for shape in sample_shapes:
        check_sample_shape("each of sample_shapes", shape)
    start = time.perf_counter()
    backends: dict[torch.device, str] = {}
    launches: dict[torch.device, list[Launch]] = {}
    for call in _calls(model, sample_shapes, dtype, memory_format, training):
        backends[call.device] = call.backend
        if call.backend == "cupy":
            launches.setdefault(call.device, []).extend(call.launches())
    programs = sum(
        backend_module("cupy").compile_launches(of_device, device)
        for device, of_device in launches.items()
    )
    return CompiledKernels(programs, time.perf_counter() - start, backends)


@dataclass(frozen=True)
class _Call:
    """A call of one of this package's operators.

    Attributes:
        operator: which.
        backend: that serves it.
        arguments: the others, by name.
    """

    operator: OpOverload
    backend: str
    arguments: dict[str, Any]

    @property
    def device(self) -> torch.device:
        return next(iter(self.arguments.values())).device

    def launches(self) -> list[Launch]:
        """Those that the call comes to, with tensors on the meta device."""
        launches: list[Launch] = []
        operators = _operators_with(self.operator)
        arguments = tree_map(_on_meta, self.arguments)
        function = operators.function.with_constant(arguments.pop("constant", None))
        arguments["lam"] = arguments.pop(function.parameter)
        if self.operator is operators.parameter_backward:
            passes.lam_backward(**arguments, run=launches.append, function=function)
            return launches
        geometry = ops.geometry_of(*map(arguments.pop, PoolGeometry._fields))
        if self.operator is operators.backward:
            arguments["needed"] = tuple(arguments.pop("output_mask"))
        of_axes = passes_of(passes, len(geometry.kernel_size))
        run = {
            operators.pool: of_axes.forward,
            operators.pool_with_spread: of_axes.forward_with_spread,
            operators.backward: of_axes.backward,
        }[self.operator]
        run(**arguments, geometry=geometry, run=launches.append, function=function)
        return launches


class _OperatorCalls(TorchDispatchMode):
    """Records the calls of this package's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.namespace == "gfgp_cupy":
            names = (argument.name for argument in operator._schema.arguments)
            # What is left out at the end is as its default says.
            arguments = dict(zip(names, args, strict=False))
            backend = ops.serving(
                _operators_with(operator).function, arguments.pop("backend"), args[0].device
            )
            self.calls.append(_Call(operator, backend, arguments))
        return operator(*args, **(kwargs or {}))


def _operators_with(operator: OpOverload) -> ops.Operators:
    """Those of the window function that ``operator`` is one of."""
    return next(known for known in ops.OPERATORS.values() if operator in known)


def _calls(
    model: nn.Module,
    shapes: tuple[tuple[int, ...], ...],
    dtype: torch.dtype | None,
    memory_format: torch.memory_format,
    training: bool,
) -> list[_Call]:
    """The calls of this package's operators in a step for each of the shapes."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    unknown = "the kernels that the network needs cannot be found"
    without = "do without compile_kernels, a first step compiles them too"
    with explained(
        f"{unknown}, because it cannot be copied",
        f"{way_to_copy(model)}; or {without}",
    ):
        skeleton = skeleton_of(model, fake)
    if skeleton.training != training:
        skeleton.train(training)
    for module in skeleton.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()  # in training it would wait for other processes
    with without_data(fake), _OperatorCalls() as recorded, torch.set_grad_enabled(training):
        for shape in shapes:
            with explained(
                f"{unknown}, because a step fails on images of shape {tuple(shape)} without data",
                f"pass the shape that it takes; or {without}",
                for_want_of_data=f"its forward needs data; {without}",
            ):
                _backward(skeleton(fake_images(model, shape, dtype, memory_format)))
    return recorded.calls


def _backward(output: object) -> None:
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    torch.autograd.backward([tensor.sum() for tensor in tensors if tensor.requires_grad])


def _on_meta(value):
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
