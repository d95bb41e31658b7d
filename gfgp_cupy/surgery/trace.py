"""What the poolings of a network are given, found by a forward without data."""

from __future__ import annotations

import gc
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # no public name, but documented
from torch.utils._pytree import tree_leaves  # likewise

from ..autocast import mean_dtype
from ..backends import use_backend
from ..hooks import LIBRARIES, library_of
from ..tracing import (
    alike,
    fake_images,
    skeleton_of,
    wants_data,
    way_to_copy,
    without_data,
)
from .call_trace import CallTrace, Course
from .functional_calls import without_pooling_calls
from .pooling_calls import NAME
from .wrappers import is_compiled

__all__ = ["KEPT", "Failure", "Trace", "trace_forward"]

NOT_RUN = (
    "pass the shape that it takes, or call replace_pooling on the part of it that takes images"
)


KEPT = (
    "the network's forward keeps tensors outside of the network, as functools.lru_cache, a global "
    "or a class's attribute does, and some there hold no data now. If they are used again, outputs "
    "are FakeTensors, and nothing is learned: empty that cache. For another time, pass a batch of "
    "sample_shape through the network before replace_pooling, which fills it, or let the network "
    "have such tensors as buffers"
)

NOT_A_NETWORKS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
"""Folders of code that runs networks."""


@dataclass(frozen=True)
class Failure:
    """Where a forward without data ended.

    Attributes:
        path: of the innermost module that was running; "" also if the network cannot be copied.
        what: what failed, in words.
        error: what was raised.
        way_out: what can be done about it.
    """

    path: str
    what: str
    error: Exception
    way_out: str

    @property
    def for_want_of_data(self) -> bool:
        """Whether all is well but that the code asks for values, which there are none of."""
        return wants_data(self.error)

    def __str__(self) -> str:
        said = str(self.error).strip().partition("\n")[0]
        return f"{self.what} ({type(self.error).__name__}: {said})"


@dataclass
class Trace:
    """What was seen of a network's forward.

    Attributes:
        inputs: of the calls of each module that was asked for, by path; what autocast made a half
            type is float32.
        called_otherwise: the paths of those among them that do not get one tensor alone.
        infinite: the paths of those that get one that was padded or filled with infinity.
        sizes: of the tensors that the calls of each module returned, by path.
        failure: of the forward in evaluation mode, if it was not seen to its end.
        failure_in_training: of the forward in training mode, if it was in evaluation mode alone: it
            wants targets, perhaps.
        calls: the calls of pooling functions in the forwards of modules.
        courses: of the forwards that were seen to their end, by the network's mode.
        own_hooks: whether modules' :func:`_own_hooks` are called.
    """

    inputs: dict[str, list[Tensor]]
    called_otherwise: set[str] = field(default_factory=set, repr=False)
    infinite: set[str] = field(default_factory=set, repr=False)
    sizes: dict[str, list[torch.Size]] = field(default_factory=dict, repr=False)
    failure: Failure | None = None
    failure_in_training: Failure | None = None
    innermost: tuple[str, Exception] | None = field(default=None, repr=False)
    calls: CallTrace = field(default_factory=CallTrace, repr=False)
    courses: dict[bool, Course] = field(default_factory=dict, repr=False)
    own_hooks: bool = False

    def add_input(self, path: str, *given: Any) -> None:
        """Records what the module at ``path`` is called with."""
        if len(given) == 1 and isinstance(given[0], Tensor):
            # As for a head's mean: autocast's half type is not that of the weights.
            self.inputs[path].append(alike(given[0], mean_dtype(given[0])))
            if self.calls.has_filled(given[0]):
                self.infinite.add(path)
        else:
            self.called_otherwise.add(path)

    def keeps_tensors(self) -> bool:
        """Whether the network's code keeps tensors that it has made; False if it failed, for its
        error keeps some itself."""
        if self.failure is not None or self.failure_in_training is not None:
            return False
        known = {id(tensor) for inputs in self.inputs.values() for tensor in inputs}

        def is_any_left() -> bool:
            made = (reference() for reference in self.calls.made)
            return any(tensor is not None and id(tensor) not in known for tensor in made)

        if not is_any_left():
            return False
        gc.collect()  # they may be garbage
        return is_any_left()


def trace_forward(model: nn.Module, paths: list[str], sample_shape: tuple[int, ...]) -> Trace:
    """Runs a copy of the network that holds no data, and records the inputs of some modules.

    Nothing is computed, and the network, its buffers and all random states stay as they are.
    No hook is called, unless the forward fails without: then those that
    :func:`~gfgp_cupy.hooks.hook_of_copy` keeps are, as those of transformers that collect hidden
    states. The forward runs to its end, if it can, for a module may be called again with other
    channels.

    Args:
        model: any network of one argument.
        paths: names of modules in ``model.named_modules()``; those of one module in two attributes
            are told apart.
        sample_shape: of the images, which have the type and device of the network.

    Returns:
        The calls in evaluation mode and those in training mode, for auxiliary branches may be used
        there only.
    """
    trace = _trace(model, paths, sample_shape)
    if trace.failure is not None and not trace.failure.for_want_of_data:
        # Whether or not there are any: a forward may register them.
        with_hooks = _trace(model, paths, sample_shape, own_hooks=True)
        trace = trace if with_hooks.failure else with_hooks
    for site in trace.calls.sites:
        if pooling := site.pooling_in(model.get_submodule(site.path)):
            inputs = trace.inputs.setdefault(f"{site.path}.{pooling}".removeprefix("."), [])
            inputs += site.inputs
    return trace


def _trace(
    model: nn.Module, paths: list[str], sample_shape: tuple[int, ...], own_hooks: bool = False
) -> Trace:
    # Of poolings that calls have given way to, the functions are called: a copy forgets them.
    paths = [path for path in paths if f".{NAME}." not in f".{path}."]
    trace = Trace({path: [] for path in paths}, own_hooks=own_hooks)
    # What code keeps of an earlier trace, in a cache for instance, is of another mode.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        skeleton = skeleton_of(model, fake)
    except Exception as error:  # a network can refuse in any way to be copied
        way_out = f"{way_to_copy(model)}, or call replace_pooling on the part of it that can be"
        trace.failure = Failure("", "the network cannot be copied", error, way_out)
        return trace
    for path in paths:
        parent, _, name = path.rpartition(".")
        # One module in two places becomes two, to be told apart.
        setattr(skeleton.get_submodule(parent), name, copy(skeleton.get_submodule(path)))
    for path, module in skeleton.named_modules():
        without_pooling_calls(module)
        _record_calls(trace, path, module)
    for training in (False, True):
        skeleton.train(training)
        course = trace.calls.course = Course()
        try:
            # Sizes are the same by each backend, and another one would be loaded for them.
            with without_data(fake), trace.calls, _chance_kept(), use_backend("torch"):
                output = skeleton(fake_images(model, sample_shape))
            leaves = tree_leaves(output)
            course.outputs = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
            trace.courses[training] = course
            del output, leaves
        except Exception as error:  # a network's own code, which can refuse in any way
            what = f"the forward fails on images of sample_shape={tuple(sample_shape)} without data"
            inside, cause = trace.innermost or ("", error)
            path = inside if cause is error else ""
            way_out = NOT_RUN
            if wants_data(error):
                way_out = (
                    f"take out for this call what asks for values{_place_of(error)}, or call "
                    "replace_pooling on the part of it that comes behind"
                )
            failure = Failure(path, what, error, way_out)
            if training and trace.failure is None:
                trace.failure_in_training = failure
            else:
                trace.failure = trace.failure or failure
    for module in skeleton.modules():
        vars(module).pop("_call_impl", None)  # a circle, which would keep the skeleton
    del skeleton, module
    trace.innermost = None  # whose frames have tensors
    return trace


@contextmanager
def _chance_kept() -> Iterator[None]:
    """What a forward draws from Python's or NumPy's random state, as one that skips layers does, is
    the same each time, and the states stay as they are."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _place_of(error: Exception) -> str:
    """Where the network's own code has raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(NOT_A_NETWORKS)]
    return f", an if, an assert, .item(): {own[-1].filename}:{own[-1].lineno}" if own else ""


def _record_calls(trace: Trace, path: str, module: nn.Module) -> None:
    """Has ``module`` record its calls in place of what it has around its forward: its hooks."""
    if isinstance(module, torch.jit.ScriptModule):
        return  # nothing can be set on it
    if isinstance(module, nn.DataParallel):
        module.device_ids = []  # no replicas
    forward: Any = module._orig_mod if is_compiled(module) else module.forward
    # What nn.Module.__call__ calls: the forward, between the hooks of the module and the global
    # ones.
    vars(module)["_call_impl"] = partial(_call, trace, path, module, forward)


def _call(
    trace: Trace,
    path: str,
    module: nn.Module,
    forward: Callable[..., Any],
    *args: Any,
    **named: Any,
) -> Any:
    try:
        with trace.calls.forward_of(path, module):
            if path in trace.inputs:
                trace.add_input(path, *args, *named.values())
            output = forward(*args, **named)
        for hook in _own_hooks(module) if trace.own_hooks else ():
            changed = hook(module, args, output)
            output = output if changed is None else changed
        if isinstance(output, Tensor):
            trace.sizes.setdefault(path, []).append(output.shape)
        return output
    except Exception as error:
        if trace.innermost is None or trace.innermost[1] is not error:
            trace.innermost = path, error
        raise


def _own_hooks(module: nn.Module) -> list[Callable[..., Any]]:
    """The forward hooks that a skeleton has kept, and those that its forward has registered.

    Not PyTorch's and this library's: those come in pairs, and pre-hooks are not called.
    """
    return [
        hook
        for key, hook in module._forward_hooks.items()
        if library_of(hook) not in LIBRARIES and key not in module._forward_hooks_with_kwargs
    ]
