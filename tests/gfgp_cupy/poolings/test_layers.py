"""The layers of the other poolings: parameters of their own, and parameters from a GFGP head."""

import copy
import io
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import (
    GatedPool2d,
    GeneralizedMeanPool2d,
    GFGPGatedPool2d,
    GFGPGeneralizedMeanPool2d,
    GFGPLogSumExpPool2d,
    GFGPMaxEntPool2d,
    GFGPMixedPool2d,
    LogSumExpPool2d,
    MixedPool2d,
    SoftPool2d,
    use_backend,
)
from gfgp_cupy.poolings import (
    GuidedPool2d,
    create_pooling,
    gated_pool2d,
    generalized_mean_pool2d,
    list_poolings,
    log_sum_exp_pool2d,
    mixed_pool2d,
    soft_pool2d,
)
from tests.support.implementations import needs_cuda
from tests.support.random_numbers import random_numbers

WINDOW = (3, 2, 1, True)
GUIDED = {
    "mixed": GFGPMixedPool2d,
    "gated": GFGPGatedPool2d,
    "gem": GFGPGeneralizedMeanPool2d,
    "lse": GFGPLogSumExpPool2d,
}
LAYERS = {
    "soft": lambda *window, **options: SoftPool2d(*window),
    "mixed": lambda *window, **options: MixedPool2d(*window, num_features=6, **options),
    "gated": lambda *window, **options: GatedPool2d(*window, num_features=6, **options),
    "gem": lambda *window, **options: GeneralizedMeanPool2d(*window, num_features=6, **options),
    "lse": lambda *window, **options: LogSumExpPool2d(*window, num_features=6, **options),
    **{
        f"gfgp_{name}": lambda *window, layer=layer, **options: layer(6, *window, **options)
        for name, layer in GUIDED.items()
    },
}
each_layer = pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)
each_guided = pytest.mark.parametrize("layer", GUIDED.values(), ids=GUIDED)


def images(shape=(4, 6, 8, 8), dtype=torch.float32, seed=0):
    """Feature maps as a ReLU leaves them, lifted from zero a little."""
    return random_numbers(shape, dtype, seed).abs() + 0.01


def with_random_tensors(module):
    for seed, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(random_numbers(tensor.shape, tensor.dtype, seed).abs() + 0.1)
    return module


# ---------------------------------------------------------------- parameters of their own

OWN = {
    "mixed": (MixedPool2d, "logit", "init_proportion", 0.3, math.log(0.3 / 0.7), mixed_pool2d),
    "gem": (GeneralizedMeanPool2d, "p", "init_p", 2.5, 2.5, generalized_mean_pool2d),
    "lse": (LogSumExpPool2d, "lam", "init_lambda", -1.5, -1.5, log_sum_exp_pool2d),
}
each_own = pytest.mark.parametrize(
    ("layer", "name", "argument", "initial", "stored", "function"), OWN.values(), ids=OWN
)


@each_own
@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("num_features", [None, 6])
def test_parameter_of_its_own(
    layer, name, argument, initial, stored, function, learnable, num_features
):
    options = {argument: initial, "num_features": num_features, "learnable": learnable}
    pool = layer(*WINDOW, **options)
    tensor = getattr(pool, name)
    assert tensor.shape == (1, num_features or 1, 1, 1)
    torch.testing.assert_close(tensor.detach(), torch.full_like(tensor, stored))
    assert [parameter for parameter, _ in pool.named_parameters()] == [name] * learnable
    assert list(pool.state_dict()) == [name]
    torch.testing.assert_close(pool(images()), function(images(), initial, *WINDOW))
    nn.init.zeros_(tensor)
    pool.reset_parameters()
    torch.testing.assert_close(tensor.detach(), torch.full_like(tensor, stored))
    for option, value in options.items():
        assert f"{option}={value}" in repr(pool)


@pytest.mark.parametrize("num_features", [None, 6])
def test_gates(num_features):
    pool = GatedPool2d(*WINDOW, num_features=num_features)
    assert pool.weight.shape == (1, num_features or 1, 3, 3)
    assert [name for name, _ in pool.named_parameters()] == ["weight"]
    torch.testing.assert_close(pool(images()), mixed_pool2d(images(), 0.5, *WINDOW))
    with_random_tensors(pool)
    weight = pool.weight.detach().clone()
    assert torch.equal(pool(images()), gated_pool2d(images(), weight, *WINDOW))
    pool.reset_parameters()
    assert (pool.weight == 0).all()


def test_soft_layer_is_its_function():
    assert torch.equal(SoftPool2d(*WINDOW)(images()), soft_pool2d(images(), *WINDOW))
    assert not SoftPool2d(2).state_dict()


def test_eps_of_the_generalized_mean():
    pool = GeneralizedMeanPool2d(2, eps=0.5)
    assert (pool(torch.zeros(1, 4, 4)) == 0.5).all()
    assert "eps=0.5" in repr(pool)
    with pytest.raises(ValueError, match="eps"):
        GeneralizedMeanPool2d(2, eps=0.0)


def test_fixed_proportions_are_exact():
    x = images()
    average = MixedPool2d(2, init_proportion=0.0, learnable=False)
    largest = MixedPool2d(2, init_proportion=1.0, learnable=False)
    torch.testing.assert_close(average(x), F.avg_pool2d(x, 2), rtol=1e-7, atol=1e-7)
    assert torch.equal(largest(x), F.max_pool2d(x, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_proportion": 1.5, "learnable": False}, r"init_proportion.*1\.5"),
        ({"init_proportion": math.nan}, "init_proportion.*nan"),
        ({"init_proportion": 1}, "init_proportion.*1.*learnable=False"),
        ({"init_proportion": 0.0}, "init_proportion.*0.*learnable=False"),
        ({"num_features": 0}, "num_features.*0"),
    ],
)
def test_unusable_arguments_of_the_mixed_pooling(arguments, message):
    with pytest.raises(ValueError, match=message):
        MixedPool2d(2, **arguments)


@pytest.mark.parametrize("layer", [GatedPool2d, GeneralizedMeanPool2d, LogSumExpPool2d])
def test_unusable_num_features(layer):
    with pytest.raises(ValueError, match=r"num_features.*-1"):
        layer(2, num_features=-1)


def test_channels_other_than_num_features():
    for layer, name in (
        (MixedPool2d, "proportion"),
        (GatedPool2d, "weight"),
        (GeneralizedMeanPool2d, "p"),
        (LogSumExpPool2d, "lam"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} .*\(1, 5, .*\(4, 6, 8, 8\)"):
            layer(2, num_features=5)(images())


# ---------------------------------------------------------------- guided


def head_output(pool, input):
    """The head without its activation."""
    head = pool.head
    mean = input.mean((2, 3), keepdim=True)
    return head.norm2(head.conv2(head.norm1(head.conv1(mean)).relu()))


GUIDED_FORMULAS = {
    "mixed": lambda pool, x, h: mixed_pool2d(x, torch.sigmoid(h), *WINDOW),
    "gated": lambda pool, x, h: gated_pool2d(x, pool.weight, *WINDOW, bias=h),
    "gem": lambda pool, x, h: generalized_mean_pool2d(x, 1 + F.softplus(h), *WINDOW),
    "lse": lambda pool, x, h: log_sum_exp_pool2d(x, F.softplus(h), *WINDOW),
}


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("training", [True, False])
def test_guided_pooling_is_the_pooling_with_the_heads_parameter(name, training):
    pool = GUIDED[name](6, *WINDOW, hidden_features=4, dtype=torch.float64)
    with_random_tensors(pool).train(training)
    input = images(dtype=torch.float64)
    expected = GUIDED_FORMULAS[name](pool, input, head_output(copy.deepcopy(pool), input))
    torch.testing.assert_close(pool(input), expected)
    # The samples' parameters differ.
    assert head_output(pool, input).std(0).min() > 1e-3


@each_guided
def test_head_is_that_of_max_ent(layer):
    torch.manual_seed(0)
    pool = layer(6, 2)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    max_ent = GFGPMaxEntPool2d(6, 2)
    assert torch.equal(after, torch.get_rng_state())
    heads = {k: v for k, v in pool.state_dict().items() if k.startswith("head.")}
    assert heads.keys() == max_ent.state_dict().keys()
    assert all(torch.equal(heads[name], tensor) for name, tensor in max_ent.state_dict().items())
    others = pool.state_dict().keys() - heads.keys()
    assert others == ({"weight"} if layer is GFGPGatedPool2d else set())


@each_guided
def test_reset_parameters_of_guided_layers(layer):
    pool = with_random_tensors(layer(6, 2))
    torch.manual_seed(3)
    pool.reset_parameters()
    torch.manual_seed(3)
    fresh = layer(6, 2)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(pool.state_dict()[name], tensor), name


def test_max_ent_is_the_guided_pooling_that_its_base_would_compose():
    pool = with_random_tensors(GFGPMaxEntPool2d(6, *WINDOW, activation="softplus"))
    results = []
    for forward in (pool.forward, lambda input: GuidedPool2d.forward(pool, input)):
        input = images().requires_grad_()
        output = forward(input)
        gradients = torch.autograd.grad(output.square().sum(), (input, *pool.parameters()))
        results.append((output, *gradients))
    torch.testing.assert_close(*results)


class GuidedScaling(GuidedPool2d):
    """A pooling of a user's own: every other element of each axis, times the parameter."""

    def pool(self, input, parameter):
        return parameter * input[:, :, ::2, ::2]


def test_a_pool_of_ones_own_counts_whatever_the_base_does():
    class ScaledMax(GFGPMixedPool2d):
        def pool(self, input, parameter):
            *window, ceil_mode = self.window
            return parameter * F.max_pool2d(input, *window, ceil_mode=ceil_mode)

    class Further(ScaledMax):
        pass

    for cls in (ScaledMax, Further):
        pool = with_random_tensors(cls(6, *WINDOW)).eval()
        scale = pool.head(images().mean((2, 3), keepdim=True))
        expected = scale * F.max_pool2d(images(), *WINDOW[:3], ceil_mode=True)
        torch.testing.assert_close(pool(images()), expected)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("kernel_size", [2, 4])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_a_pool_of_ones_own_of_lines_and_volumes(axes, kernel_size, count_include_pad):
    maxima = {1: F.max_pool1d, 3: F.max_pool3d}[axes]

    class ScaledMax2d(GuidedPool2d):
        activation = nn.Sigmoid

        def pool(self, input, parameter):
            return parameter * maxima(input, *self.window[:3])

    class ScaledMax(ScaledMax2d, axes=axes): ...

    assert ScaledMax.axes == axes
    padding = kernel_size // 2 if count_include_pad else 0
    pool = ScaledMax(6, kernel_size, 2, padding, count_include_pad=count_include_pad).eval()
    pool = with_random_tensors(pool)
    input = random_numbers((3, 6, *(4,) * axes), torch.float32, 0)
    scale = pool.head(input.flatten(2).mean(2)[..., None, None]).view(3, 6, *(1,) * axes)
    expected = scale * maxima(F.pad(input, (padding,) * 2 * axes), kernel_size, 2)
    torch.testing.assert_close(pool(input), expected)
    torch.testing.assert_close(pool(input[0]), expected[0])


@pytest.mark.parametrize(
    ("activation", "function"),
    [("softplus", F.softplus), ("sigmoid", torch.sigmoid), (nn.Tanh, torch.tanh)],
)
def test_activation_of_a_guided_pooling_of_ones_own(activation, function):
    Guided = type("Guided", (GuidedScaling,), {"activation": activation})
    pool = with_random_tensors(Guided(6, 2))
    before = pool.head[:-1](images().mean((2, 3), keepdim=True))
    pool = with_random_tensors(Guided(6, 2))
    torch.testing.assert_close(pool(images()), function(before) * images()[:, :, ::2, ::2])


def test_unknown_activation_of_a_guided_pooling_of_ones_own():
    class Guided(GuidedScaling):
        activation = "relu"

    with pytest.raises(ValueError, match="activation must be 'sigmoid' or 'softplus', got 'relu'"):
        Guided(6, 2)


def test_guided_gates_start_as_guided_mixing():
    gated, mixed = GFGPGatedPool2d(6, 3), GFGPMixedPool2d(6, 3)
    mixed.head.load_state_dict(gated.head.state_dict())
    torch.testing.assert_close(gated(images()), mixed(images()))


@each_guided
def test_backward_reaches_the_head_the_input_and_the_gates(layer):
    pool = with_random_tensors(layer(6, 2))
    input = images().requires_grad_()
    pool(input).square().sum().backward()
    assert input.grad.isfinite().all()
    for name, parameter in pool.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # A BatchNorm takes away whatever bias comes before it.
        assert parameter.grad.any() or name in ("head.conv1.bias", "head.conv2.bias"), name


@each_guided
def test_training_on_one_sample_is_refused(layer):
    pool = layer(6, 2)
    before = copy.deepcopy(pool.state_dict())
    for input in (images((1, 6, 8, 8)), images((6, 8, 8))):
        with pytest.raises(ValueError, match=r"one sample.*eval\(\)"):
            pool(input)
    assert all(map(torch.equal, before.values(), pool.state_dict().values()))
    pool.eval()
    whole = pool(images())
    torch.testing.assert_close(pool(images()[0]), whole[0])


@each_guided
@pytest.mark.parametrize(
    ("input", "error", "message"),
    [
        (torch.ones(2, 5, 8, 8), ValueError, r"num_features.*6.*\(2, 5, 8, 8\)"),
        (torch.ones(2, 6, 1, 1), ValueError, r"empty.*\(2, 6, 1, 1\)"),
        (torch.ones(2, 6, 8, 8, dtype=torch.int32), TypeError, "input.*int32"),
    ],
    ids=str,
)
def test_unusable_input_leaves_the_statistics_alone(layer, input, error, message):
    pool = layer(6, 2)
    before = copy.deepcopy(pool.state_dict())
    with pytest.raises(error, match=message):
        pool(input)
    assert all(map(torch.equal, before.values(), pool.state_dict().values()))


@each_guided
def test_unusable_widths(layer):
    with pytest.raises(ValueError, match=r"num_features.*0"):
        layer(0, 2)
    with pytest.raises(ValueError, match=r"hidden_features.*0"):
        layer(6, 2, hidden_features=0)


# ---------------------------------------------------------------- as modules


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "soft"])
def test_training_brings_each_closer_to_max_pooling(name):
    pool = LAYERS[name](2)
    optimizer = torch.optim.Adam(pool.parameters(), lr=0.1)
    target = F.max_pool2d(images(), 2)
    losses = []
    for _ in range(20):
        loss = F.mse_loss(pool(images()), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtype_keyword(create, dtype):
    layer = create(2, dtype=dtype)
    tensors = [tensor for tensor in layer.state_dict().values() if tensor.is_floating_point()]
    assert all(tensor.dtype == dtype for tensor in tensors)
    assert layer(images(dtype=dtype)).dtype == dtype


def under_device(create):
    with torch.device("meta"):
        return create(2)


@each_layer
@pytest.mark.parametrize("on_meta", [lambda create: create(2, device="meta"), under_device])
def test_device(create, on_meta):
    layer = on_meta(create)
    assert all(tensor.is_meta for tensor in layer.state_dict().values())
    layer.to_empty(device="cpu")
    if list(layer.parameters()):
        layer.reset_parameters()
    assert layer(images()).isfinite().all()


@needs_cuda
@each_layer
def test_on_a_gpu(create):
    layer = with_random_tensors(create(*WINDOW, device="cuda")).eval()
    on_cpu = copy.deepcopy(layer).cpu()
    torch.testing.assert_close(layer(images().cuda()).cpu(), on_cpu(images()))


@each_layer
def test_copies_are_independent_and_equal(create):
    layer = with_random_tensors(create(*WINDOW)).eval()
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    expected = layer(images())
    saved = copy.deepcopy(layer.state_dict())
    copies = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(buffer, weights_only=False),
        create(*WINDOW).eval(),
    ]
    copies[-1].load_state_dict(saved)
    for tensor in layer.state_dict().values():
        tensor.zero_()
    for other in copies:
        assert torch.equal(other(images()), expected)


@each_layer
def test_representation_tells_the_window(create):
    text = repr(create((3, 2), 1, (1, 0), True))
    for argument in ("kernel_size=(3, 2)", "stride=(1, 1)", "padding=(1, 0)", "ceil_mode=True"):
        assert argument in text


@each_layer
def test_autocast_keeps_the_input_type(create):
    layer = create(2)
    expected = layer(images())
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images())
        half = layer(images().bfloat16())
    assert output.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=0, atol=0.05)
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("layer", [GFGPGeneralizedMeanPool2d, GFGPLogSumExpPool2d])
def test_heads_keep_their_type_under_autocast(layer):
    pool = with_random_tensors(layer(6, 2))
    expected = pool(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pool(images()), expected)
        # A mean rounded to bfloat16 would tell the samples' maps apart too coarsely.
        half = images().bfloat16()
        assert torch.equal(pool(half), pool(half.float()).bfloat16())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfgp_gated", "gfgp_gem"])
def test_one_graph_for_every_size(name):
    layer = with_random_tensors(LAYERS[name](*WINDOW)).eval()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    program = torch.export.export(layer, (images(),), dynamic_shapes=(dynamic,)).module()
    for shape in ((2, 6, 9, 8), (3, 6, 12, 8)):
        input = images(shape).requires_grad_()
        expected = layer(input)
        (expected_grad,) = torch.autograd.grad(expected.sum(), input)
        output = compiled(input)
        (grad,) = torch.autograd.grad(output.sum(), input)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(grad, expected_grad)
        torch.testing.assert_close(program(input), expected)


@each_layer
def test_layers_without_guidance_draw_no_random_numbers(create):
    before = torch.get_rng_state()
    layer = create(2)
    guided = hasattr(layer, "head")
    assert torch.equal(before, torch.get_rng_state()) != guided


@pytest.mark.parametrize("name", list_poolings())
def test_output_of_pytorchs_operators_can_be_changed_in_place(name):
    """None of them may keep it for the backward pass."""
    pool = create_pooling(name, 6, *WINDOW).eval()
    gradients = []
    for change in (torch.add, torch.Tensor.add_):
        input = images().requires_grad_()
        with use_backend("torch"):
            output = change(pool(input), 1.0)
        output.square().sum().backward()
        gradients.append(input.grad)
    torch.testing.assert_close(*gradients)
