"""The layers: λ as a parameter, λ from a head, and the published layer's names."""

import copy
import io
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d, MaxEntPoolingCuda2d
from gfgp_cupy.functional import max_ent_pool2d
from gfgp_cupy.poolings import GaussianPool2d, GeneralizedMeanPool2d, MixedPool2d
from tests.support.implementations import needs_cuda
from tests.support.random_numbers import random_numbers

OWN_NAMES = {"1": "conv1", "2": "norm1", "4": "conv2", "5": "norm2"}


def images(shape=(4, 6, 8, 8), dtype=torch.float32, seed=0):
    return random_numbers(shape, dtype, seed)


def with_random_tensors(module):
    """Statistics and biases that are not 0 or 1, so that using the wrong ones shows."""
    for seed, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(random_numbers(tensor.shape, tensor.dtype, seed).abs() + 0.1)
    return module


def published(state_dict, prefix=""):
    """The state dict under the published implementation's tensor names."""
    renamed = {}
    for name, tensor in state_dict.items():
        for number, own in OWN_NAMES.items():
            name = name.replace(f"{prefix}head.{own}.", f"{prefix}ToParam.{number}.")
        renamed[name] = tensor
    return renamed


# ---------------------------------------------------------------- MaxEntPool2d


@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("num_features", [None, 6])
def test_lam_of_its_own(learnable, num_features):
    pool = MaxEntPool2d(
        3, stride=2, padding=1, num_features=num_features, init_lambda=-0.5, learnable=learnable
    )
    assert pool.lam.shape == (1, num_features or 1, 1, 1)
    assert (pool.lam == -0.5).all()
    assert [name for name, _ in pool.named_parameters()] == ["lam"] * learnable
    assert list(pool.state_dict()) == ["lam"]
    expected = max_ent_pool2d(images(), torch.full((1, 6, 1, 1), -0.5), 3, 2, 1)
    assert torch.equal(pool(images()), expected)


def test_lam_is_learned():
    pool = MaxEntPool2d(2, num_features=6, init_lambda=0.0)
    optimizer = torch.optim.SGD(pool.parameters(), lr=1.0)
    target = F.max_pool2d(images(), 2)
    losses = []
    for _ in range(20):
        loss = F.mse_loss(pool(images()), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert (pool.lam > 0.3).all()


def test_reset_parameters_of_lam():
    pool = MaxEntPool2d(2, init_lambda=3.0)
    nn.init.zeros_(pool.lam)
    pool.reset_parameters()
    assert pool.lam.item() == 3


def test_a_layer_on_another_device_is_told_to_move():
    pool = MaxEntPool2d(2, num_features=6, device="meta")
    with pytest.raises(ValueError, match=r"layer\.to\(input\.device\) the layer that has lam$"):
        pool(images())


def test_unusable_num_features():
    with pytest.raises(ValueError, match=r"num_features.*0"):
        MaxEntPool2d(2, num_features=0)


def test_channels_other_than_num_features():
    message = r"lam.*\(1, 5, 1, 1\).*\(4, 6, 4, 4\).*with num_features=6, or without num_features"
    with pytest.raises(ValueError, match=message):
        MaxEntPool2d(2, num_features=5)(images())


@pytest.mark.parametrize("value", [None, "1", True, [1.0, 2.0]], ids=str)
def test_what_a_parameter_starts_from_is_a_number(value):
    for name, layer in (
        ("init_lambda", MaxEntPool2d),
        ("init_p", GeneralizedMeanPool2d),
        ("init_weight", GaussianPool2d),
        ("init_proportion", MixedPool2d),
        ("eps", GaussianPool2d),
        ("eps", GeneralizedMeanPool2d),
    ):
        with pytest.raises(TypeError, match=f"{name} must be a number, got "):
            layer(2, **{name: value})


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(math.inf, None), (-math.inf, None), (math.nan, None), (1e39, None), (1e5, torch.float16)],
    ids=str,
)
def test_what_a_parameter_starts_from_is_finite_in_its_type(value, dtype):
    for name, layer in (
        ("init_lambda", MaxEntPool2d),
        ("init_p", GeneralizedMeanPool2d),
        ("init_weight", GaussianPool2d),
    ):
        with pytest.raises(
            ValueError, match=rf"{name} must be finite in torch.float.*such as 1000"
        ):
            layer(2, dtype=dtype, **{name: value})
    assert MaxEntPool2d(2, init_lambda=1e39, dtype=torch.float64).lam.isfinite().all()


# ---------------------------------------------------------------- GFGPMaxEntPool2d


@pytest.mark.parametrize(
    ("activation", "function"), [("sigmoid", torch.sigmoid), ("softplus", F.softplus)]
)
@pytest.mark.parametrize("training", [True, False])
def test_head_is_the_formula(activation, function, training):
    pool = GFGPMaxEntPool2d(
        6,
        kernel_size=3,
        stride=2,
        padding=1,
        activation=activation,
        hidden_features=5,
        dtype=torch.float64,
    )
    pool = with_random_tensors(pool).train(training)
    tensors = {name: tensor.clone() for name, tensor in pool.state_dict().items()}
    input = images(dtype=torch.float64) + 0.3

    def linear(name, x):
        weight = tensors[f"head.{name}.weight"][:, :, 0, 0]
        return x @ weight.T + tensors[f"head.{name}.bias"]

    def norm(name, x):
        mean, variance = (
            tensors[f"head.{name}.{what}"] for what in ("running_mean", "running_var")
        )
        if training:
            mean, variance = x.mean(0), x.var(0, unbiased=False)
        x = (x - mean) / (variance + 1e-5).sqrt()
        return x * tensors[f"head.{name}.weight"] + tensors[f"head.{name}.bias"]

    hidden = norm("norm1", linear("conv1", input.mean((2, 3)))).relu()
    lam = function(norm("norm2", linear("conv2", hidden)))[:, :, None, None]
    torch.testing.assert_close(pool(input), max_ent_pool2d(input, lam, 3, 2, 1))


def test_lam_starts_around_one_half():
    torch.manual_seed(0)
    pool = GFGPMaxEntPool2d(64, 2)
    with torch.no_grad():
        lam = pool.head(images((32, 64, 8, 8)).mean((2, 3), keepdim=True))
    assert lam.shape == (32, 64, 1, 1)
    assert ((lam > 0) & (lam < 1)).all()
    assert abs(lam.mean().item() - 0.5) < 0.05


@pytest.mark.parametrize(
    ("num_features", "hidden_features", "expected"),
    [(6, None, 3), (7, None, 3), (1, None, 1), (6, 10, 10)],
)
def test_hidden_features(num_features, hidden_features, expected):
    pool = GFGPMaxEntPool2d(num_features, 2, hidden_features=hidden_features)
    assert pool.head.conv1.weight.shape == (expected, num_features, 1, 1)
    assert pool.head.conv2.weight.shape == (num_features, expected, 1, 1)
    assert {name.split(".")[1] for name in pool.state_dict()} == set(OWN_NAMES.values())


def test_parameter_count_is_the_published_one():
    # Published: 31,086,952 parameters for ResNet-50, 5,529,920 more than with strides for poolings.
    layers = [GFGPMaxEntPool2d(channels, 2) for channels in (64, 64, 512, 1024, 2048)]
    extra = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    assert extra == 31_086_952 - 25_557_032


def test_training_lowers_a_loss():
    torch.manual_seed(0)
    pool = GFGPMaxEntPool2d(6, 2, activation="softplus")
    optimizer = torch.optim.SGD(pool.parameters(), lr=1.0)
    before = {name: parameter.clone() for name, parameter in pool.named_parameters()}
    losses = []
    for _ in range(15):
        loss = F.mse_loss(pool(images()), F.max_pool2d(images(), 2))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    for name, parameter in pool.named_parameters():
        # A BatchNorm takes away whatever bias comes before it.
        if name not in ("head.conv1.bias", "head.conv2.bias"):
            assert not torch.equal(parameter, before[name]), name


def test_reset_parameters_of_the_head():
    pool = with_random_tensors(GFGPMaxEntPool2d(6, 2))
    before = copy.deepcopy(pool.state_dict())
    torch.manual_seed(3)
    pool.reset_parameters()
    assert not any(
        torch.equal(tensor, before[name])
        for name, tensor in pool.state_dict().items()
        if tensor.is_floating_point()
    )
    torch.manual_seed(3)
    fresh = GFGPMaxEntPool2d(6, 2)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(pool.state_dict()[name], tensor), name


# ---------------------------------------------------------------- batches of one


def test_training_on_one_sample_is_refused():
    pool = GFGPMaxEntPool2d(6, 2)
    for input in (images((1, 6, 8, 8)), images((6, 8, 8))):
        before = copy.deepcopy(pool.state_dict())
        said = r"one sample.*drop_last=True.*eval\(\).*" + str(len(input))
        with pytest.raises(ValueError, match=said):
            pool(input)
        assert all(map(torch.equal, before.values(), pool.state_dict().values()))


def test_evaluation_of_one_sample():
    pool = with_random_tensors(GFGPMaxEntPool2d(6, 2)).eval()
    whole = pool(images())
    for sample, expected in zip(images(), whole, strict=True):
        torch.testing.assert_close(pool(sample), expected)
        torch.testing.assert_close(pool(sample[None])[0], expected)


def test_norms_in_evaluation_mode_train_on_one_sample():
    pool = GFGPMaxEntPool2d(6, 2)
    pool.head.norm1.eval()
    pool.head.norm2.eval()
    pool(images((1, 6, 8, 8))).sum().backward()
    assert pool.head.conv1.weight.grad.count_nonzero() > 0


def test_sync_batch_norm_is_not_refused():
    pool = nn.SyncBatchNorm.convert_sync_batchnorm(GFGPMaxEntPool2d(6, 2))
    assert isinstance(pool.head.norm1, nn.SyncBatchNorm)
    # It needs a GPU and a process group to run, and says so itself.
    with pytest.raises((ValueError, RuntimeError)) as error:
        pool(images((1, 6, 8, 8)))
    assert "one sample" not in str(error.value)


def test_empty_batch_in_evaluation():
    assert GFGPMaxEntPool2d(6, 2).eval()(images((0, 6, 8, 8))).shape == (0, 6, 4, 4)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, "num_features.*0"),
        ({"hidden_features": 0}, "hidden_features.*0"),
        ({"activation": "relu"}, "activation.*'sigmoid'.*'softplus'.*'relu'"),
        ({"activation": ["relu"]}, r"activation.*'sigmoid'.*'softplus'.*\['relu'\]"),
        ({"kernel_size": 0}, "kernel_size.*0"),
        ({"stride": 0}, "stride.*0"),
        ({"padding": 2}, "padding=2.*kernel_size=2"),
    ],
)
def test_unusable_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GFGPMaxEntPool2d(**{"num_features": 6, "kernel_size": 2, **arguments})


def test_an_activation_of_the_class_is_no_default():
    class Softplus(GFGPMaxEntPool2d):
        activation = "softplus"

    class ByClass(GFGPMaxEntPool2d):
        activation = nn.Softplus

    with pytest.raises(ValueError, match=r"Softplus\.activation is 'softplus': .* attribute away"):
        Softplus(6, 2)
    with pytest.raises(ValueError, match=r"ByClass\.activation is .*Softplus.* attribute away"):
        ByClass(6, 2, activation="softplus")
    pool = Softplus(6, 2, activation="softplus")
    assert pool.activation == "softplus" and isinstance(pool.head[-1], nn.Softplus)


def test_an_activation_that_is_changed_is_the_heads():
    changed = GFGPMaxEntPool2d(6, 2)
    changed.activation = "softplus"
    assert isinstance(changed.head[-1], nn.Softplus)
    with pytest.raises(ValueError, match="'tanh'"):
        changed.activation = "tanh"
    assert changed.activation == "softplus"
    in_the_head = GFGPMaxEntPool2d(6, 2)
    in_the_head.head.activation = nn.Softplus()
    for layer in (changed, in_the_head):
        state = layer.state_dict()
        GFGPMaxEntPool2d(6, 2, activation="softplus").load_state_dict(state)
        with pytest.raises(RuntimeError, match="saved of a layer with activation='softplus'"):
            GFGPMaxEntPool2d(6, 2).load_state_dict(state)
    other = GFGPMaxEntPool2d(6, 2)
    other.head.activation = nn.Tanh()  # nothing is known of it
    GFGPMaxEntPool2d(6, 2, activation="softplus").load_state_dict(other.state_dict())
    other.load_state_dict(state)


@pytest.mark.parametrize("name", ["num_features", "hidden_features"])
@pytest.mark.parametrize("value", [4.0, "4", True])
def test_widths_are_ints(name, value):
    with pytest.raises(TypeError, match=rf"{name} must be an int.*{value!r}"):
        GFGPMaxEntPool2d(**{"num_features": 6, "kernel_size": 2, name: value})
    if name == "num_features":
        with pytest.raises(TypeError, match=rf"{name} must be an int.*{value!r}"):
            MaxEntPool2d(2, num_features=value)


@pytest.mark.parametrize(
    ("input", "error", "message"),
    [
        (torch.ones(2, 5, 8, 8), ValueError, r"num_features.*6.*\(2, 5, 8, 8\)"),
        (torch.ones(6, 6), ValueError, r"\(6, 6\)"),
        (torch.ones(2, 6, 1, 8, 8), ValueError, r"\(2, 6, 1, 8, 8\)"),
        (torch.ones(2, 6, 1, 1), ValueError, r"empty.*\(2, 6, 1, 1\)"),
        (torch.ones(2, 6, 8, 8, dtype=torch.int32), TypeError, "input.*int32"),
        ([1.0], TypeError, "input.*list"),
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_unusable_input(input, error, message, training):
    pool = GFGPMaxEntPool2d(6, 2).train(training)
    before = copy.deepcopy(pool.state_dict())
    with pytest.raises(error, match=message):
        pool(input)
    assert all(map(torch.equal, before.values(), pool.state_dict().values()))


# ---------------------------------------------------------------- state dicts


class Parent(nn.Module):
    """Two of the layers, deep in a module whose own names are alike."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.blocks = nn.Sequential(
            nn.Conv2d(6, 6, 1), nn.Sequential(GFGPMaxEntPool2d(6, 2)), GFGPMaxEntPool2d(6, 3)
        )


POOLS = ("blocks.1.0.", "blocks.2.")


@pytest.mark.parametrize("source", [GFGPMaxEntPool2d, MaxEntPoolingCuda2d])
@pytest.mark.parametrize("destination", [GFGPMaxEntPool2d, MaxEntPoolingCuda2d])
@pytest.mark.parametrize("names", ["own", "published"])
def test_state_dict_of_a_layer(source, destination, names):
    saved = with_random_tensors(source(6, 2)).state_dict()
    given = published(saved) if names == "published" else saved
    if names == "published":
        assert {name.split(".")[0] for name in given} == {"ToParam"}
    untouched = dict(given)
    pool = destination(6, 2)
    pool.load_state_dict(given)
    assert list(given) == list(untouched)
    for tensor, expected in zip(pool.state_dict().values(), saved.values(), strict=True):
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("renamed", [(), POOLS[:1], POOLS], ids=str)
def test_state_dict_of_layers_inside_a_network(renamed):
    saved = with_random_tensors(Parent()).state_dict()
    given = saved
    for prefix in renamed:
        given = published(given, prefix)
    assert sum(".ToParam." in name for name in given) == 14 * len(renamed)
    network = Parent()
    network.load_state_dict(given)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, saved[name])


@pytest.mark.parametrize("prefix", ["", "blocks.1.0."])
def test_missing_and_unexpected_tensors_are_reported(prefix):
    module = Parent() if prefix else GFGPMaxEntPool2d(6, 2)
    complete = published(module.state_dict(), prefix)
    incomplete = {k: v for k, v in complete.items() if k != f"{prefix}ToParam.4.bias"}
    with pytest.raises(RuntimeError, match=rf'Missing .*"{prefix}head\.conv2\.bias"'):
        module.load_state_dict(incomplete)
    for extra in (f"{prefix}ToParam.3.weight", f"{prefix}head.conv3.weight", f"{prefix}weight"):
        with pytest.raises(RuntimeError, match=f'Unexpected .*"{extra}"'):
            module.load_state_dict({**complete, extra: torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"Unexpected .*weights"):
        module.load_state_dict({**complete, f"{prefix}ToParam.1.weights": torch.zeros(1)})


def test_a_tensor_under_both_names_is_reported():
    pool = GFGPMaxEntPool2d(6, 2)
    both = {**pool.state_dict(), "ToParam.1.bias": torch.zeros(3)}
    with pytest.raises(RuntimeError, match=r'Unexpected .*"ToParam\.1\.bias"'):
        pool.load_state_dict(both)


def test_wrong_shape_is_reported():
    other = published(GFGPMaxEntPool2d(8, 2).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        GFGPMaxEntPool2d(6, 2).load_state_dict(other)


# ---------------------------------------------------------------- the published name


def test_published_positional_arguments():
    torch.manual_seed(0)
    published_layer = MaxEntPoolingCuda2d(6, 3, 2, 1, True, "softplus", 4)
    torch.manual_seed(0)
    layer = GFGPMaxEntPool2d(
        6,
        kernel_size=3,
        stride=2,
        padding=1,
        ceil_mode=True,
        activation="softplus",
        hidden_features=4,
    )
    assert isinstance(published_layer, GFGPMaxEntPool2d)
    assert torch.equal(published_layer(images()), layer(images()))
    assert published_layer(images()).shape == (4, 6, 5, 5)


def test_published_keyword_arguments():
    layer = MaxEntPoolingCuda2d(
        num_features=6,
        kernel_size=2,
        stride=2,
        padding=0,
        ceil_mode=False,
        activation="sigmoid",
        hidden_node=None,
    )
    assert layer.head.conv1.out_channels == 3
    assert MaxEntPoolingCuda2d(6, 2, hidden_node=5).head.conv1.out_channels == 5


# ---------------------------------------------------------------- as a module

LAYERS = {
    "fixed": lambda **options: MaxEntPool2d(2, learnable=False, **options),
    "learnable": lambda **options: MaxEntPool2d(2, num_features=6, **options),
    "gfgp": lambda **options: GFGPMaxEntPool2d(6, 2, **options),
    "published": lambda **options: MaxEntPoolingCuda2d(6, 2, **options),
}
each_layer = pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_keyword(create, dtype):
    layer = create(dtype=dtype)
    tensors = {name: t for name, t in layer.state_dict().items() if t.is_floating_point()}
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert layer(images(dtype=dtype)).dtype == dtype


@each_layer
def test_device_keyword(create):
    layer = create(device="meta")
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {"meta"}
    output = layer(torch.empty(4, 6, 8, 8, device="meta"))
    assert output.device.type == "meta"
    assert output.shape == (4, 6, 4, 4)
    layer.to_empty(device="cpu").reset_parameters()
    assert layer(images()).isfinite().all()


@needs_cuda
@each_layer
def test_on_a_gpu(create):
    layer = create(device="cuda")
    on_cpu = copy.deepcopy(layer).cpu()
    torch.testing.assert_close(layer(images().cuda()).cpu(), on_cpu(images()))


@each_layer
def test_copies_are_independent_and_equal(create):
    layer = with_random_tensors(create()).eval()
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(buffer, weights_only=False),
    ]
    expected = layer(images())
    for tensor in layer.state_dict().values():
        tensor.zero_()
    for other in copies:
        assert torch.equal(other(images()), expected)
        other.load_state_dict(published(layer.state_dict()))
        assert all((tensor == 0).all() for tensor in other.state_dict().values())


@each_layer
def test_representation_tells_the_arguments(create):
    text = repr(create())
    for argument in ("kernel_size=(2, 2)", "stride=(2, 2)", "padding=(0, 0)", "ceil_mode=False"):
        assert argument in text


def test_representation_tells_what_is_special():
    text = repr(MaxEntPool2d((3, 2), 1, (1, 0), True, 6, -2.5, False))
    for argument in (
        "kernel_size=(3, 2)",
        "stride=(1, 1)",
        "padding=(1, 0)",
        "ceil_mode=True",
        "num_features=6",
        "init_lambda=-2.5",
        "learnable=False",
    ):
        assert argument in text
    text = repr(GFGPMaxEntPool2d(6, 2, activation="softplus", hidden_features=4))
    for argument in ("GFGPMaxEntPool2d(\n  6,", "'softplus'", "hidden_features=4", "(head)"):
        assert argument in text


def test_construction_draws_as_many_numbers_as_its_convolutions():
    # Replacing a pooling must not depend on anything but the random state that the caller set.
    torch.manual_seed(0)
    GFGPMaxEntPool2d(6, 2)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
    assert torch.equal(after, torch.get_rng_state())


def test_autocast_keeps_the_input_type():
    pool = GFGPMaxEntPool2d(6, 2)
    expected = pool(images())
    with torch.autocast("cpu", torch.bfloat16):
        output = pool(images())
        half = pool(images().bfloat16())
    assert output.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=0, atol=0.05)
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.05)
