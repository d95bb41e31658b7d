"""torch.fx and what is built on it: every pooling is one call."""

import warnings

import pytest
import timm
import torch
import torchvision
from functorch.compile import aot_module, make_boxed_func
from torch import nn
from torch.fx import symbolic_trace
from torch.fx.experimental.optimization import fuse
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torchvision.models.feature_extraction import create_feature_extractor

from gfgp_cupy import (
    GFGPMaxEntPool2d,
    functional,
    ops,
    poolings,
    replace_pooling,
    use_backend,
)
from gfgp_cupy.geometry import pool_geometry
from gfgp_cupy.pool2d import Pool2d
from gfgp_cupy.poolings import create_pooling, list_poolings
from gfgp_cupy.poolings.gaussian import GFGPGaussianPool2d, gaussian_pool2d
from gfgp_cupy.surgery.by_channels import PoolingByChannels
from models import create_model
from tests.support.random_numbers import random_numbers
from tests.support.small_networks import small_densenet, small_resnet


def numbers(*shape, seed=0):
    return random_numbers(shape, torch.float32, seed)


def poolings_called(graph, module):
    """The paths of the poolings that the graph calls as modules, in its order."""
    modules = dict(module.named_modules())
    calls = (node.target for node in graph.nodes if node.op == "call_module")
    return [path for path in calls if isinstance(modules[path], Pool2d)]


def poolings_of(module):
    return [path for path, child in module.named_modules() if isinstance(child, Pool2d)]


# ---------------------------------------------------------------- layers and functions

WINDOW = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}

FUNCTIONS = {
    "max_ent": lambda x, parameter: functional.max_ent_pool2d(x, parameter, **WINDOW),
    "max_ent, by name": lambda x, parameter: functional.max_ent_pool2d(
        input=x, lam=parameter, **WINDOW
    ),
    "soft": lambda x, parameter: poolings.soft_pool2d(x, **WINDOW),
    "mixed": lambda x, parameter: poolings.mixed_pool2d(x, parameter, **WINDOW),
    "gated": lambda x, parameter: poolings.gated_pool2d(x, 0.5, **WINDOW, bias=parameter),
    "gem": lambda x, parameter: poolings.generalized_mean_pool2d(x, parameter, **WINDOW),
    "lse": lambda x, parameter: poolings.log_sum_exp_pool2d(x, parameter, **WINDOW),
    "gaussian": lambda x, parameter: gaussian_pool2d(x, parameter, **WINDOW),
}


class WithParameter(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.pool = pool
        self.parameter = nn.Parameter(torch.full((1, 4, 1, 1), 0.7))

    def forward(self, x):
        return self.pool(x, self.parameter)


@pytest.mark.parametrize("pool", FUNCTIONS.values(), ids=FUNCTIONS)
def test_function_is_one_call(pool):
    module = WithParameter(pool)
    traced = symbolic_trace(module)
    (call,) = (node for node in traced.graph.nodes if node.op.startswith("call"))
    assert call.op == "call_function" and call.target.__name__.endswith("_pool2d")
    assert call.target.__module__.startswith("gfgp_cupy.")
    x = numbers(2, 4, 7, 6).abs()
    assert torch.equal(traced(x), module(x))


def test_guided_function_is_one_call():
    class Guided(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Softplus()

        def forward(self, x):
            return functional.guided_max_ent_pool2d(x, self.head, 2)

    traced = symbolic_trace(Guided())
    (call,) = (node for node in traced.graph.nodes if node.op.startswith("call"))
    assert call.target is functional.guided_max_ent_pool2d
    x = numbers(2, 4, 6, 6)
    assert torch.equal(traced(x), Guided()(x))


LAYERS = {
    **{
        name: lambda name=name: create_pooling(name, 4, **WINDOW)
        for name in list_poolings()
        if name not in ("max", "avg")
    },
    "gaussian": lambda: GFGPGaussianPool2d(4, **WINDOW),
}


@pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)
def test_layer_is_one_call(create):
    module = nn.Sequential(nn.ReLU(), create()).eval()
    traced = symbolic_trace(module)
    calls = [node for node in traced.graph.nodes if node.op.startswith("call")]
    pooled = [node for node in calls if node.target == "1" or "pool2d" in str(node.target)]
    assert len(pooled) == 1
    # A layer with a head is a leaf, whose head is not looked into.
    assert (pooled[0].op == "call_module") == hasattr(module[1], "head")
    x = numbers(2, 4, 7, 6)
    assert torch.equal(traced(x), module(x))
    assert torch.equal(symbolic_trace(traced)(x), module(x))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: GFGPGaussianPool2d(6, 2),
        lambda: PoolingByChannels({"6": GFGPMaxEntPool2d(6, 2), "4": GFGPMaxEntPool2d(4, 2)}),
    ],
)
def test_a_layer_by_itself_is_refused_with_advice_that_works(layer):
    layer = layer().eval()
    with pytest.raises(ValueError, match=r"this is the whole of it: trace .*Sequential\(layer\)"):
        symbolic_trace(layer)
    x = numbers(2, 6, 8, 8)
    torch.testing.assert_close(symbolic_trace(nn.Sequential(layer))(x), layer(x))


def test_modes_see_one_call_and_may_answer_it():
    class Recorded(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return "answer"

    seen, x = [], numbers(1, 1, 2, 2)
    with Recorded():
        assert functional.max_ent_pool2d(x, 1.0, 2) == "answer"
        assert poolings.soft_pool2d(x, 2) == "answer"
    assert seen == [functional.max_ent_pool2d, poolings.soft_pool2d]


def test_subclass_of_tensors_is_kept():
    class Named(torch.Tensor):
        pass

    x = numbers(1, 2, 4, 4)
    output = functional.max_ent_pool2d(x.as_subclass(Named), 1.0, 2)
    assert type(output) is Named
    assert torch.equal(output.as_subclass(torch.Tensor), functional.max_ent_pool2d(x, 1.0, 2))


# ---------------------------------------------------------------- make_fx


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_captured_layer_is_differentiable(backend, pre_dispatch):
    layer = GFGPMaxEntPool2d(6, 3, 2, 1)
    with use_backend(backend):
        captured = make_fx(layer.eval(), pre_dispatch=pre_dispatch)(
            numbers(2, 6, 9, 9).requires_grad_()
        )
        inputs = [numbers(2, 6, 9, 9, seed=1).requires_grad_() for _ in range(2)]
        for run, input in zip((captured, layer), inputs, strict=True):
            run(input).square().sum().backward()
    assert inputs[0].grad is not None
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@pytest.mark.parametrize("mode", ["real", "symbolic"])
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_captured_training_step(backend, mode):
    layer = GFGPMaxEntPool2d(6, 3, 2, 1)

    def step(input):
        input = input.detach().requires_grad_()
        loss = layer(input).square().sum()
        return torch.autograd.grad(loss, [input, *layer.parameters()])

    with use_backend(backend):
        captured = make_fx(step, tracing_mode=mode, _allow_non_fake_inputs=True)(
            numbers(8, 6, 9, 9)
        )
        x = numbers(8, 6, 9, 9, seed=1)
        torch.testing.assert_close(captured(x), step(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "axes"), ops.OPERATORS, ids=str)
def test_operators_of_a_program_train_on_the_torch_backend(name, axes):
    """As those of a loaded program do, which call no layer."""
    operator = ops.OPERATORS[name, axes]
    x = (1 + numbers(2, 3, *(6,) * axes).abs()).requires_grad_()
    theta = torch.full((2, 3, *(1,) * axes), 0.5, requires_grad=True)
    window = [2] * axes, [2] * axes, [0] * axes, False
    operator.pool(x, theta, *window, "torch", operator.function.constant).square().sum().backward()
    geometry = pool_geometry(2, axes=axes)
    expected = operator.function.compose(x, theta, geometry).square().sum()
    torch.testing.assert_close((x.grad, theta.grad), torch.autograd.grad(expected, (x, theta)))


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_graphs_of_aot_autograd_stay_fused(backend):
    layer, graphs = GFGPMaxEntPool2d(6, 3, 2, 1).eval(), []

    def keep(graph, _):
        graphs.append([node.target for node in graph.graph.nodes])
        return make_boxed_func(graph.forward)

    with use_backend(backend):
        inputs = [numbers(2, 6, 9, 9).requires_grad_() for _ in range(2)]
        for run, input in zip((aot_module(layer, keep), layer), inputs, strict=True):
            run(input).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    assert torch.ops.gfgp_cupy.max_ent_pool2d_with_spread.default in graphs[0]


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11bow"])
def test_published_network(name):
    with torch.device("meta"):
        network = create_model(name, num_classes=10).eval()
    traced = symbolic_trace(network)
    assert poolings_called(traced.graph, network) == poolings_of(network) != []
    assert traced(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("make", [small_resnet, small_densenet])
def test_traced_network_trains_alike(make):
    network = make()
    traced = symbolic_trace(network)  # shares the parameters
    x = numbers(2, 3, 32, 32)
    gradients = []
    for module in (traced, network):
        network.zero_grad()
        module(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    traced.eval(), network.eval()
    assert torch.equal(traced(x), network(x))


@pytest.fixture(scope="module")
def replaced():
    """torchvision's ResNet after surgery, its convolutions' strides included."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4)
    assert len(replace_pooling(network, strided_convs=True, sample_shape=(2, 3, 64, 64))) == 8
    return network.eval()


def test_feature_extractor(replaced):
    nodes = {"maxpool": "pooled", "layer2": "features"}
    x = numbers(2, 3, 64, 64)
    extracted = create_feature_extractor(replaced, nodes)(x)
    expected = {}
    hooks = [
        replaced.get_submodule(path).register_forward_hook(
            lambda module, args, output, name=name: expected.update({name: output})
        )
        for path, name in nodes.items()
    ]
    replaced(x)
    for hook in hooks:
        hook.remove()
    assert extracted.keys() == expected.keys()
    for name, output in expected.items():
        assert torch.equal(extracted[name], output)


def test_fusion(replaced):
    fused = fuse(replaced)
    assert poolings_called(fused.graph, fused) == poolings_of(replaced)
    x = numbers(2, 3, 64, 64)
    torch.testing.assert_close(fused(x), replaced(x), rtol=1e-3, atol=1e-4)


def test_fusion_of_a_published_network():
    network = small_resnet().eval()
    fused = fuse(network)
    assert poolings_called(fused.graph, fused) == poolings_of(network)
    norms = [path for path, part in fused.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and all(".head.norm" in path for path in norms)
    x = numbers(2, 3, 64, 64)
    torch.testing.assert_close(fused(x), network(x), rtol=1e-3, atol=1e-4)


def test_quantization_by_fx():
    quantize_fx = pytest.importorskip(
        "torch.ao.quantization.quantize_fx", reason="this PyTorch has moved it to torchao"
    )
    from torch.ao.quantization import get_default_qconfig_mapping

    network, x = small_resnet().eval(), numbers(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the tools are to move to torchao
        prepared = quantize_fx.prepare_fx(network, get_default_qconfig_mapping(), (x,))
        prepared(x)
        quantized = quantize_fx.convert_fx(prepared)
        error = quantized(x) - network(x)
    assert poolings_called(quantized.graph, quantized) == poolings_of(network)
    assert error.abs().max() < 0.5 * network(x).std()
    assert "quantized" in type(quantized.fc).__module__


# ---------------------------------------------------------------- timm


@pytest.mark.parametrize("feature_cls", [None, "fx"], ids=["list", "graph"])
def test_features_only(feature_cls):
    options = {"feature_cls": feature_cls} if feature_cls else {}
    network = timm.create_model("resnet18", features_only=True, **options).eval()
    x = numbers(2, 3, 64, 64)
    shapes = [features.shape for features in network(x)]
    replace_pooling(network, sample_shape=(2, 3, 64, 64))
    assert len(poolings_of(network)) == 1
    assert [features.shape for features in network(x)] == shapes


def test_features_of_a_network_after_surgery():
    from timm.models import FeatureGraphNet, FeatureListNet

    network = timm.create_model("resnet18", num_classes=4).eval()
    replace_pooling(network, strided_convs=True, sample_shape=(2, 3, 64, 64))
    x = numbers(2, 3, 64, 64)
    graph = FeatureGraphNet(network, out_indices=(1, 3))(x)
    layers = FeatureListNet(network, out_indices=(1, 3))(x)
    for one, other in zip(graph, layers, strict=True):
        assert torch.equal(one, other)
    assert graph[0].shape == (2, 64, 16, 16)
