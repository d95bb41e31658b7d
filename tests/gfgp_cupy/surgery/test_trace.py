"""The forward without data: what it calls, how far it has to come, what it says."""

import functools
import gc
import io
import logging
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import SUPPORTED_NODES, register_pytree_node

from gfgp_cupy import replace_pooling
from tests.support.small_networks import Lambda

IMAGES = (2, 3, 16, 16)


class Network(nn.Module):
    """A pooling, and what comes after it."""

    def __init__(self, after, pool=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = pool or nn.MaxPool2d(2)
        self.after = after

    def forward(self, x):
        return self.after(self.pool(self.conv(x)))


class Values(nn.Module):
    """Asks for its input's values, which a forward without data has none of."""

    def forward(self, x):
        return x[x > 0] if x.shape[-1] < 0 else x.flatten()[x.flatten() > 0]


def replace(model, **options):
    return replace_pooling(model, sample_shape=IMAGES, **options)


class Recorder:
    """Keeps what its hooks are given, as Grad-CAM does, and cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()
        self.kept = {}

    def forward(self, module, args, output):
        self.kept["forward"] = output

    def pre(self, module, args):
        self.kept["pre"] = args

    def __call__(self, module, args, kwargs, output):
        self.kept["itself"] = output

    def backward(self, module, grad_input, grad_output):
        self.kept["backward"] = grad_output

    def saved(self, module, prefix, keep_vars):
        self.kept["state_dict"] = prefix


def recorded(model):
    recorder = Recorder()
    for module in model.modules():
        module.register_forward_hook(recorder.forward)
        module.register_forward_pre_hook(recorder.pre)
        module.register_forward_hook(recorder, with_kwargs=True)
        module.register_full_backward_hook(recorder.backward)
        module.register_state_dict_pre_hook(recorder.saved)
    return recorder


KINDS = {"pre", "forward", "itself", "backward", "state_dict", "global"}


@pytest.mark.parametrize("before", [set(), KINDS], ids=["new", "used"])
def test_no_hook_is_called(before):
    model = Network(nn.Sequential(nn.Softmax(1), nn.AdaptiveAvgPool2d(1)))
    recorder = recorded(model)
    everywhere = register_module_forward_hook(lambda *_: recorder.kept.setdefault("global"))

    def use():
        model(torch.randn(IMAGES)).sum().backward()
        model.state_dict()

    try:
        if before:
            use()
        kept = dict(recorder.kept)
        assert {*kept} == before
        replace(model)
        assert {*recorder.kept} == before
        assert all(recorder.kept[kind] is what for kind, what in kept.items())
        use()
        assert {*recorder.kept} == KINDS
    finally:
        everywhere.remove()


def test_maps_that_modules_keep():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = {"all": [], "last": None}

        def forward(self, x):
            self.maps["all"].append((x,))
            self.maps["last"] = x
            return x

    model = Network(Keeps())
    y = model(torch.randn(IMAGES))
    assert len(replace(model)) == 1
    assert model.after.maps["last"] is y and len(model.after.maps["all"]) == 1


@pytest.mark.parametrize("container", [{}, []], ids=["dict", "list"])
def test_containers_that_hold_themselves(container):
    model = Network(nn.Identity())
    kept = model(torch.randn(IMAGES))  # which deepcopy alone refuses
    model.kept = [container, (kept,)]
    if isinstance(container, dict):
        container["itself"] = container
    else:
        container.append(container)
    assert len(replace(model)) == 1


class Kept:
    """A container that PyTorch is told of."""

    def __init__(self, maps):
        self.maps = maps


def test_containers_that_pytorch_knows():
    model = Network(nn.Identity())
    model.kept = Kept(model(torch.randn(IMAGES)))
    register_pytree_node(Kept, lambda kept: ([kept.maps], None), lambda maps, _: Kept(*maps))
    try:
        assert len(replace(model)) == 1
    finally:
        SUPPORTED_NODES.pop(Kept)


class CopiesItself(nn.Module):
    """Its copy is a new instance, whose parts are no copies of its own."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x)

    def __deepcopy__(self, memo):
        return CopiesItself()


@pytest.mark.parametrize("scripted", [False, True], ids=["own way", "scripted"])
def test_parts_that_copy_themselves(scripted):
    after = torch.jit.script(nn.Sequential(nn.ReLU())) if scripted else CopiesItself()
    assert len(replace(Network(after))) == 1


class GivesItself(nn.Module):
    """A part that networks share, such as a frozen teacher."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(x)

    def __deepcopy__(self, memo):
        return self


def test_a_part_that_is_its_own_copy_is_not_run():
    model = Network(GivesItself())
    called = []
    model.after.eval().register_forward_hook(lambda *_: called.append(1))
    with pytest.raises(ValueError, match=r"cannot be copied .*'after' gives itself"):
        replace(model)
    assert not model.after.training and model.after.norm.num_batches_tracked == 0
    model(torch.randn(IMAGES))
    assert called == [1]


@functools.lru_cache
def cached_columns(width):
    return torch.linspace(-1, 1, width)


class KeepsOutside(nn.Module):
    mean = None

    def forward(self, x):
        x = x + cached_columns(x.shape[-1])
        if KeepsOutside.mean is None:
            KeepsOutside.mean = x.mean()
        return x


def test_what_the_code_keeps_without_data_is_told():
    def forget():
        cached_columns.cache_clear()
        KeepsOutside.mean = None

    forget()
    with pytest.warns(UserWarning, match=r"outside of the network.*: empty that cache.*, pass a"):
        replace(Network(KeepsOutside()))
    forget()  # as it says; and then the other way
    model = Network(KeepsOutside())
    model(torch.randn(IMAGES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace(model)
    assert type(model(torch.randn(IMAGES))) is torch.Tensor
    forget()


def pooled(x):
    return nn.functional.max_pool2d(x, 2)


@pytest.mark.parametrize("pool", [None, Lambda(lambda _, x: pooled(x))], ids=["module", "call"])
def test_nothing_is_left_for_the_collection_of_garbage(pool):
    """It takes seconds where a process holds much."""
    model, collections = Network(nn.Identity(), pool), []

    def record(phase, info):
        collections.append(phase)

    gc.disable()
    gc.callbacks.append(record)
    try:
        assert len(replace(model, functional=pool is not None)) == 1
    finally:
        gc.callbacks.remove(record)
        gc.enable()
    assert collections == []


@pytest.mark.parametrize(
    "ask",
    [lambda x: f"{x.mean():.2f}", lambda x: "1" if x.isnan().any() else "", torch.Tensor.item],
)
def test_code_that_asks_for_values_is_named(ask):
    model = nn.Sequential(Lambda(lambda _, x: (ask(x.mean()), x)[1]), nn.MaxPool2d(2))
    message = r"cannot be found.*: take out for this call what asks for values, .*test_trace\.py:\d"
    with pytest.raises(ValueError, match=message):
        replace(model)


def test_weights_that_a_hook_computes_are_there():
    model = Network(nn.Identity())
    model.conv = nn.utils.spectral_norm(model.conv)
    assert len(replace(model)) == 1
    model(torch.randn(IMAGES)).sum().backward()
    assert model.conv.weight_orig.grad is not None


def test_code_behind_the_poolings_may_need_data():
    model = Network(Values())
    changes = replace(model)
    assert [change.path for change in changes] == ["pool"]
    (row,) = changes.left
    assert (row.path, row.was) == ("after", "the rest of its forward")
    assert "needs data (DynamicOutputShapeException)" in row.reason
    model(torch.randn(IMAGES)).sum().backward()


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.detach().numpy(),
        lambda x: x.numpy(force=True),
        lambda x: np.asarray(x.detach()),
        lambda x: np.from_dlpack(x.detach()),
        lambda x: x.tolist(),
        lambda x: x.mean().item(),
    ],
)
def test_code_behind_the_poolings_may_need_arrays(convert):
    model = Network(Lambda(lambda _, x: convert(x)))
    changes = replace(model)
    assert [change.path for change in changes] == ["pool"]
    assert [(row.path, "needs data" in row.reason) for row in changes.left] == [("after", True)]
    model(torch.randn(IMAGES))


def test_arrays_of_tensors_that_have_data():
    size = torch.tensor([8, 8])
    crop = Lambda(lambda _, x: x[..., : size.numpy()[0], : np.asarray(size)[1]])
    changes = replace(nn.Sequential(crop, nn.MaxPool2d(2), nn.MaxPool2d(4)))
    assert [change.path for change in changes] == ["1"]
    assert [(row.path, row.reason) for row in changes.left] == [("2", "global")]


def test_code_before_a_pooling_may_not():
    model = nn.Sequential(Network(Values()), nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"'1' .*DynamicOutputShapeException"):
        replace(model)
    changes = replace(model, unsupported="skip")
    assert [change.path for change in changes] == ["0.pool"]
    assert [row.path for row in changes.left] == ["0.after", "1"]


class Masked(nn.MaxPool2d):
    """Pools as PyTorch's does, unless it is given more than the input."""

    def forward(self, x, mask=None):
        return super().forward(x if mask is None else x * mask)


@pytest.mark.parametrize("more", [("positional",), ("by name",), ("by name", "at times")], ids=str)
def test_a_pooling_that_is_called_with_more_than_its_input_is_refused(more):
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.conv, self.after = Masked(2), nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)

        def forward(self, x):
            mask = torch.ones_like(x)
            y = self.pool(x, mask=mask) if "by name" in more else self.pool(x, mask)
            return self.after(self.conv(y + self.pool(x) if "at times" in more else y))

    with pytest.raises(
        ValueError, match=r"'pool' \(Masked\(2/2\)\): is not called with one tensor alone"
    ) as raised:
        replace(Calls())
    assert "leave it out with where=lambda path, module: path != 'pool'" in str(raised.value)
    for options in ({"unsupported": "skip"}, {"where": lambda path, _: path != "pool"}):
        model = Calls()
        assert [change.path for change in replace(model, **options)] == ["after"]
        assert model(torch.randn(IMAGES)).shape == (2, 4, 4, 4)


class OfList(nn.MaxPool2d):
    """Pools as PyTorch's does, or the sum of a list, or ones."""

    def forward(self, x=()):
        return super().forward(x if isinstance(x, torch.Tensor) else sum(x, torch.ones(IMAGES)))


@pytest.mark.parametrize("given", [lambda x: [[x, x]], lambda x: []], ids=["a list", "nothing"])
def test_a_pooling_that_is_not_called_with_a_tensor_is_refused(given):
    call = Lambda(lambda module, x: module.pool(*given(x)))
    call.pool = OfList(2)
    with pytest.raises(ValueError, match=r"'0.pool' .*: is not called with one tensor alone"):
        replace(nn.Sequential(call, nn.MaxPool2d(2)))


def test_a_pooling_that_is_called_again_later_is_seen():
    pool = nn.MaxPool2d(2)
    model = Network(nn.Sequential(nn.Conv2d(4, 6, 1), pool), pool)
    assert [(change.path, change.num_features) for change in replace(model)] == [
        ("pool", 4),
        ("after.1", 6),
    ]


def test_a_wrong_sample_shape_is_told_in_one_line():
    model = Network(nn.Sequential(nn.Flatten(), nn.Linear(4 * 4 * 4, 5)))
    log = io.StringIO()
    logger, handler = logging.getLogger("torch._subclasses.fake_tensor"), logging.StreamHandler(log)
    logger.addHandler(handler)
    try:
        with pytest.raises(ValueError) as raised:
            replace(model)
    finally:
        logger.removeHandler(handler)
    message = str(raised.value)
    assert "sample_shape=(2, 3, 16, 16)" in message
    assert "\n" not in message
    assert log.getvalue() == ""
    assert len(replace_pooling(model, sample_shape=(2, 3, 8, 8))) == 1


def test_a_forward_that_fails_can_be_skipped():
    model = Network(nn.Linear(7, 7))
    changes = replace(model, unsupported="skip")
    assert [change.path for change in changes] == ["pool"]
    (row,) = changes.left
    assert row.path == "after"
    assert "forward fails" in row.reason


@pytest.mark.parametrize("when", ["made", "first called"])
def test_hooks_of_the_library_are_called_where_the_forward_needs_them(when):
    """So transformers' networks collect what lies between their layers."""

    class Layer(nn.Conv2d):
        pass

    states = []

    class Collecting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = Layer(3, 4, 1), nn.MaxPool2d(2)
            if when == "made":
                self.collect()

        def collect(self):
            self.conv.register_forward_hook(lambda module, args, y: states.append(y))

        def forward(self, x):
            if not self.conv._forward_hooks:
                self.collect()
            states.clear()
            self.pool(self.conv(x))
            return states[0]

    model = Collecting()
    others = Recorder()
    model.pool.register_forward_hook(others.forward)
    changes = replace(model)
    assert [change.num_features for change in changes] == [4]
    assert changes.left == []
    assert not others.kept


def test_a_networks_own_method_is_called_where_the_forward_needs_it():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)
            self.conv.register_forward_hook(self.keep)

        def keep(self, module, args, y):
            self.kept = y

        def forward(self, x):
            self.conv(x)
            return self.pool(self.kept)

    model = Keeping()
    others = Recorder()
    model.conv.register_forward_hook(others.forward)
    assert [change.num_features for change in replace(model)] == [4]
    assert not hasattr(model, "kept") and not others.kept
