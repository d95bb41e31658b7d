"""replace_pooling(…, functional=True): pooling calls inside a forward, whatever way it runs."""

import copy
import importlib
import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor

from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling
from gfgp_cupy.surgery import Left, Replacement
from tests.support.small_networks import Lambda

IMAGES = (2, 3, 32, 32)


def replace(model, *args, **options):
    options = {"functional": True, "sample_shape": IMAGES} | options
    return replace_pooling(model, *args, **options)


class Doubled(nn.Module):
    """A pooling that is told from others by its result, and that calls a function itself."""

    def __init__(self, num_features, kernel_size, stride, padding, ceil_mode, device, dtype):
        super().__init__()
        self.scale = nn.Parameter(torch.full((num_features, 1, 1), 2.0, device=device, dtype=dtype))
        self.window = kernel_size, stride, padding, 1, ceil_mode

    def forward(self, x):
        return self.scale * F.max_pool2d(x, *self.window)


class Block(nn.Module):
    """Calls the function on its own, around a module that does."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        return F.max_pool2d(self.pool(F.max_pool2d(self.conv(x), kernel_size=2)), 2)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = Block(4)
        self.classifier = nn.Linear(4, 5)

    def forward(self, x):
        x = F.avg_pool2d(F.relu(self.stem(x)), 2)
        x = self.block(x)
        x = F.adaptive_avg_pool2d(x, 1)
        return self.classifier(x.flatten(1))


def network(pool="max_ent", **options):
    torch.manual_seed(0)
    model = Network()
    changes = replace(model, pool, **options)
    for module in model.modules():  # heads that differ, and that no batch has moved
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    return model.eval(), changes


def reference(model, x):
    """What ``model`` is to compute, called by hand."""
    pools, block = model.pooling_calls, model.block
    x = block.pooling_calls[0](block.conv(pools[0](F.relu(model.stem(x)))))
    x = block.pooling_calls[1](block.pool(x))
    return model.classifier(x.mean((2, 3)))


# What is listed, and what is replaced


def test_calls_are_listed():
    model = Network()
    changes = replace(model, functional=False)
    assert [change.path for change in changes] == ["block.pool"]
    why = "a call inside a forward (functional=True replaces it)"
    assert changes.left == [
        Left("", "F.avg_pool2d(2/2)", why),
        Left("", "F.adaptive_avg_pool2d(1)", "global"),
        Left("block", "F.max_pool2d(2/2)", why),
        Left("block", "F.max_pool2d(2/2)", why),
    ]
    assert type(model) is Network


def test_table_and_names():
    model, changes = network()
    assert changes == [
        Replacement("", 4, "F.avg_pool2d(2/2)", "GFGPMaxEntPool2d(2/2)"),
        Replacement("block", 4, "F.max_pool2d(2/2)", "GFGPMaxEntPool2d(2/2)"),
        Replacement("block", 4, "F.max_pool2d(2/2)", "GFGPMaxEntPool2d(2/2)"),
        Replacement("block.pool", 4, "MaxPool2d(2/2)", "GFGPMaxEntPool2d(2/2)"),
    ]
    assert [row.was for row in changes.left] == ["F.adaptive_avg_pool2d(1)"]
    fresh = set(model.state_dict()) - set(Network().state_dict())
    assert {name.partition(".head.")[0] for name in fresh} == {
        "pooling_calls.0",
        "block.pooling_calls.0",
        "block.pooling_calls.1",
        "block.pool",
    }
    assert isinstance(model, Network)
    assert type(model.block).__name__ == "Block"


@pytest.mark.parametrize("pool", ["max_ent", "max", Doubled])
def test_each_call_has_its_own_pooling(pool):
    model, _ = network(pool)
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), reference(model, x))


def test_every_head_gets_a_gradient():
    model, changes = network()
    model.train()(torch.randn(8, 3, 32, 32)).square().sum().backward()
    heads = [module.head for module in model.modules() if isinstance(module, GFGPMaxEntPool2d)]
    assert len(heads) == len(changes)
    assert all(parameter.grad is not None for head in heads for parameter in head.parameters())
    assert all(head[-2].weight.grad.abs().sum() > 0 for head in heads)


CALLS = {
    "max": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max, by name": lambda x: F.max_pool2d(input=x, kernel_size=(3, 3), stride=[2, 2], padding=1),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 3, 2, padding=[1]),
    "avg": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "ceil_mode": lambda x: F.avg_pool2d(x, 3, stride=2, ceil_mode=True),
    "lp": lambda x: F.lp_pool2d(x, 2.0, 3, 2),
    "stride is the kernel's": lambda x: F.max_pool2d(x, (3, 2), None),
    "empty stride": lambda x: F.avg_pool2d(x, (3, 2), []),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_windows_are_pytorchs(call):
    """With the elements of each window as they are, the sizes are as before."""
    asked = []

    def make(num_features, kernel_size, stride, padding, ceil_mode, device, dtype):
        asked.append((kernel_size, stride, padding, 1, ceil_mode))
        return nn.MaxPool2d(kernel_size, stride, padding, 1, False, ceil_mode)

    x = torch.randn(IMAGES)
    model = Lambda(lambda _, x: call(x))
    before = model(x)
    assert len(replace(model, make)) == 1
    assert model(x).shape == before.shape
    assert torch.equal(model(x), F.max_pool2d(x, asked[0][0], *asked[0][1:]))


LEFT = {
    "global": (lambda x: F.avg_pool2d(x, x.shape[-2:]), "global"),
    "stride 1": (lambda x: F.max_pool2d(x, 3, 1, 1), "stride 1"),
    "one element": (lambda x: F.max_pool2d(x, 1, 2), "one element"),
    "adaptive": (lambda x: F.adaptive_max_pool2d(x, 4), "adaptive"),
    "with indices": (lambda x: F.adaptive_max_pool2d(x, 4, return_indices=True)[0], "adaptive"),
    "LP, 1-D": (lambda x: F.lp_pool1d(x.flatten(2), 2, 2), "LP"),
    "adaptive, 3-D": (lambda x: F.adaptive_avg_pool3d(x, 4), "adaptive"),
    "global, 3-D": (lambda x: F.adaptive_avg_pool3d(x, 1), "global"),
    "no channels": (lambda x: F.avg_pool3d(x, 2), "maps of four dimensions"),
    "fractional": (lambda x: F.fractional_max_pool2d(x, 2, output_size=8), "fractional"),
}


@pytest.mark.parametrize(("call", "why"), LEFT.values(), ids=list(LEFT))
def test_what_stays_is_listed_with_the_reason(call, why):
    model = Lambda(lambda _, x: call(F.max_pool2d(x, 2)))
    changes = replace(model, "max")
    assert [change.was for change in changes] == ["F.max_pool2d(2/2)"]
    assert [row.path for row in changes.left] == [""]
    assert why in changes.left[0].reason
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), call(F.max_pool2d(x, 2)))


REFUSED = {
    "return_indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "dilation": lambda x: F.max_pool2d(x, 2, dilation=2),
    "divisor_override": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "checkpoint": lambda x: checkpoint(lambda x: F.max_pool2d(x, 2), x, use_reentrant=False),
    "int32": lambda x: F.max_pool2d(x.int(), 2).float(),
}


@pytest.mark.parametrize(("why", "call"), REFUSED.items(), ids=list(REFUSED))
def test_what_has_no_equivalent_is_refused_by_name(why, call):
    model = nn.Sequential(Lambda(lambda _, x: call(x)), Lambda(lambda _, x: F.max_pool2d(x, 2)))
    with pytest.raises(ValueError, match=rf"'0' \(F\.\w+.*{why}.*path != '0'"):
        replace(model, "max")
    assert type(model[1]) is Lambda
    changes = replace(model, "max", unsupported="skip")
    assert [change.path for change in changes] == ["1"]
    assert [row.path for row in changes.left] == ["0"]
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), F.max_pool2d(call(x), 2))


def test_masks_of_dropblock_are_no_feature_maps():
    model = nn.Sequential(torchvision.ops.DropBlock2d(0.5, 3), nn.MaxPool2d(2))
    changes = replace(model, stride_one=True)
    assert [change.path for change in changes] == ["1"]
    assert [row.was for row in changes.left] == ["F.max_pool2d(3/1/1)"]
    assert "mask" in changes.left[0].reason


def test_where_is_given_the_calling_module():
    model = Network()
    asked = {}

    def where(path, module):
        asked[path] = module
        return path == "block"

    expected = {path: model.get_submodule(path) for path in ("", "block", "block.pool")}
    changes = replace(model, Doubled, where=where)
    assert asked == expected
    assert [(change.path, change.was) for change in changes] == [("block", "F.max_pool2d(2/2)")] * 2
    x = torch.randn(IMAGES)
    y = model.block.conv(F.avg_pool2d(F.relu(model.stem(x)), 2))
    y = 2 * F.max_pool2d(F.max_pool2d(2 * F.max_pool2d(y, 2), 2), 2)
    torch.testing.assert_close(model(x), model.classifier(y.mean((2, 3))))
    # The rest later.
    assert {change.path for change in replace(model, Doubled)} == {"", "block.pool"}
    torch.testing.assert_close(model(x), reference(model, x))


def test_what_was_put_in_the_place_of_calls_is_replaced_again():
    model = Network()
    replace(model, "max")
    changes = replace(model, Doubled)
    assert [(change.path, change.num_features, change.was) for change in changes] == [
        ("block.pool", 4, "MaxPool2d(2/2)"),
        ("block.pooling_calls.0", 4, "MaxPool2d(2/2)"),
        ("block.pooling_calls.1", 4, "MaxPool2d(2/2)"),
        ("pooling_calls.0", 4, "MaxPool2d(2/2)"),
    ]
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), reference(model, x))


class Unit(nn.Module):
    """A stride that moves behind a module which calls functions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def fuse(self):
        return self

    def forward(self, x):
        return F.max_pool2d(self.conv(x), 2)


CALLS_AND_STRIDE = [{"functional": True}, {"functional": False, "strided_convs": True}]


@pytest.mark.parametrize(
    "steps",
    [
        [{"functional": True, "strided_convs": True}],
        CALLS_AND_STRIDE,
        [*CALLS_AND_STRIDE, {}],
        CALLS_AND_STRIDE[::-1],
    ],
    ids=["at once", "calls first", "and again", "stride first"],
)
def test_a_stride_behind_a_module_that_calls(steps):
    model = nn.Sequential(Unit())
    for options in steps:
        replace(model, "avg", **options)
    x = torch.randn(IMAGES)
    for unit in (model[0], copy.deepcopy(model[0])):
        assert isinstance(unit.pooling, nn.AvgPool2d)
        expected = F.avg_pool2d(F.avg_pool2d(unit.conv(x), 2), 2)
        torch.testing.assert_close(unit(x), expected)


def test_a_forward_of_the_instance_is_refused():
    model = nn.Sequential(nn.Identity())
    model[0].forward = lambda x: F.max_pool2d(x, 2)
    with pytest.raises(ValueError, match=r"'0'.*forward"):
        replace(model, "max")


# Which pooling answers which call


def test_calls_in_a_loop_have_one_pooling_each():
    def forward(self, x):
        for conv in (self.a, self.b, self.c):
            x = F.max_pool2d(conv(x), 2)
        return x

    a, b, c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 1)
    model = Lambda(forward, a=a, b=b, c=c)
    assert [change.num_features for change in replace(model)] == [4, 4, 6]
    pools, x = model.eval().pooling_calls, torch.randn(IMAGES)
    torch.testing.assert_close(model(x), pools[2](c(pools[1](b(pools[0](a(x)))))))


def test_a_module_used_with_several_numbers_of_channels():
    shared = Lambda(lambda _, x: F.max_pool2d(x, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 6, 1), shared)
    assert [change.num_features for change in replace(model)] == [4, 6]
    pools, x = model.eval()[1].pooling_calls, torch.randn(IMAGES)
    torch.testing.assert_close(model(x), pools[1](model[2](pools[0](model[0](x)))))


def test_calls_in_training_alone():
    def forward(self, x):
        return F.max_pool2d(x, 4) + 1 if self.training else F.max_pool2d(x, 2)

    model = Lambda(forward)
    assert [change.was for change in replace(model, Doubled)] == [
        "F.max_pool2d(2/2)",
        "F.max_pool2d(4/4)",
    ]
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model.train()(x), 2 * F.max_pool2d(x, 4) + 1)
    torch.testing.assert_close(model.eval()(x), 2 * F.max_pool2d(x, 2))


def test_the_same_call_in_both_modes():
    """A call keeps its pooling when one mode makes others like it before."""

    def forward(self, x):
        extra = F.max_pool2d(x, 2).mean() if self.training else 0
        return F.max_pool2d(x, 2) + extra

    model = Lambda(forward)
    assert len(replace(model, Doubled)) == 2
    with torch.no_grad():
        model.pooling_calls[1].scale.fill_(3)
    x = torch.randn(IMAGES)
    y = F.max_pool2d(x, 2)
    torch.testing.assert_close(model.eval()(x), 2 * y)
    torch.testing.assert_close(model.train()(x), 2 * y + 3 * y.mean())


def test_a_forward_that_wants_targets_in_training():
    class Net(nn.Module):
        def forward(self, x, targets=None):
            if self.training and targets is None:
                raise ValueError("targets")
            return F.max_pool2d(self.pool(x), 2)

    model = Net()
    model.pool = nn.MaxPool2d(2)
    changes = replace(model, Doubled)
    assert [change.path for change in changes] == ["", "pool"]
    assert changes.left == []
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model.train()(x, 1), 4 * F.max_pool2d(x, 4))


def test_a_call_that_was_not_seen_is_an_error():
    model = nn.Sequential(
        Lambda(lambda _, x: F.max_pool2d(x, 2) if x.shape[-1] == 32 else F.max_pool2d(x, 3))
    )
    replace(model, Doubled)
    with pytest.raises(RuntimeError, match=r"'0' calls max_pool2d\(kernel_size=\(3, 3\).*where"):
        model(torch.randn(2, 3, 30, 30))
    with pytest.raises(RuntimeError, match="of 5 channels"):
        model(torch.randn(2, 5, 32, 32))


def test_more_calls_than_were_seen_are_an_error():
    def forward(_, x):
        while x.shape[-1] > 8:
            x = F.max_pool2d(x, 2)
        return x

    model = Lambda(forward)
    assert len(replace(model, Doubled)) == 2
    with pytest.raises(RuntimeError, match="3 times in one forward"):
        model(torch.randn(2, 3, 64, 64))


def test_global_poolings_stay_at_other_sizes():
    model = Lambda(
        lambda _, x: F.avg_pool2d(F.max_pool2d(x, 2), (x.shape[2] // 2, x.shape[3] // 2))
    )
    replace(model, Doubled)
    x = torch.randn(2, 3, 20, 24)
    torch.testing.assert_close(model(x), 2 * F.max_pool2d(x, 2).mean((2, 3), keepdim=True))


def test_methods_called_without_the_forward():
    class Net(nn.Module):
        def features(self, x):
            return F.max_pool2d(x, 2)

        def forward(self, x):
            return self.features(F.max_pool2d(x, 2))

    model = Net()
    replace(model, Doubled)
    with torch.no_grad():
        model.pooling_calls[1].scale.fill_(3)
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), 6 * F.max_pool2d(x, 4))
    torch.testing.assert_close(model.features(x), 3 * F.max_pool2d(x, 2))
    torch.testing.assert_close(copy.deepcopy(model).features(x), 3 * F.max_pool2d(x, 2))


def test_a_method_that_the_forward_calls_twice():
    class Net(nn.Module):
        def features(self, x):
            return F.max_pool2d(x, 2)

        def forward(self, x):
            return self.features(self.features(x))

    model = Net()
    replace(model, Doubled)
    with torch.no_grad():
        model.pooling_calls[1].scale.fill_(3)
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), 6 * F.max_pool2d(x, 4))


def test_a_sequence_does_not_run_them():
    class Stem(nn.Sequential):
        def forward(self, x):
            return F.max_pool2d(super().forward(x), 2)

    model = Stem(nn.Conv2d(3, 4, 1), nn.ReLU())
    replace(model, Doubled)
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), 2 * F.max_pool2d(F.relu(model[0](x)), 2))


def test_a_new_instance_of_the_class_calls_the_functions():
    class Stem(nn.Sequential):
        def pooled(self, x):
            return F.max_pool2d(x, 2)

        def forward(self, x):
            return self.pooled(super().forward(x))

    model = Stem(nn.Conv2d(3, 4, 1), nn.ReLU())
    replace(model, Doubled)
    x = torch.randn(IMAGES)
    for other in (type(model)(model[0]), model[:1], copy.deepcopy(model[:1])):
        torch.testing.assert_close(other(x), F.max_pool2d(model[0](x), 2))
        torch.testing.assert_close(other.pooled(x), F.max_pool2d(x, 2))
    other = type(model)(model[0])
    assert len(replace(other, Doubled)) == 1
    torch.testing.assert_close(other(x), 2 * F.max_pool2d(model[0](x), 2))


class Parametrized(nn.Module):
    """Calls the function behind a weight that may be parametrized."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x):
        return F.max_pool2d(F.conv2d(x, self.weight), 2)


@pytest.mark.parametrize("first", ["parametrized", "replaced", "replaced in a copy"])
def test_parametrizations_come_and_go(first):
    model = Parametrized()
    x = torch.randn(IMAGES)
    before = model(x)
    if first == "replaced":
        replace(model, "avg")
    parametrizations.weight_norm(model)
    other = model
    if first == "replaced in a copy":
        model = copy.deepcopy(model)
    if first != "replaced":
        replace(model, "avg")
    assert [change.path for change in replace(model, Doubled)] == ["pooling_calls.0"]
    torch.testing.assert_close(model(x), 2 * before)
    if other is not model:
        torch.testing.assert_close(other(x), before)
    parametrize.remove_parametrizations(model, "weight")
    assert isinstance(model, Parametrized) and "weight" in dict(model.named_parameters())
    torch.testing.assert_close(model(x), 2 * before)


def test_a_parametrized_copy_stays_as_it_was():
    model = Parametrized()
    parametrizations.weight_norm(model)
    other = copy.deepcopy(model)
    replace(model, Doubled)
    assert type(other).__mro__[1:] == Parametrized.__mro__
    assert type(model) is not type(other) and type(model).__name__ == type(other).__name__
    x = torch.randn(IMAGES)
    torch.testing.assert_close(model(x), 2 * other(x))
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))


# Whatever way the network runs


@pytest.mark.parametrize("pool", ["max_ent", Doubled])
def test_compile(pool):
    model, _ = network(pool)
    model.train()
    twin = copy.deepcopy(model)
    x = torch.randn(IMAGES)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), twin(x))


@pytest.mark.filterwarnings("ignore:.*side effects:UserWarning")  # of any torch function mode
@pytest.mark.parametrize(("pool", "strict"), [("max_ent", False), (Doubled, True)])
def test_export(pool, strict):
    model, _ = network(pool)
    exported = torch.export.export(model, (torch.randn(IMAGES),), strict=strict).module()
    x = torch.randn(IMAGES)
    torch.testing.assert_close(exported(x), model(x))


def test_export_at_other_sizes():
    model, _ = network(Doubled)
    auto = torch.export.Dim.AUTO
    exported = torch.export.export(
        model, (torch.randn(IMAGES),), dynamic_shapes=({0: auto, 2: auto, 3: auto},)
    ).module()
    x = torch.randn(3, 3, 48, 40)
    torch.testing.assert_close(exported(x), model(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("pool", ["max_ent", Doubled])
def test_trace(pool):
    model, _ = network(pool)
    traced = torch.jit.trace(model, torch.randn(IMAGES))
    x = torch.randn(2, 3, 48, 40)
    torch.testing.assert_close(traced(x), model(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripting_is_refused():
    model, _ = network("max")
    with pytest.raises(RuntimeError, match=r"use torch\.jit\.trace"):
        torch.jit.script(model)


def test_symbolic_trace():
    model, _ = network()
    traced = torch.fx.symbolic_trace(model)
    called = {node.target for node in traced.graph.nodes if node.op == "call_module"}
    assert {"pooling_calls.0", "block.pooling_calls.0", "block.pooling_calls.1"} <= called
    x = torch.randn(IMAGES)
    torch.testing.assert_close(traced(x), model(x))


@pytest.fixture(scope="module")
def several_channels():
    """The same call three times, of 4, 6 and again 4 channels, the last two in a method."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)

        def features(self, x):
            return F.max_pool2d(self.c(F.max_pool2d(self.b(x), 2)), 2)

        def forward(self, x):
            return self.features(F.max_pool2d(self.a(x), 2))

    model = Net()
    assert [change.num_features for change in replace(model)] == [4, 6, 4]
    return model.eval()


def test_symbolic_trace_of_several_numbers_of_channels(several_channels):
    traced = torch.fx.symbolic_trace(several_channels)
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    poolings = [f"pooling_calls.{i}" for i in range(3)]
    assert [path for path in called if path.startswith("pooling_calls")] == poolings
    x = torch.randn(IMAGES)
    torch.testing.assert_close(traced(x), several_channels(x))
    extracted = create_feature_extractor(several_channels, ["c"])(x)["c"]
    torch.testing.assert_close(several_channels.pooling_calls[2](extracted), several_channels(x))


def test_symbolic_trace_of_a_method(several_channels):
    class Tracer(torch.fx.Tracer):
        traced_func_name = "features"

    traced = torch.fx.GraphModule(several_channels, Tracer().trace(several_channels))
    x = torch.randn(2, 4, 16, 16)
    torch.testing.assert_close(traced(x), several_channels.features(x))


def test_what_torch_fx_cannot_know_is_an_error():
    shared = Lambda(lambda _, x: F.max_pool2d(x, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 6, 1), shared)
    replace(model)
    with pytest.raises(RuntimeError, match=r"fx knows no shapes.*'1'.*4 and 6 channels.*a leaf"):
        torch.fx.symbolic_trace(model)

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, path):
            return module is shared or super().is_leaf_module(module, path)

    traced = torch.fx.GraphModule(model, Tracer().trace(model.eval()))
    x = torch.randn(IMAGES)
    torch.testing.assert_close(traced(x), model(x))


def test_feature_extractor():
    model, _ = network()
    extractor = create_feature_extractor(model, ["block.pooling_calls.1"])
    x = torch.randn(IMAGES)
    y = extractor(x)["block.pooling_calls.1"]
    torch.testing.assert_close(model.classifier(y.mean((2, 3))), model(x))


def test_deepcopy_state_dict_and_replicas():
    model, _ = network()
    twin, _ = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    twin.load_state_dict(model.state_dict())
    x = torch.randn(IMAGES)
    copied = copy.deepcopy(model)
    assert type(copied) is type(model) is type(twin)
    for other in (twin, copied, model._replicate_for_data_parallel()):
        assert torch.equal(other(x), model(x))


NETWORK_OF_ITS_OWN = """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x, 2)
"""


def test_saved_whole_and_loaded_in_another_process(tmp_path, monkeypatch):
    (tmp_path / "network_of_its_own.py").write_text(NETWORK_OF_ITS_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("network_of_its_own").Net()
    replace(model)
    x = torch.randn(IMAGES)
    torch.save({"model": model.eval(), "x": x, "y": model(x)}, tmp_path / "all.pt")
    code = (
        "import torch; saved = torch.load('all.pt', weights_only=False); "
        "torch.testing.assert_close(saved['model'](saved['x']), saved['y']); "
        "print(type(saved['model'].pooling_calls[0]).__name__)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert said.strip() == "GFGPMaxEntPool2d"


def test_checkpointed_modules():
    model, _ = network()
    x = torch.randn(IMAGES)

    def gradients(run):
        model.zero_grad()
        run(x).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    plain = gradients(model)
    for use_reentrant in (False, True):
        block, model.block = model.block, Lambda(lambda _, y: y)
        model.block = Lambda(
            lambda self, y, r=use_reentrant: checkpoint(self.block, y, use_reentrant=r), block=block
        )
        recomputed = gradients(model)
        model.block = block
        for gradient, expected in zip(recomputed, plain, strict=True):
            torch.testing.assert_close(gradient, expected)


def test_autocast():
    model, _ = network()
    x = torch.randn(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x), reference(model, x))


def test_several_threads_at_once():
    model, _ = network(Doubled)
    inputs = [torch.randn(IMAGES) for _ in range(4)]
    expected = [reference(model, x) for x in inputs]
    results, barrier = {}, threading.Barrier(4)

    def run(index):
        barrier.wait()
        results[index] = [model(inputs[index]) for _ in range(5)]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected_one in enumerate(expected):
        for result in results[index]:
            torch.testing.assert_close(result, expected_one)


def test_reentrance():
    def forward(self, x):
        y = F.max_pool2d(x, 2)
        return self(y) + F.max_pool2d(y, 2).sum() if x.shape[-1] == 32 else y

    model = Lambda(forward)
    replace(model, Doubled)
    with torch.no_grad():
        model.pooling_calls[1].scale.fill_(3)
    x = torch.randn(IMAGES)
    y = 2 * F.max_pool2d(x, 2)
    expected = 2 * F.max_pool2d(y, 2) + 3 * F.max_pool2d(y, 2).sum()
    torch.testing.assert_close(model(x), expected)


# Networks that people have


@pytest.mark.slow
def test_inception():
    model = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True)
    changes = replace(model, stride_one=True, sample_shape=(2, 3, 299, 299))
    # 13 on the way to the logits, of which two are modules, and the auxiliary classifier's.
    assert sorted(change.was for change in changes) == [
        "F.avg_pool2d(3/1/1, count_include_pad)",
    ] * 9 + ["F.avg_pool2d(5/3)", *["F.max_pool2d(3/2)"] * 2, *["MaxPool2d(3/2)"] * 2]
    assert {row.was for row in changes.left} <= {"F.adaptive_avg_pool2d(1)", "AdaptiveAvgPool2d(1)"}
    output = model.train()(torch.randn(2, 3, 299, 299))
    (output.logits.sum() + output.aux_logits.sum()).backward()
    heads = [module.head for module in model.modules() if isinstance(module, GFGPMaxEntPool2d)]
    assert len(heads) == 14
    assert all(parameter.grad is not None for head in heads for parameter in head.parameters())


class WithIndices(nn.Module):
    """Calls of which one has no equivalent."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        output, _ = F.max_pool2d(F.max_pool2d(self.conv(x), 2), 2, return_indices=True)
        return output


def test_a_where_that_would_leave_out_other_calls_is_not_advised():
    with pytest.raises(ValueError, match="return_indices") as caught:
        replace(WithIndices())
    assert "unsupported='skip' (a where would leave out the other calls of ''" in str(caught.value)
    assert "where=lambda" not in str(caught.value)
    changes = replace(WithIndices(), unsupported="skip")
    assert [(change.path, change.was) for change in changes] == [("", "F.max_pool2d(2/2)")]
