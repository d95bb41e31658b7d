"""The head that predicts a pooling's parameter: float32 in it means float32, on any GPU."""

import copy
import pickle
import re
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gfgp_cupy
from gfgp_cupy import GFGPMaxEntPool2d, compile_kernels, record_lambdas, replace_pooling
from gfgp_cupy.head import PointConv2d, gfgp_head, warn_of_few_samples
from gfgp_cupy.norms import LayerNorm2d
from gfgp_cupy.poolings import create_pooling, list_poolings
from gfgp_cupy.poolings.gaussian import GFGPGaussianPool2d
from tests.support.random_numbers import random_numbers

POOLINGS = [name for name in list_poolings() if hasattr(create_pooling(name, 4, 2), "head")]
each_format = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=str
)


class OperatorNames(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(operator.__name__)
        return operator(*args, **(kwargs or {}))


def as_convolutions(head):
    """The same head by PyTorch's own convolutions."""
    head = copy.deepcopy(head)
    head.conv1.__class__ = head.conv2.__class__ = nn.Conv2d
    return head


@pytest.mark.parametrize("name", POOLINGS)
def test_no_head_calls_a_convolution(name):
    # Those of cuDNN compute float32 in TF32 by default; matrix products do not.
    head = create_pooling(name, 4, 2).head
    mean = random_numbers((3, 4, 1, 1), torch.float32, 0).requires_grad_()
    with OperatorNames() as operators:
        head(mean).sum().backward()
    assert operators.names.count("addmm.default") == 2
    assert not any("conv" in name for name in operators.names)


def test_every_guided_pooling_is_among_them():
    assert "max_ent" in POOLINGS
    assert {name for name in list_poolings() if name.startswith("gfgp_")} <= set(POOLINGS)


@each_format
def test_numbers_are_those_of_convolutions(memory_format):
    head = gfgp_head(6, nn.Softplus(), hidden_features=5, dtype=torch.float64)
    head = head.to(memory_format=memory_format)
    convolutions = as_convolutions(head)
    results = []
    for each in (head, convolutions):
        mean = random_numbers((4, 6, 1, 1), torch.float64, 0).requires_grad_()
        parameter = each(mean)
        (parameter * random_numbers((4, 6, 1, 1), torch.float64, 1)).sum().backward()
        gradients = [tensor.grad for tensor in each.parameters()]
        results.append([parameter, mean.grad, *gradients, *each.buffers()])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-13)


@each_format
def test_gradients_lie_in_memory_as_their_weights(memory_format):
    # DistributedDataParallel warns of others.
    head = gfgp_head(6, nn.Sigmoid()).to(memory_format=memory_format)
    head(random_numbers((4, 6, 1, 1), torch.float32, 0)).sum().backward()
    for conv in (head.conv1, head.conv2):
        assert conv.weight.grad.stride() == conv.weight.stride()


@pytest.mark.parametrize("shape", [(2, 6, 2, 1), (2, 6, 3, 3), (6, 1, 1), (2, 6)], ids=str)
def test_anything_but_means_is_refused(shape):
    with pytest.raises(ValueError, match=r"\[N, C, 1, 1\].*" + str(shape)[1:-1]):
        PointConv2d(6, 3, kernel_size=1)(torch.ones(shape))


# ---------------------------------------------------------------- norm_layer


GUIDED = [
    GFGPMaxEntPool2d,
    GFGPGaussianPool2d,
    *(type(create_pooling(name, 4, 2)) for name in POOLINGS if name.startswith("gfgp_")),
]
each_layer = pytest.mark.parametrize("layer", GUIDED)


def images(samples, channels=8, dtype=torch.float32):
    return random_numbers((samples, channels, 6, 6), dtype, 0).abs()


def norms_of(pool):
    return [module for name, module in pool.head.named_modules() if "norm" in name]


@each_layer
def test_norm_layer_makes_every_norm_of_the_head(layer):
    asked = []

    def norm_layer(num_features):
        asked.append(num_features)
        return LayerNorm2d(num_features)

    pool = layer(8, 2, hidden_features=5, norm_layer=norm_layer)
    assert [norm.num_channels for norm in norms_of(pool)] == asked
    assert asked == [5, *[8] * (len(asked) - 1)] and len(asked) >= 2
    assert not any(isinstance(module, nn.BatchNorm2d) for module in pool.modules())
    default = dict(layer(8, 2, hidden_features=5).named_parameters())
    assert {name: tensor.shape for name, tensor in pool.named_parameters()} == {
        name: tensor.shape for name, tensor in default.items()
    }


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_norms_have_the_layers_type_and_device(layer, dtype):
    options = {"norm_layer": LayerNorm2d, "dtype": dtype}
    assert {tensor.dtype for tensor in layer(8, 2, **options).parameters()} == {dtype}
    on_meta = layer(8, 2, device="meta", **options)
    assert {tensor.device.type for tensor in on_meta.parameters()} == {"meta"}
    with torch.device("meta"):  # the caller's default, which the argument goes before
        on_cpu = layer(8, 2, device="cpu", **options)
    assert {tensor.device.type for tensor in on_cpu.parameters()} == {"cpu"}
    output = layer(8, 2, **options)(images(1, dtype=dtype))
    assert output.dtype == dtype and output.isfinite().all()


@each_layer
def test_norms_of_single_samples_train_on_one(layer):
    pool = layer(8, 2, norm_layer=LayerNorm2d)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_few_samples.cache_clear()
        pool(images(1)).sum().backward()
        pool(images(1)[0]).sum().backward()
    assert all(tensor.grad is not None for tensor in pool.parameters() if tensor.numel() > 1)


def test_a_sample_has_the_parameter_that_it_has_alone():
    pool = GFGPMaxEntPool2d(8, 2, norm_layer=LayerNorm2d)
    batch = images(5)
    with record_lambdas(pool) as together:
        pool(batch)
    with record_lambdas(pool) as alone:
        for each in batch.split(1):
            pool(each)
    with record_lambdas(pool.eval()) as evaluated:
        pool(batch)
    torch.testing.assert_close(together[""], alone[""])
    torch.testing.assert_close(together[""], evaluated[""])
    assert together[""].std(0).max() > 0.01


def test_layer_norm_is_that_over_the_channels():
    norm = LayerNorm2d(6)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    mean = random_numbers((3, 6, 1, 1), torch.float32, 0)
    expected = F.layer_norm(mean.flatten(1), (6,), norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(mean).flatten(1), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_layer_norm_of_one_feature_leaves_the_head_its_sight(channels):
    """By itself one would be 0 whatever the image."""
    for layer in (GFGPMaxEntPool2d, GFGPGaussianPool2d):
        pool = layer(channels, 2, norm_layer=LayerNorm2d)
        for parameter in pool.parameters():
            nn.init.uniform_(parameter, 0.1, 1)
        batch = images(4, channels) * torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1, 1)
        with record_lambdas(pool) as record:
            pool(batch.abs())
        assert (record[""].std(0) > 1e-3).all()
        assert pool(batch[:1]).shape == (1, channels, *pool(batch).shape[2:])
    norm = LayerNorm2d(1, dtype=torch.float64)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    mean = random_numbers((3, 1, 1, 1), torch.float64, 0).requires_grad_()
    assert torch.equal(norm(mean), mean * norm.weight + norm.bias)
    assert torch.autograd.gradcheck(norm, (mean,))


@each_format
def test_autocast_with_other_norms(memory_format):
    pool = GFGPMaxEntPool2d(8, 2, norm_layer=LayerNorm2d).to(memory_format=memory_format)
    input = images(4).to(memory_format=memory_format)
    with record_lambdas(pool) as plain:
        expected = pool(input)
    with record_lambdas(pool) as under_autocast, torch.autocast("cpu", torch.bfloat16):
        output = pool(input)
    assert torch.equal(plain[""], under_autocast[""])
    torch.testing.assert_close(output, expected)
    assert output.is_contiguous(memory_format=memory_format)


def test_other_norms_under_published_names():
    pool = GFGPMaxEntPool2d(8, 2, norm_layer=LayerNorm2d)
    assert [pool.ToParam[2], pool.ToParam[5]] == [pool.head.norm1, pool.head.norm2]
    state = {
        name.replace("head.conv1", "ToParam.1")
        .replace("head.norm1", "ToParam.2")
        .replace("head.conv2", "ToParam.4")
        .replace("head.norm2", "ToParam.5"): torch.rand_like(tensor)
        for name, tensor in pool.state_dict().items()
    }
    pool.load_state_dict(state)
    assert torch.equal(pool.head.norm2.bias, state["ToParam.5.bias"])
    pool.reset_parameters()
    assert (pool.head.norm2.bias == 0).all() and (pool.head.norm2.weight == 1).all()


def test_a_norm_layer_of_a_whole_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2))
    make = partial(GFGPMaxEntPool2d, norm_layer=LayerNorm2d)
    replace_pooling(model, make, sample_shape=(2, 3, 16, 16))
    assert isinstance(pickle.loads(pickle.dumps(model))[1].head.norm1, LayerNorm2d)
    model(torch.rand(1, 3, 16, 16)).sum().backward()


@pytest.mark.parametrize(
    "bad",
    [nn.BatchNorm2d(8), "batch", lambda num_features: None],
    ids=["a module", "a string", "a callable that makes none"],
)
def test_what_makes_no_norm_is_refused(bad):
    with pytest.raises(TypeError, match=r"norm_layer must make a module.*LayerNorm2d"):
        GFGPMaxEntPool2d(8, 2, norm_layer=bad)


# ---------------------------------------------------------------- the warning of few samples


def warnings_of(call):
    warn_of_few_samples.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if "samples a process" in str(each.message)]


@each_layer
def test_batch_norm_of_few_samples_warns(layer):
    pool = layer(8, 2)
    (text,) = warnings_of(lambda: pool(images(7)))
    assert "norm_layer=" in text and "SyncBatchNorm" in text and "more samples" in text
    assert warnings_of(lambda: pool(images(8))) == []
    assert warnings_of(lambda: pool.eval()(images(2))) == []


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_warnings_advice_for_networks_works(axes):
    conv, pool = (getattr(nn, f"{name}{axes}d") for name in ("Conv", "MaxPool"))
    model, shape = nn.Sequential(conv(3, 8, 3), pool(2)), (2, 3, *(8,) * axes)
    replace_pooling(model, sample_shape=shape)
    (text,) = warnings_of(lambda: model(torch.randn(shape)))
    name = re.search(r"functools.partial\((\w+), norm_layer=LayerNorm2d\)", text)[1]
    model[1] = pool(2)
    advised = partial(getattr(gfgp_cupy, name), norm_layer=LayerNorm2d)
    replace_pooling(model, advised, sample_shape=shape)
    assert warnings_of(lambda: model(torch.randn(shape))) == []


def test_other_norms_do_not_warn():
    frozen = GFGPMaxEntPool2d(8, 2)
    for norm in norms_of(frozen):
        norm.eval()
    assert warnings_of(lambda: frozen(images(2))) == []
    alone = GFGPMaxEntPool2d(8, 2, norm_layer=LayerNorm2d)
    assert warnings_of(lambda: alone(images(2))) == []


def test_the_warning_comes_once_a_process():
    def train():
        for samples in (2, 3, 4):
            GFGPMaxEntPool2d(8, 2)(images(samples))

    assert len(warnings_of(train)) == 1


def test_what_runs_without_data_does_not_warn():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), GFGPMaxEntPool2d(8, 2), nn.MaxPool2d(2))
    assert warnings_of(lambda: compile_kernels(model, (2, 3, 16, 16))) == []
    assert warnings_of(lambda: replace_pooling(model, sample_shape=(2, 3, 16, 16))) == []


def test_export_for_any_number_of_samples():
    """Neither a warning nor a comparison that bounds the batch."""
    pool = GFGPMaxEntPool2d(8, 2)
    dynamic = {"input": {0: torch.export.Dim("batch", min=2, max=64)}}

    def export():
        exported = torch.export.export(pool, (images(4),), dynamic_shapes=dynamic, strict=False)
        exported.module()(images(33))

    assert warnings_of(export) == []
