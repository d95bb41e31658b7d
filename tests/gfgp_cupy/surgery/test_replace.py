"""replace_pooling on small networks: what it changes, what it leaves, what it refuses."""

import copy
import pickle
import re
import threading
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d, replace_pooling
from gfgp_cupy.poolings import create_pooling, list_poolings
from gfgp_cupy.surgery import Left, PooledConv2d, Replacement
from tests.support.small_networks import Lambda

IMAGES = (2, 3, 32, 32)


def replace(model, *args, **options):
    return replace_pooling(model, *args, sample_shape=IMAGES, **options)


def small_network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(
            nn.Conv2d(8, 6, 3, padding=1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        ),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


class Corner(nn.Module):
    """The first element of each window: what a strided convolution computes."""

    def __init__(self, num_features, kernel_size, stride, padding, ceil_mode, device, dtype):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, :: self.stride[0], :: self.stride[1]]


def with_lambda(lam):
    def make(num_features, kernel_size, stride, padding, ceil_mode, device, dtype):
        return MaxEntPool2d(
            kernel_size, stride, padding, ceil_mode, num_features, lam, device=device, dtype=dtype
        )

    return make


def snapshot(model):
    """All that replace_pooling could disturb: the modules, their state and the random state."""
    return (
        {
            path: (
                id(module),
                type(module),
                repr(module),
                module.training,
                len(module._forward_hooks),
                len(module._forward_pre_hooks),
            )
            for path, module in model.named_modules(remove_duplicate=False)
        },
        {
            name: (id(tensor), tensor.tolist())
            for name, tensor in model.state_dict(keep_vars=True).items()
        },
        torch.get_rng_state().tolist(),
    )


# What it changes


def test_table_of_changes():
    model = small_network()
    changes = replace(model, strided_convs=True)
    assert changes == [
        Replacement("0", 8, "Conv2d(3/2/1)", "Conv2d(3/1/1) + GFGPMaxEntPool2d(2/2, ceil_mode)"),
        Replacement("3", 8, "MaxPool2d(2/2)", "GFGPMaxEntPool2d(2/2)"),
        Replacement("4.1", 6, "AvgPool2d(3/2/1)", "GFGPMaxEntPool2d(3/2/1)"),
    ]
    assert [type(model[0]), type(model[0].pool)] == [PooledConv2d, GFGPMaxEntPool2d]
    assert [type(model[3]), type(model[4][1])] == [GFGPMaxEntPool2d] * 2
    assert str(changes).splitlines() == [
        "path  channels  was               is",
        "0     8         Conv2d(3/2/1)     Conv2d(3/1/1) + GFGPMaxEntPool2d(2/2, ceil_mode)",
        "3     8         MaxPool2d(2/2)    GFGPMaxEntPool2d(2/2)",
        "4.1   6         AvgPool2d(3/2/1)  GFGPMaxEntPool2d(3/2/1)",
        "",
        "path  left                  why",
        "5     AdaptiveAvgPool2d(1)  global",
    ]
    assert changes.left == [Left("5", "AdaptiveAvgPool2d(1)", "global")]


@pytest.mark.parametrize("size", [(13, 16), (14, 15)])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 1, "padding": 1, "ceil_mode": True},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    ],
)
def test_same_windows_as_before(arguments, size):
    """At the limits of λ the new pooling is the old one: max (λ → ∞) and average (λ = 0)."""
    x = torch.randn(2, 4, *size)
    for old, lam in (
        (nn.MaxPool2d(**arguments), 1e4),
        (nn.AvgPool2d(**arguments, count_include_pad=False), 0.0),
    ):
        model = nn.Sequential(old)
        replace_pooling(model, with_lambda(lam), stride_one=True, sample_shape=x.shape)
        assert isinstance(model[0], MaxEntPool2d)
        torch.testing.assert_close(model(x), old(x))


@pytest.mark.parametrize("size", [(13, 16), (14, 15)])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": 5, "stride": 2, "dilation": 2, "groups": 2, "padding": 3},
        {"kernel_size": 3, "stride": (2, 1), "padding": 1, "padding_mode": "reflect"},
    ],
)
def test_stride_moves_into_the_pooling(arguments, size):
    """With the corner of each window for a pooling, the convolution's result is as before."""
    model = nn.Sequential(nn.Conv2d(4, 6, **arguments))
    x = torch.randn(2, 4, *size)
    before = model(x)
    replace_pooling(model, Corner, strided_convs=True)
    assert isinstance(model[0].pool, Corner)
    torch.testing.assert_close(model(x), before)
    guided = nn.Sequential(nn.Conv2d(4, 6, **arguments))
    replace_pooling(guided, strided_convs=True)
    assert guided(x).shape == before.shape


def test_only_stride_two_is_replaced_and_only_when_asked():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 2, 2))
    kinds = [type(module) for module in model]
    with pytest.warns(UserWarning, match="strided_convs=True"):
        assert replace(model) == []
    assert [type(module) for module in model] == kinds
    assert [change.path for change in replace(model, strided_convs=True)] == ["2"]


def test_pool_may_be_a_callable():
    model = small_network()
    replace(model, partial(GFGPMaxEntPool2d, activation="softplus", hidden_features=3))
    assert (model[3].activation, model[3].hidden_features) == ("softplus", 3)


def test_where_selects():
    model = small_network()
    asked = {}

    def where(path, module):
        asked[path] = module
        return path == "4.1"

    expected = {path: model.get_submodule(path) for path in ("0", "3", "4.1")}
    assert [change.path for change in replace(model, strided_convs=True, where=where)] == ["4.1"]
    assert asked == expected
    assert [type(model[0]), type(model[3])] == [nn.Conv2d, nn.MaxPool2d]
    # The rest later: the poolings that are there already are traced through.
    assert [change.path for change in replace(model)] == ["3"]


# What it keeps


def test_weights_keep_their_names_and_identity():
    model = small_network()
    model[0].weight.requires_grad_(False)
    before = model.state_dict(keep_vars=True)
    replace(model, strided_convs=True)
    after = model.state_dict(keep_vars=True)
    assert {name: id(after[name]) for name in before} == {
        name: id(tensor) for name, tensor in before.items()
    }
    assert not model[0].weight.requires_grad
    assert all(parameter.requires_grad for parameter in model[0].pool.parameters())
    # A state dict from before still loads; it lacks the new poolings' tensors alone.
    result = model.load_state_dict(small_network().state_dict(), strict=False)
    assert not result.unexpected_keys
    fresh = {name.partition("head.")[0] for name in result.missing_keys}
    assert fresh == {"0.pool.", "3.", "4.1."}


def test_state_dict_pickle_and_deepcopy_round_trips():
    model = small_network()
    replace(model, strided_convs=True)
    x = torch.randn(IMAGES)
    model(x)  # moves the running statistics
    model.eval()
    twin = small_network().eval()
    replace(twin, strided_convs=True)
    twin.load_state_dict(model.state_dict())
    for other in (twin, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_new_poolings_have_the_networks_dtype(dtype):
    model = small_network().to(dtype)
    replace(model, strided_convs=True)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_new_poolings_have_the_dtype_of_their_own_input():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), Lambda(lambda _, x: x.double()), nn.MaxPool2d(2)
    )
    replace(model)
    assert {parameter.dtype for parameter in model[1].parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model[3].parameters()} == {torch.float64}


def test_new_poolings_under_autocast_have_the_dtype_of_the_weights():
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.pool(self.conv(x))

    model = Lambda(forward, conv=nn.Conv2d(3, 4, 3), pool=nn.MaxPool2d(2))
    replace(model)
    assert model.pool.head.conv1.weight.dtype == torch.float32
    assert model(torch.rand(IMAGES)).dtype == torch.bfloat16


def test_new_poolings_have_the_networks_device():
    model = small_network().to("meta")
    replace(model, strided_convs=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.gpu
def test_new_poolings_are_on_the_gpu():
    model = small_network().cuda()
    replace(model, strided_convs=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    model(torch.randn(IMAGES, device="cuda")).sum().backward()


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_that_of_the_module_replaced(training):
    model = small_network().train(training)
    model[3].train(not training)
    replace(model, strided_convs=True)
    for module in (*model[0].modules(), *model[4].modules()):
        assert module.training is training
    for module in model[3].modules():
        assert module.training is not training


def test_the_trace_leaves_no_mark():
    """On a network whose forward draws, counts, keeps and normalises; its pooling is global."""

    def forward(self, x):
        self.norm.momentum = 0.5
        self.kept = x
        self.count += 1
        return self.pool(F.dropout(self.norm(x + torch.rand_like(x))))

    model = Lambda(forward, norm=nn.BatchNorm2d(3), pool=nn.AvgPool2d(32))
    model.register_buffer("count", torch.zeros(()))
    before = snapshot(model)
    with pytest.warns(UserWarning, match="nothing"):
        replace(model)
    assert snapshot(model) == before
    assert (model.norm.momentum, hasattr(model, "kept")) == (0.1, False)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_a_hook_computes():
    conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 3, 2, 1))
    model = nn.Sequential(conv, nn.MaxPool2d(2))
    x = torch.randn(IMAGES)
    before = conv(x)
    replace(model, Corner, strided_convs=True, where=lambda path, _: path == "0")
    assert torch.equal(model[0](x), before)
    nn.init.zeros_(model[0].weight_g)
    assert model[0](x).var((0, 2, 3)).sum() == 0


def parallel(*modules):
    children = {f"pool{i}": module for i, module in enumerate(modules)}
    return Lambda(lambda self, x: [child(x) for child in self.children()], **children)


def test_global_poolings_are_left_alone():
    """On maps of 4 x 5, those of one window that covers them all."""
    images = (2, 3, 8, 10)
    poolings = (
        nn.AdaptiveAvgPool2d(1),
        nn.AvgPool2d((4, 5)),
        nn.MaxPool2d((6, 5), 1, (1, 0)),
        nn.AvgPool2d((4, 2)),  # two windows
        nn.AvgPool2d(4),  # one window, and a column in none
        nn.MaxPool2d(9, 1, 4),  # windows that cover the map, one for each element
    )
    model = nn.Sequential(nn.MaxPool2d(2), parallel(*poolings))
    changes = replace_pooling(model, stride_one=True, sample_shape=images)
    assert [change.path for change in changes] == ["0", "1.pool3", "1.pool4", "1.pool5"]
    assert {row.path: row.reason for row in changes.left} == {
        f"1.pool{i}": "global" for i in range(3)
    }
    assert tuple(model[1].children())[:3] == poolings[:3]


# Modules in several places


def test_one_pooling_in_two_attributes_becomes_two():
    pool = nn.MaxPool2d(2)
    model = nn.Sequential(pool, nn.Conv2d(3, 8, 1), pool)
    assert [change.num_features for change in replace(model)] == [3, 8]
    assert model(torch.randn(IMAGES)).shape == (2, 8, 8, 8)


def test_a_block_in_two_attributes_stays_one():
    block = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.MaxPool2d(2))
    model = nn.Sequential(block, block)
    assert [change.path for change in replace(model, strided_convs=True)] == ["0.0", "0.1"]
    assert model[0] is model[1]
    assert model(torch.randn(IMAGES)).shape == (2, 3, 2, 2)


def test_one_pooling_called_twice_stays_one():
    model = Lambda(lambda self, x: self.pool(self.pool(x)), pool=nn.MaxPool2d(2))
    assert [change.path for change in replace(model)] == ["pool"]
    assert model(torch.randn(IMAGES)).shape == (2, 3, 8, 8)


def test_a_pooling_called_by_keyword():
    model = Lambda(lambda self, x: self.pool(input=x), pool=nn.MaxPool2d(2))
    assert [change.num_features for change in replace(model)] == [3]


def test_a_branch_of_training_alone_is_found():
    model = Lambda(
        lambda self, x: self.pool(x) if self.training else x, pool=nn.MaxPool2d(2)
    ).eval()
    assert [change.path for change in replace(model)] == ["pool"]
    assert not model.training


# What it refuses


class OwnPool(nn.MaxPool2d):
    def forward(self, input):
        return super().forward(-input)


REFUSED = {
    "dilation": (nn.MaxPool2d(2, dilation=2), ["dilation=2"]),
    "indices": (nn.MaxPool2d(2, return_indices=True), ["return_indices=True"]),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), ["divisor_override=3"]),
    "subclass": (OwnPool(2), ["OwnPool", "forward of its own"]),
    "parametrized": (parametrizations.weight_norm(nn.Conv2d(8, 8, 2, 2)), ["ParametrizedConv2d"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_path_and_leave_the_network_untouched(case):
    bad, words = REFUSED[case]
    model = nn.Sequential(small_network()[:4], bad)
    path = "1.pool" if isinstance(bad, Lambda) else "1"
    before = snapshot(model)
    with pytest.raises(ValueError) as raised:
        replace(model, strided_convs=True)
    for word in (*words, repr(path), f"where=lambda path, module: path != {path!r}"):
        assert word in str(raised.value)
    assert snapshot(model) == before
    # The advice holds.
    changes = replace(model, strided_convs=True, where=lambda p, module: p != path)
    assert [change.path for change in changes] == ["0.0", "0.3"]


def test_a_refusal_names_all_places_and_one_where_without_them():
    model = nn.Sequential(*(nn.MaxPool2d(2, 2, i // 2, dilation=i) for i in (1, 3, 2, 3, 3)))
    images = (2, 3, 128, 128)
    with pytest.raises(ValueError, match=r"4 places") as raised:
        replace_pooling(model, sample_shape=images)
    message = str(raised.value)
    assert "'1' (MaxPool2d(2/2/1)), '3' (MaxPool2d(2/2/1)), '4' (MaxPool2d(2/2/1)): " in message
    assert "has dilation=3" in message and "has dilation=2" in message
    where = eval(re.search(r"where=(lambda .*?\)), or", message).group(1))
    assert [change.path for change in replace_pooling(model, where=where)] == ["0"]


def test_the_advice_keeps_to_where():
    model = nn.Sequential(*(nn.MaxPool2d(2, dilation=i) for i in (1, 1, 2)))
    with pytest.raises(ValueError, match=r"'2'") as raised:
        replace(model, where=lambda path, module: path != "0")
    where = eval(re.search(r"where=(lambda .*?\)), or", str(raised.value)).group(1))
    assert [change.path for change in replace(model, where=where)] == ["1"]


def test_unsupported_places_are_skipped_when_asked():
    model = nn.Sequential(*(nn.MaxPool2d(2, dilation=i) for i in (1, 2, 1)))
    changes = replace(model, unsupported="skip")
    assert [change.path for change in changes] == ["0", "2"]
    assert [(row.path, row.was) for row in changes.left] == [("1", "MaxPool2d(2/2)")]
    assert "dilation=2" in changes.left[0].reason
    with pytest.raises(ValueError, match=r"unknown unsupported 'skp'.*'skip'"):
        replace(model, unsupported="skp")


def test_images_that_the_network_does_not_take():
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"sample_shape=\(2, 3, 224, 224\)") as raised:
        replace_pooling(model)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert snapshot(model) == before
    assert len(replace(model)) == 1


def test_a_network_that_cannot_be_traced():
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"channels of '1' cannot be found.*uninitialized.*lazy"):
        replace(lazy)
    assert type(lazy[1]) is nn.MaxPool2d
    lazy(torch.randn(IMAGES))
    assert len(replace(lazy)) == 1
    locked = Lambda(lambda self, x: self.pool(x), pool=nn.MaxPool2d(2))
    locked.lock = threading.Lock()
    with pytest.raises(
        ValueError, match=r"channels of 'pool' cannot be found.*_thread\.lock.*take off it"
    ):
        replace(locked)
    del locked.lock
    assert len(replace(locked)) == 1


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize(
    "compile", [torch.jit.script, lambda model: torch.jit.trace(model.eval(), torch.rand(IMAGES))]
)
def test_a_scripted_network_is_refused(compile):
    compiled = compile(small_network())
    with pytest.raises(ValueError, match=r"torch\.jit"):
        replace(compiled)


@pytest.mark.parametrize("pool", list_poolings())
def test_every_pooling_by_name(pool):
    model = small_network()
    sizes = model(torch.rand(IMAGES)).shape
    classes = [type(create_pooling(pool, channels, 2)) for channels in (8, 6)]
    assert len(replace(model, pool)) == 2
    assert [type(model[3]), type(model[4][1])] == classes
    assert model(torch.rand(IMAGES)).shape == sizes


def test_a_factory_that_fails_leaves_the_network_untouched():
    def picky(num_features, *args, **options):
        if num_features == 6:
            raise ZeroDivisionError
        return GFGPMaxEntPool2d(num_features, *args, **options)

    model = small_network()
    modules = dict(model.named_modules())
    with pytest.raises(ZeroDivisionError):
        replace(model, picky, strided_convs=True)
    assert dict(model.named_modules()) == modules
    assert model[0].stride == (2, 2)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"unknown pool 'maxent'.*'max_ent'"):
        replace(small_network(), "maxent")
    with pytest.raises(TypeError, match="got Tensor"):
        replace(torch.zeros(1))
    with pytest.raises(TypeError, match=r"pool must be a name or a callable.*GFGPMaxEntPool2d"):
        replace(small_network(), GFGPMaxEntPool2d(8, 2))
    with pytest.raises(ValueError, match=r"wrap it in nn\.Sequential"):
        replace(nn.MaxPool2d(2))
    conv = nn.Conv2d(3, 4, 3, 2)
    assert [change.path for change in replace(conv, strided_convs=True)] == [""]


def test_nothing_to_replace_warns_and_changes_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), Lambda(lambda _, x: F.max_pool2d(x, 2)))
    before = snapshot(model)
    with pytest.warns(UserWarning, match=r"nothing in Sequential.*functional=True") as warned:
        assert replace(model) == []
    assert snapshot(model) == before
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="that where selects") as warned:
        assert replace_pooling(small_network(), where=lambda path, module: False) == []
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "words"),
    [({"where": "3"}, ("where must be a function", "path != '3'")),
     ({"min_channels": "4"}, ("min_channels must be an int", "'4'"))],
)  # fmt: skip
def test_arguments_of_other_types(options, words):
    with pytest.raises(TypeError) as caught:
        replace_pooling(nn.Sequential(nn.MaxPool2d(2)), **options)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("model", "options", "advised"),
    [(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2)), {}, True),
     (nn.Sequential(nn.Conv2d(3, 8, 3)), {}, False),
     (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2)), {"where": lambda *_: False}, False),
     (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2)), {"min_channels": 9}, False),
     (nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 8, 3, stride=2))), {}, False),
     (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1)), {}, False)],
)  # fmt: skip
def test_where_nothing_changed_strides_are_advised_if_there_are_any(model, options, advised):
    with pytest.warns(UserWarning, match="changed nothing in Sequential") as caught:
        replace_pooling(model, sample_shape=(2, 3, 16, 16), **options)
    assert ("strided_convs=True" in str(caught[0].message)) == advised
    if advised:
        assert replace_pooling(model, sample_shape=(2, 3, 16, 16), strided_convs=True)


def test_after_blocks_no_other_way_is_advised():
    with pytest.warns(UserWarning, match="changed nothing") as caught:
        replace_pooling(nn.Sequential(nn.Flatten()), strides="after_blocks")
    assert "strided_convs" not in str(caught[0].message)
