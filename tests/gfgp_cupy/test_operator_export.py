"""torch.export and ONNX: programs that hold for other sizes, and that others can run."""

import copy
import importlib.util
import io
import warnings

import pytest
import torch
from torch import nn
from torch.export import Dim

from gfgp_cupy import AdaptiveMaxEntPool2d, GFGPMaxEntPool2d, MaxEntPool2d, use_backend
from gfgp_cupy.functional import max_ent_pool2d
from gfgp_cupy.poolings import create_pooling
from gfgp_cupy.poolings.gaussian import GFGPGaussianPool2d
from tests.support.implementations import each_backend
from tests.support.random_numbers import random_numbers
from tests.support.small_networks import small_resnet

ANY_SIZE = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
"""Batch, height and width; an export that could not leave them open would fail."""

WINDOWS = {
    "disjoint": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "overhanging": {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True},
}
SHAPES = ((3, 4, 9, 13), (2, 4, 32, 7), (1, 4, 10, 12))
"""Other sizes than the exported one, odd and even; PyTorch holds an output of length 1 apart."""


class Function(nn.Module):
    def __init__(self, window):
        super().__init__()
        self.window = window

    def forward(self, input, lam):
        return max_ent_pool2d(input, lam, **self.window)


def numbers(shape, seed=0, device="cpu"):
    return random_numbers(shape, torch.float32, seed).to(device)


def with_random_statistics(module):
    for seed, buffer in enumerate(module.buffers()):
        if buffer.is_floating_point():
            buffer.copy_(random_numbers(buffer.shape, buffer.dtype, seed).abs() + 0.1)
    return module.eval()


LAYERS = {
    "own lam": lambda: MaxEntPool2d(3, 2, 1, num_features=4),
    "guided": lambda: with_random_statistics(GFGPMaxEntPool2d(4, 3, 2, 1)),
}
each_layer = pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)

# ---------------------------------------------------------------- torch.export


def exported(module, inputs, sizes, strict=False):
    return torch.export.export(module, inputs, dynamic_shapes=sizes, strict=strict)


@each_backend
@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_export_of_the_function(backend, strict, window):
    lam = numbers((1, 4, 1, 1), 1, backend.device)
    module = Function(window)
    with use_backend(backend.name):
        inputs = (numbers((2, 4, 10, 12), 0, backend.device), lam)
        program = exported(module, inputs, (ANY_SIZE, None), strict)
        for shape in SHAPES:
            input = numbers(shape, 2, backend.device)
            assert torch.equal(program.module()(input, lam), module(input, lam))
    operators = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert operators.count(torch.ops.gfgp_cupy.max_ent_pool2d.default) == 1


@each_backend
@each_layer
@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_exported_layer_runs_and_trains(backend, create, strict):
    layer = create().to(backend.device)
    with use_backend(backend.name):
        inputs = (numbers((2, 4, 10, 12), 0, backend.device),)
        program = exported(layer, inputs, (ANY_SIZE,), strict).module()
        for shape in SHAPES:
            results = []
            for module in (program, layer):
                module.zero_grad()
                input = numbers(shape, 3, backend.device).requires_grad_()
                output = module(input)
                output.square().sum().backward()
                gradients = [parameter.grad.clone() for _, parameter in layer.named_parameters()]
                if module is program:
                    gradients = [
                        program.get_parameter(name).grad.clone()
                        for name, _ in layer.named_parameters()
                    ]
                results.append([output.detach(), input.grad, *gradients])
            torch.testing.assert_close(*results)


@each_layer
def test_exported_layer_is_saved_and_loaded(create):
    layer = create()
    file = io.BytesIO()
    torch.export.save(exported(layer, (numbers((2, 4, 10, 12)),), (ANY_SIZE,)), file)
    file.seek(0)
    program = torch.export.load(file)
    for shape in SHAPES:
        torch.testing.assert_close(program.module()(numbers(shape)), layer(numbers(shape)))
    # As compilers ask for it before they go on.
    decomposed = program.run_decompositions().module()
    torch.testing.assert_close(decomposed(numbers(SHAPES[0])), layer(numbers(SHAPES[0])))


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
@pytest.mark.parametrize("name", ["max_ent", "gfgp_gem"])
@pytest.mark.parametrize("requested", ["auto", "numba"])
def test_program_holds_the_backend_asked_for(requested, name, strict):
    """Not the one that serves this machine: others may lack it."""
    if strict and torch.__version__ < (2, 7):
        pytest.skip("PyTorch 2.6 does not say that it exports")
    with use_backend(requested):
        layer = create_pooling(name, 4, 2).eval()
        program = exported(layer, (numbers((2, 4, 10, 12)),), (ANY_SIZE,), strict)
    for of in (program, program.run_decompositions()):
        (call,) = (node for node in of.graph.nodes if "gfgp_cupy" in str(node.target))
        assert [each for each in call.args if isinstance(each, str)] == [requested]


def test_the_environment_names_the_backend_of_a_program(monkeypatch):
    """Where it runs, for which its calls need no block."""
    program = exported(GFGPMaxEntPool2d(4, 2).eval(), (numbers((2, 4, 10, 12)),), None).module()
    monkeypatch.setenv("GFGP_CUPY_BACKEND", "none")
    with pytest.raises(ValueError, match="GFGP_CUPY_BACKEND"):
        program(numbers((2, 4, 10, 12)))
    monkeypatch.setenv("GFGP_CUPY_BACKEND", "cupy")
    with pytest.raises(RuntimeError, match=r"'cupy' .* cpu.*unset GFGP_CUPY_BACKEND"):
        program(numbers((2, 4, 10, 12)))
    monkeypatch.delenv("GFGP_CUPY_BACKEND")
    program(numbers((2, 4, 10, 12)))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_export_of_a_network(training):
    network = small_resnet().train(training)
    program = exported(copy.deepcopy(network), (numbers((2, 3, 64, 96)),), (ANY_SIZE,)).module()
    for shape in ((3, 3, 96, 64), (4, 3, 65, 72)):
        torch.testing.assert_close(program(numbers(shape)), network(numbers(shape)))
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(program.get_buffer(name), buffer)


# ---------------------------------------------------------------- ONNX


def reason_against_onnx() -> str | None:
    if torch.__version__ < (2, 7):
        return "with dynamo=True PyTorch 2.6 does not say that it exports to ONNX"
    packages = ("onnx", "onnxruntime", "onnxscript")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}: pip install '.[onnx]'" if missing else None


NO_ONNX = reason_against_onnx()
needs_onnx = pytest.mark.skipif(NO_ONNX is not None, reason=str(NO_ONNX))


def assert_onnxruntime_agrees(module, inputs, sizes, *others):
    program = torch.onnx.export(module, inputs, dynamo=True, dynamic_shapes=sizes, verbose=False)
    assert_file_agrees(program.model_proto.SerializeToString(), module, inputs, *others)


def assert_file_agrees(content, module, *examples):
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]
    for other in examples:
        values = [tensor.numpy() for tensor in other]
        (output,) = session.run(None, dict(zip(names, values, strict=True)))
        with torch.no_grad():
            expected = module(*other)
        torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("window", ["disjoint", "overhanging"])
def test_onnx_of_the_function(window):
    # λ of both signs, and so large that a softmax without its maximum taken off would overflow.
    lam = 100 * numbers((1, 4, 1, 1), 1)
    others = [(numbers(shape, 2), lam) for shape in SHAPES]
    inputs = (numbers((2, 4, 10, 12)), lam)
    module = Function(WINDOWS[window]).eval()
    assert_onnxruntime_agrees(module, inputs, (ANY_SIZE, None), *others)


ROUNDED_UP = {"kernel_size": 2, "ceil_mode": True}
"""Without padding: only of some sizes the last window reaches past the end."""


@pytest.mark.parametrize(
    "strict",
    [
        pytest.param(False, id="traced"),
        pytest.param(True, id="strict", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", ["gfgp_gated", "gem", "lse", "mixed", "gauss", "ada"])
def test_exported_composition_rounds_up_for_any_size(name, strict):
    layer, inputs = create_pooling(name, 4, **ROUNDED_UP).eval(), (numbers((2, 4, 10, 12)).abs(),)
    with use_backend("torch"):
        program = exported(layer, inputs, (ANY_SIZE,), strict).module()
        for shape in SHAPES:
            input = numbers(shape, 2).abs()
            torch.testing.assert_close(program(input), layer(input))


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize(
    "make",
    [
        LAYERS["guided"],
        lambda: GFGPGaussianPool2d(4, 2).eval(),
        lambda: create_pooling("gem", 4, **ROUNDED_UP),
        lambda: create_pooling("gfgp_gated", 4, **ROUNDED_UP).eval(),
    ],
    ids=["guided", "gaussian", "gem, rounded up", "gated, rounded up"],
)
def test_onnx_of_a_layer(make):
    others = [(numbers(shape, 2).abs(),) for shape in SHAPES]
    layer = make()
    assert_onnxruntime_agrees(layer, (numbers((2, 4, 10, 12)).abs(),), (ANY_SIZE,), *others)


@pytest.mark.slow
@needs_onnx
def test_onnx_of_adaptive_pooling():
    """Of whole planes for any size; of several windows for one."""
    inputs = (numbers((2, 4, 8, 6)),)
    whole, several = (AdaptiveMaxEntPool2d(size, num_features=4).eval() for size in (1, (4, 3)))
    others = [(numbers(shape, 2),) for shape in SHAPES]
    assert_onnxruntime_agrees(whole, inputs, (ANY_SIZE,), *others)
    any_batch = ({0: Dim.DYNAMIC},)
    assert_onnxruntime_agrees(several, inputs, any_batch, (numbers((3, 4, 8, 6), 2),))


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (AdaptiveMaxEntPool2d((4, 3), num_features=4), r"output_size=\(4, 3\)"),
        (create_pooling("gem", 4, 3, 2, "same"), "padding='same' .*stride"),
    ],
    ids=["adaptive", "same"],
)
def test_onnx_of_windows_that_differ_from_size_to_size_is_refused(layer, named):
    inputs = (numbers((2, 4, 8, 6)),)
    with (
        pytest.raises(torch.onnx.OnnxExporterError),
        pytest.warns(UserWarning, match=f"{named}.* export it for images of one size"),
    ):
        torch.onnx.export(
            layer.eval(), inputs, dynamo=True, dynamic_shapes=(ANY_SIZE,), verbose=False
        )


# ---------------------------------------------------------------- ONNX, by way of torch.jit.trace

POOLINGS = {
    **{
        name: lambda name=name: create_pooling(name, 4, **WINDOWS["overhanging"])
        for name in ("max_ent", "soft", "gfgp_gated", "gfgp_lse", "gem")
    },
    "gaussian": lambda: GFGPGaussianPool2d(4, **WINDOWS["overhanging"]),
}


def traced_to_onnx(module, inputs):
    """The file that ``torch.onnx.export`` makes without Dynamo, for any batch and image size."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter is no longer developed
        warnings.filterwarnings("error", category=torch.jit.TracerWarning)
        torch.onnx.export(
            module, inputs, file, dynamo=False, input_names=["input"],
            dynamic_axes={"input": {0: "batch", 2: "height", 3: "width"}},
        )  # fmt: skip
    return file.getvalue()


@needs_onnx
@pytest.mark.parametrize("create", POOLINGS.values(), ids=POOLINGS)
def test_traced_onnx_of_a_layer(create):
    layer, inputs = create().eval(), (numbers((2, 4, 10, 12)).abs(),)
    others = [(numbers(shape, 2).abs(),) for shape in SHAPES]
    assert_file_agrees(traced_to_onnx(layer, inputs), layer, inputs, *others)


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize(
    "layer",
    [AdaptiveMaxEntPool2d((4, 3), num_features=4), create_pooling("gem", 4, 3, 2, "same")],
    ids=["adaptive", "same"],
)
def test_traced_onnx_of_windows_that_differ_refuses_other_sizes(layer):
    import onnxruntime

    content = traced_to_onnx(layer.eval(), (numbers((2, 4, 8, 6)).abs(),))
    others = [(numbers((3, 4, 8, 6), 2).abs(),)]
    assert_file_agrees(content, layer, *others)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=r"(?i)expand"):
        session.run(None, {"input": numbers((2, 4, 9, 7)).abs().numpy()})


@pytest.mark.slow
@needs_onnx
def test_traced_onnx_of_a_network():
    network, inputs = small_resnet().eval(), (numbers((2, 3, 64, 96)),)
    others = [(numbers((3, 3, 64, 96), 3),), (numbers((1, 3, 65, 72), 1),)]
    assert_file_agrees(traced_to_onnx(network, inputs), network, inputs, *others)
