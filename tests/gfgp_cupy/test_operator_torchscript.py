"""torch.jit.trace and what is built on it: traces that hold for other sizes and devices."""

import io
import re
import warnings

import pytest
import torch
from torch import nn

from gfgp_cupy import AdaptiveMaxEntPool2d, GFGPMaxEntPool2d, MaxEntPool2d, use_backend
from gfgp_cupy.functional import adaptive_windows, guided_max_ent_pool2d, max_ent_pool2d
from gfgp_cupy.poolings import create_pooling, gated_pool2d, list_poolings
from gfgp_cupy.poolings.gaussian import GFGPGaussianPool2d
from gfgp_cupy.surgery import PoolingByChannels
from tests.support.random_numbers import random_numbers
from tests.support.small_networks import small_densenet, small_resnet

pytestmark = [
    # That TorchScript is no longer developed.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("error::torch.jit.TracerWarning"),
]

UNEQUAL = {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True}
WINDOWS = {"2": {"kernel_size": 2}, "3/2/1": {"kernel_size": 3, "stride": 2, "padding": 1}}
SHAPES = ((3, 4, 9, 13), (1, 4, 16, 7))
"""Other sizes than the traced one, odd and even."""


on_torch = pytest.mark.usefixtures("torch_backend")  # it needs no compiling of kernels


@pytest.fixture
def torch_backend():
    with use_backend("torch"):
        yield


def numbers(*shape, seed=0):
    return random_numbers(shape, torch.float32, seed)


def saved_and_loaded(module, *inputs):
    """What ``torch.jit.trace`` makes of it, by way of a file."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, inputs), file)
    file.seek(0)
    return torch.jit.load(file)


def assert_same(loaded, module, input):
    """Results and the gradients of the input."""
    results = []
    for one in (loaded, module):
        x = input.clone().requires_grad_()
        output = one(x)
        output.square().sum().backward()
        results.append((output.detach(), x.grad))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- layers

LAYERS = {
    **{
        name: lambda window, name=name: create_pooling(name, 4, **window)
        for name in list_poolings()
        if name not in ("max", "avg")
    },
    "gaussian": lambda window: GFGPGaussianPool2d(4, **window),
    "gaussian, padding counted": lambda window: GFGPGaussianPool2d(
        4, **window, count_include_pad=True
    ),
}


@pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)
def test_traced_layer(create):
    layer = create(UNEQUAL).eval()
    loaded = saved_and_loaded(layer, numbers(2, 4, 10, 12))
    for shape in SHAPES:
        assert_same(loaded, layer, numbers(*shape))


@on_torch
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("name", ["max_ent", "gfgp_lse", "gfgp_gated"])
def test_traced_layer_of_other_windows(name, window):
    layer = create_pooling(name, 4, **window).eval()
    loaded = saved_and_loaded(layer, numbers(2, 4, 10, 12))
    for shape in SHAPES:
        assert_same(loaded, layer, numbers(*shape))


@on_torch
@pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)
def test_traced_layer_whose_window_was_the_whole_plane(create):
    """A window of numbers, which is not the whole of larger planes."""
    layer = create({"kernel_size": (5, 6)}).eval()
    loaded = saved_and_loaded(layer, numbers(2, 4, 5, 6))
    for shape in ((3, 4, 6, 7), (1, 4, 10, 12)):
        assert_same(loaded, layer, numbers(*shape))


WHOLE_PLANES = [
    name for name in list_poolings() if name not in ("max", "avg") and "gated" not in name
]


@on_torch
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", WHOLE_PLANES)
def test_traced_pooling_of_whole_planes(name, axes):
    layer = create_pooling(name, 4, adaptive_windows(1), axes=axes).eval()
    traced = torch.jit.trace(layer, (numbers(2, 4, *(6, 5, 4)[:axes]).abs(),))
    for size in (5, 8):
        input = numbers(3, 4, *(size, 3, 6)[:axes]).abs()
        torch.testing.assert_close(traced(input), layer(input))


@on_torch
@pytest.mark.parametrize("size", [(8, 6), (9, 7)], ids=["windows of one length", "of several"])
def test_traced_adaptive_pooling_refuses_sizes_that_need_other_windows(size):
    layer = AdaptiveMaxEntPool2d((4, None), num_features=4)
    loaded = saved_and_loaded(layer, numbers(2, 4, *size))
    assert_same(loaded, layer, numbers(3, 4, size[0], 11))  # one for each element
    for height in (2 * size[0], size[0] + 1):
        with pytest.raises(RuntimeError, match=rf"\({size[0]}\) must match .*\({height}\)"):
            loaded(numbers(2, 4, height, size[1]))


@on_torch
@pytest.mark.parametrize("counted", [False, True], ids=["left out", "counted"])
def test_traced_layer_of_same_padding(counted):
    # Of an odd size more is padded before the first element than of an even one.
    window = {"kernel_size": 3, "stride": 2, "padding": "same", "count_include_pad": counted}
    layer = GFGPMaxEntPool2d(4, **window).eval()
    loaded = saved_and_loaded(layer, numbers(2, 4, 10, 12))
    for shape in SHAPES:
        assert_same(loaded, layer, numbers(*shape))


@on_torch
def test_traced_pooling_by_channels():
    pooling = PoolingByChannels({str(width): GFGPMaxEntPool2d(width, 2) for width in (4, 6)}).eval()
    loaded = saved_and_loaded(pooling, numbers(2, 4, 10, 12))
    assert_same(loaded, pooling, numbers(3, 4, 9, 13))


@on_torch
def test_traced_layer_of_one_image():
    layer = GFGPMaxEntPool2d(4, 2).eval()
    loaded = saved_and_loaded(layer, numbers(4, 10, 12))
    assert_same(loaded, layer, numbers(4, 7, 8))


@pytest.mark.parametrize("stochasticity", ["CN", "HWCN"])
def test_traced_random_numbers_have_the_size_of_the_input(stochasticity):
    layer = GFGPGaussianPool2d(4, 2, stochasticity=stochasticity).eval()
    layer.training = True  # random numbers, but no statistics that a call would change
    traced = torch.jit.trace(layer, (numbers(2, 4, 10, 12),), check_trace=False)
    x = numbers(3, 4, 8, 6)
    outputs = []
    for module in (traced, layer):
        torch.manual_seed(1)
        outputs.append(module(x))
    torch.testing.assert_close(*outputs)


@on_torch
def test_traced_layer_trains_as_the_layer():
    # Behind BatchNorm some gradients are 0 but for rounding: float64, so that it is little.
    layer = GFGPMaxEntPool2d(4, 3, 2, 1, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of BatchNorm's own check of its batch
        traced = torch.jit.trace(layer, (numbers(8, 4, 10, 12).double(),), check_trace=False)
    gradients = []
    for module in (traced, layer):
        layer.zero_grad()
        module(numbers(9, 4, 9, 13).double()).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0])


def test_checks_are_those_of_eager_calls():
    with pytest.raises(ValueError, match=r"C = num_features = 4, got shape \(2, 5, 8, 8\)"):
        torch.jit.trace(GFGPMaxEntPool2d(4, 2), (numbers(2, 5, 8, 8),))
    with pytest.raises(ValueError, match="cannot train on a batch of one sample"):
        torch.jit.trace(GFGPMaxEntPool2d(4, 2), (numbers(1, 4, 8, 8),))
    with pytest.raises(ValueError, match="the output would be empty"):
        torch.jit.trace(MaxEntPool2d(9), (numbers(2, 4, 8, 8),))
    with pytest.raises(ValueError, match=r"lam of shape \(1, 3, 1, 1\) does not broadcast"):
        torch.jit.trace(FUNCTIONS["max_ent"], (numbers(2, 4, 8, 8), numbers(1, 3, 1, 1)))


# ---------------------------------------------------------------- functions

FUNCTIONS = {
    "max_ent": lambda x, parameter: max_ent_pool2d(x, parameter, **UNEQUAL),
    "max_ent of a number": lambda x, parameter: max_ent_pool2d(x, 1.0, **UNEQUAL),
    "guided": lambda x, parameter: guided_max_ent_pool2d(x, torch.sigmoid, **UNEQUAL),
    "gated": lambda x, parameter: gated_pool2d(x, 0.5, **UNEQUAL, bias=parameter),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_trace_of_a_function_holds_on_other_devices(function, request):
    parameter = numbers(1, 4, 1, 1, seed=1)
    traced = torch.jit.trace(function, (numbers(2, 4, 10, 12), parameter))
    for shape in SHAPES:
        torch.testing.assert_close(
            traced(numbers(*shape), parameter), function(numbers(*shape), parameter)
        )
        if "gated" in request.node.name and torch.__version__ < (2, 7):
            continue  # whose traces have no convolutions on the meta device
        # A tensor of the CPU in the trace would be refused beside those of another device.
        output = traced(numbers(*shape).to("meta"), parameter.to("meta"))
        assert output.shape == function(numbers(*shape), parameter).shape


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("make", [small_resnet, small_densenet])
def test_traced_network(make):
    network = make().eval()
    loaded = saved_and_loaded(network, numbers(2, 3, 64, 96))
    with torch.no_grad():
        for shape in ((3, 3, 96, 64), (1, 3, 65, 72)):
            x = numbers(*shape)
            torch.testing.assert_close(loaded(x), network(x), rtol=1e-4, atol=1e-5)


def test_graph_in_tensorboard(tmp_path):
    tensorboard = pytest.importorskip(
        "torch.utils.tensorboard", reason="needs tensorboard: pip install tensorboard"
    )
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(small_resnet().eval(), numbers(2, 3, 32, 32))
    (events,) = tmp_path.iterdir()
    assert b"GFGPMaxEntPool2d[pool1]" in events.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore", "error::torch.jit.TracerWarning:gfgp_cupy")
def test_lightning_logs_the_graph(tmp_path):
    lightning = pytest.importorskip(
        "lightning.pytorch", reason="needs lightning: pip install lightning"
    )

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = small_resnet()
            self.example_input_array = numbers(2, 3, 32, 32)

        def forward(self, images):
            return self.network(images)

        def training_step(self, batch, index):
            return self(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    images = torch.utils.data.TensorDataset(numbers(4, 3, 32, 32))
    trainer = lightning.Trainer(
        logger=lightning.loggers.TensorBoardLogger(str(tmp_path), log_graph=True),
        max_epochs=1, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(), torch.utils.data.DataLoader(images, batch_size=2))
    (events,) = tmp_path.rglob("events.out.*")
    assert b"GFGPMaxEntPool2d[pool1]" in events.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "channels"),
    [
        pytest.param(lambda: small_resnet(), 3, id="network"),
        *(
            pytest.param(lambda create=create: create(UNEQUAL), 4, id=name)
            for name, create in LAYERS.items()
            if name in ("max_ent", "gfgp_lse", "gfgp_gated", "gaussian")
        ),
    ],
)
@pytest.mark.filterwarnings("ignore", "error::torch.jit.TracerWarning:gfgp_cupy")
def test_openvino(make, channels):
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install openvino")
    module = make().eval()
    converted = openvino.convert_model(module, example_input=numbers(2, channels, 32, 48))
    # By default in a half type where that is faster, and on all cores.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(converted, "CPU", options)
    for shape in ((3, channels, 32, 48), (1, channels, 65, 34)):
        x = numbers(*shape)
        output = torch.from_numpy(compiled(x.numpy())[0])
        with torch.no_grad():
            torch.testing.assert_close(output, module(x), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- torch.jit.script


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaxEntPool2d(2),
        lambda: GFGPGaussianPool2d(4, 2),
        lambda: nn.Sequential(nn.ReLU(), GFGPMaxEntPool2d(4, 2)),
    ],
    ids=["layer", "gaussian", "network"],
)
def test_script_says_what_to_do_instead(make):
    module = make()
    with pytest.raises(NotImplementedError) as raised:
        torch.jit.script(module)
    message = str(raised.value)
    assert re.match(r"torch\.jit\.script cannot compile \w+Pool2d: use ", message)
    assert "\n" not in message
    for way in ("torch.jit.trace(model, (images,))", "torch.export", "torch.compile"):
        assert way in message
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), (numbers(2, 4, 8, 8),))
    torch.testing.assert_close(traced(numbers(3, 4, 6, 6)), module(numbers(3, 4, 6, 6)))
