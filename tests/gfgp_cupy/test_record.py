"""record_lambdas gives each layer's λ for the batches run inside it, and leaves no trace."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

import models
from gfgp_cupy import (
    GatedPool2d,
    GFGPGaussianPool2d,
    GFGPMaxEntPool2d,
    MaxEntPool2d,
    MaxEntPoolingCuda2d,
    MixedPool2d,
    record_lambdas,
    record_parameters,
    use_backend,
)
from gfgp_cupy.functional import gaussian_pool2d
from gfgp_cupy.poolings import GuidedPool2d, create_pooling, list_poolings


def small_network() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, kernel_size=3, padding=1),
            pool=GFGPMaxEntPool2d(4, kernel_size=2),
            last=nn.Sequential(nn.ReLU(), MaxEntPool2d(2, num_features=4, init_lambda=0.5)),
        )
    )


class GuidedSteps(GuidedPool2d):
    """A guided pooling of a user's own."""

    activation = nn.Tanh

    def pool(self, input, parameter):
        return input[:, :, :: self.stride[0], :: self.stride[1]] + parameter


def images(samples: int = 3) -> torch.Tensor:
    return torch.randn(samples, 3, 8, 8)


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_guided_lambda_is_what_the_head_makes_of_the_mean():
    net, x = small_network().eval(), images()
    with record_lambdas(net) as lambdas:
        net(x)
    expected = net.pool.head(net.conv(x).mean((2, 3), keepdim=True)).flatten(1)
    torch.testing.assert_close(lambdas["pool"], expected)
    assert expected.std() > 0


@pytest.mark.parametrize("num_features", [None, 4])
@pytest.mark.parametrize("learnable", [True, False])
def test_own_lambda_stands_for_every_sample_and_channel(num_features, learnable):
    pool = MaxEntPool2d(2, num_features=num_features, learnable=learnable)
    with torch.no_grad():
        pool.lam.copy_(torch.randn(pool.lam.shape))
    expected = pool.lam.detach().clone().flatten().expand(3, 4)
    with record_lambdas(pool) as lambdas:
        pool(torch.randn(3, 4, 6, 6))
    torch.testing.assert_close(lambdas[""], expected)


@pytest.mark.parametrize("name", [*(n for n in list_poolings() if n.startswith("gfgp_")), "own"])
def test_other_guided_poolings_are_recorded(name):
    pool = GuidedSteps(4, 2) if name == "own" else create_pooling(name, 4, kernel_size=2)
    x = torch.randn(3, 4, 6, 6).abs()
    with record_lambdas(nn.Sequential(pool)) as lambdas:
        output = pool(x)
    assert lambdas["0"].shape == (3, 4)
    assert lambdas["0"].std() > 0
    assert torch.equal(pool.pool(x, lambdas["0"][:, :, None, None]), output)


@pytest.mark.parametrize("stochasticity", ["CN", "HWCN"])
@pytest.mark.parametrize("training", [True, False])
def test_weight_of_gaussian_pooling_is_the_one_pooled_with(stochasticity, training):
    pool = GFGPGaussianPool2d(4, 2, stochasticity=stochasticity).train(training)
    x = torch.randn(3, 4, 6, 6)
    with use_backend("torch"), record_parameters(pool) as parameters:
        output = pool(x)
        weight = parameters[""] if parameters[""].dim() == 4 else parameters[""][:, :, None, None]
        assert weight.shape[2:] == ((3, 3) if training and stochasticity == "HWCN" else (1, 1))
        torch.testing.assert_close(gaussian_pool2d(x, weight, 2), output)


def test_own_parameter_is_what_the_layer_pools_with():
    net = nn.Sequential(MixedPool2d(2, init_proportion=0.25), GatedPool2d(2))
    with use_backend("torch"), record_parameters(net) as parameters:
        net(torch.randn(3, 4, 8, 8))
    torch.testing.assert_close(parameters["0"], torch.full((3, 4), 0.25))
    assert torch.equal(parameters["1"], torch.zeros(3, 4, 2, 2))


def test_old_name():
    assert record_lambdas is record_parameters


def test_batches_follow_one_another_in_the_order_run():
    net, batches = small_network().eval(), [images(3), images(1), images(2)]
    with record_lambdas(net) as lambdas:
        for batch in batches:
            net(batch)
    with record_lambdas(net) as together:
        net(torch.cat(batches))
    assert list(lambdas) == ["pool", "last.1"]
    assert lambdas["pool"].shape == (6, 4)
    torch.testing.assert_close(dict(lambdas), dict(together))


def test_a_batch_of_one_without_its_dimension():
    net = small_network().eval()
    with record_lambdas(net) as lambdas:
        net(images(1)[0])
    assert {path: lam.shape for path, lam in lambdas.items()} == {"pool": (1, 4), "last.1": (1, 4)}


def test_a_head_of_ones_own_may_give_one_lambda_for_all():
    pool = GFGPMaxEntPool2d(4, kernel_size=2)
    pool.head = nn.AdaptiveAvgPool3d(1)  # [N, C, 1, 1] to [N, 1, 1, 1]
    x = torch.randn(3, 4, 6, 6)
    with record_lambdas(pool) as lambdas:
        pool(x)
    torch.testing.assert_close(lambdas[""], x.mean((1, 2, 3)).reshape(3, 1).expand(3, 4))


def test_training_goes_on_as_without_it():
    net, x = small_network(), images()
    alone = copy.deepcopy(net)
    state = torch.get_rng_state()
    with record_lambdas(net):
        output = net(x)
        output.square().sum().backward()
    expected = alone(x)
    expected.square().sum().backward()
    assert torch.equal(output, expected)
    for parameter, its_twin in zip(net.parameters(), alone.parameters(), strict=True):
        assert torch.equal(parameter.grad, its_twin.grad)
    for buffer, its_twin in zip(net.buffers(), alone.buffers(), strict=True):
        assert torch.equal(buffer, its_twin)
    assert torch.equal(torch.get_rng_state(), state)


def test_recorded_lambdas_are_copies_without_a_graph():
    net = small_network()
    with record_lambdas(net) as lambdas:
        net(images())
    before = {path: lam.clone() for path, lam in lambdas.items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    for path, lam in lambdas.items():
        assert not lam.requires_grad
        assert torch.equal(lam, before[path])


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_no_hook_stays(error):
    net = small_network()
    if error is None:
        with record_lambdas(net) as lambdas:
            assert hooks_of(net) == 2
    else:
        with pytest.raises(error), record_lambdas(net) as lambdas:
            raise error
    assert hooks_of(net) == 0
    net(images())
    assert len(lambdas) == 0


def test_blocks_may_be_nested():
    net = small_network()
    with record_lambdas(net) as outer, record_lambdas(net[:2]) as inner:
        net(images())
    assert torch.equal(outer["pool"], inner["pool"])
    assert "last.1" not in inner


@pytest.fixture
def process_group():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrapper", [nn.DataParallel, nn.parallel.DistributedDataParallel])
def test_paths_of_wrapped_networks_are_those_of_the_network(wrapper, process_group):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wrapped = wrapper(torch.compile(small_network().to(device), backend="eager"))
    with record_lambdas(wrapped) as lambdas:
        wrapped(images(4).to(device))
    assert list(lambdas) == ["pool", "last.1"]


@pytest.mark.parametrize("compiled_before", [True, False])
def test_a_compiled_network_is_recorded_and_stays_compiled(compiled_before):
    net, x = small_network().eval(), images()
    compiled_runs = []

    def counting(graph, _):
        return lambda *args: (compiled_runs.append(graph), graph.forward(*args))[1]

    torch._dynamo.reset()
    compiled = torch.compile(net, backend=counting)
    if compiled_before:
        compiled(x)
    before = len(compiled_runs)
    with record_lambdas(compiled) as lambdas:
        compiled(x)
    assert len(compiled_runs) == before
    compiled(x)
    assert len(compiled_runs) > before
    with record_lambdas(net) as expected:
        net(x)
    assert torch.equal(lambdas["pool"], expected["pool"])


@pytest.mark.parametrize(
    ("network", "recorded"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtype(network, recorded):
    net = small_network().to(network)
    with use_backend("torch"), record_lambdas(net) as lambdas:
        net(images().to(network))
    assert {lam.dtype for lam in lambdas.values()} == {recorded}


def test_a_layer_used_twice_is_recorded_twice():
    pool = MaxEntPoolingCuda2d(3, kernel_size=2)
    net = nn.Sequential(pool, pool)
    with record_lambdas(net) as lambdas:
        net(images())
    assert lambdas["0"].shape == (6, 3)


def test_calls_with_several_numbers_of_channels():
    pool = MaxEntPool2d(2, init_lambda=0.5)
    model = nn.Sequential(pool, nn.Conv2d(3, 5, 1), pool)
    with record_parameters(model) as parameters:
        model(images(3))
        model(images(4))
    assert repr(parameters) == "LambdaRecord({'0': [7, 3] and [7, 5]})"
    with pytest.raises(ValueError, match=r"\[7, 3\] and \[7, 5\]: calls\('0'\) has each by itself"):
        parameters["0"]
    shapes = [tuple(each.shape) for each in parameters.calls("0")]
    assert shapes == [(3, 3), (3, 5), (4, 3), (4, 5)]
    assert "0" in parameters and list(parameters) == ["0"]


def test_a_checkpoints_second_forward_is_recorded_too():
    net = small_network()
    with record_lambdas(net) as lambdas:
        output = torch.utils.checkpoint.checkpoint(net, images(), use_reentrant=False)
        assert lambdas["pool"].shape == (3, 4)
        output.sum().backward()
    assert lambdas["pool"].shape == (6, 4)


def test_published_network():
    net = models.create_model("resnet18", num_classes=10).eval()
    with record_lambdas(net) as lambdas, torch.no_grad():
        net(torch.randn(2, 3, 64, 64))
    widths = {
        path: module.num_features
        for path, module in net.named_modules()
        if isinstance(module, GFGPMaxEntPool2d)
    }
    assert {path: lam.shape for path, lam in lambdas.items()} == {
        path: (2, width) for path, width in widths.items()
    }


def test_a_network_without_such_layers():
    with (
        pytest.raises(ValueError, match=r"Sequential has no guided layer.*no MaxEntPool2d"),
        record_lambdas(nn.Sequential(nn.MaxPool2d(2))),
    ):
        pass


@pytest.mark.parametrize("pool", [GFGPMaxEntPool2d(3, 2), MaxEntPool2d(2)], ids=["guided", "own"])
@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.jacrev])
def test_inside_transforms_there_is_nothing_to_record(transform, pool):
    net = nn.Sequential(pool).eval()
    with (
        pytest.raises(RuntimeError, match=r"parameter of '0'.*torch\.func.*outside of them"),
        record_lambdas(net),
    ):
        transform(net)(images())


def test_a_path_that_was_not_recorded_is_named_with_those_that_were():
    net = small_network()
    with record_lambdas(net) as lambdas:
        net(images())
    with pytest.raises(KeyError, match=r"'pool1'.*\['pool', 'last\.1'\]"):
        lambdas["pool1"]


@pytest.mark.gpu(2)
def test_several_gpus():
    net = nn.DataParallel(small_network().cuda().eval())
    with record_lambdas(net) as lambdas:
        net(images(4).cuda())
    assert lambdas["pool"].shape == (4, 4)
