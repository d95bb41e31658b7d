"""torch.compile without a graph break, once for all sizes, with the results of eager mode.

``aot_eager`` traces forward and backward as Inductor would, and runs PyTorch's own kernels.
"""

import copy

import pytest
import torch
import torch._inductor.config
from torch._dynamo.testing import CompileCounterWithBackend

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d, use_backend
from gfgp_cupy.functional import max_ent_pool2d
from tests.support.cxx import needs_cxx
from tests.support.implementations import each_backend
from tests.support.random_numbers import random_numbers
from tests.support.small_networks import plain_network, small_densenet, small_resnet

WINDOWS = {
    "disjoint": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "overhanging": {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True},
}
LAYERS = {
    "own lam": lambda: MaxEntPool2d(3, 2, 1, num_features=4),
    "guided": lambda: GFGPMaxEntPool2d(4, 3, 2, 1),
}
SHAPES = ((4, 4, 9, 12), (3, 4, 12, 7), (5, 4, 6, 8))
IMAGES = ((4, 3, 64, 96), (3, 3, 96, 64), (6, 3, 65, 72))
"""Even and odd sizes; the deepest feature maps of a ResNet have several pixels."""
IMAGES_OF_ONE_SIZE = ((4, 3, 64, 96), (3, 3, 64, 96))


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    """Take no code from earlier tests, nor of other sizes from PyTorch's cache on the disk.

    Inductor compiles in this process: to start others takes longer than what there is to compile.
    """
    torch._dynamo.reset()
    with torch._inductor.config.patch(force_disable_caches=True, compile_threads=1):
        yield
    torch._dynamo.reset()


def of_any_size(shape, seed, device="cpu", requires_grad=False, axes=(0, 2, 3)):
    """Random numbers whose sizes along ``axes`` may not be compiled in: that is an error."""
    tensor = random_numbers(shape, torch.float64, seed).to(device).requires_grad_(requires_grad)
    for axis in axes:
        if shape[axis] > 1:
            torch._dynamo.mark_dynamic(tensor, axis)
    return tensor


def assert_compiled_equals_eager(module, shapes, backend, device="cpu", axes=(0, 2, 3)):
    """Outputs, gradients and running statistics, from one compilation for all shapes."""
    module = module.to(device, torch.float64)
    eager = copy.deepcopy(module)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for seed, shape in enumerate(shapes):
        inputs = [of_any_size(shape, seed, device, module.training, axes) for _ in range(2)]
        with torch.set_grad_enabled(module.training):
            output, expected = compiled(inputs[0]), eager(inputs[1])
        torch.testing.assert_close(output, expected)
        if module.training:
            grad_output = random_numbers(output.shape, torch.float64, seed + 9).to(device)
            for result in (output, expected):
                result.backward(grad_output)
            torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for name, parameter in module.named_parameters():
        # The bias before a BatchNorm has a gradient of 0, up to rounding errors of others' size.
        actual, wanted = parameter.grad, eager.get_parameter(name).grad
        torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=1e-7, msg=name)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(buffer, eager.get_buffer(name))
    assert counter.frame_count == 1


@each_backend
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=needs_cxx)])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_function(backend, compiler, window):
    counter = CompileCounterWithBackend(compiler)

    def pool(input, lam):
        return max_ent_pool2d(input, lam, **window)

    compiled = torch.compile(pool, fullgraph=True, backend=counter)
    with use_backend(backend.name):
        for shape in SHAPES:
            results = []
            for function in (compiled, pool):
                input = of_any_size(shape, 0, backend.device, requires_grad=True)
                lam = of_any_size((*shape[:2], 1, 1), 1, backend.device, requires_grad=True)
                output = function(input, lam)
                gradients = torch.autograd.grad(output.square().sum(), (input, lam))
                results.append((output.detach(), *gradients))
            # The same kernels run on the same numbers.
            assert all(map(torch.equal, *results))
    assert counter.frame_count == 1


def test_backend_is_that_of_the_call_that_compiles():
    backends, x = [], torch.rand(2, 4, 8, 8)

    def compiler(graph, inputs):
        calls = [node for node in graph.graph.nodes if "gfgp_cupy" in str(node.target)]
        backends.extend(each for call in calls for each in call.args if isinstance(each, str))
        return graph

    pool = torch.compile(lambda x: max_ent_pool2d(x, 1.0, 2), fullgraph=True, backend=compiler)
    with use_backend("numba"):
        pool(x)
    with use_backend("torch"):
        pool(x)
        assert backends == ["numba"]
        torch.compiler.reset()
        pool(x)
    assert backends == ["numba", "torch"]


@each_backend
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("create", LAYERS.values(), ids=LAYERS)
def test_layer(backend, create, training):
    with use_backend(backend.name):
        assert_compiled_equals_eager(create().train(training), SHAPES, "aot_eager", backend.device)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_resnet(training):
    network = small_resnet().train(training)
    assert_compiled_equals_eager(network, IMAGES, "aot_eager")


@needs_cxx
@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_network_by_inductor(training):
    """In training for any batch, of images of one size.

    PyTorch 2.14's Inductor compiles the images' size into the training pass of any ResNet,
    torchvision's, too; ``test_resnet`` has the sizes.
    """
    images, axes = (IMAGES, (0, 2, 3)) if not training else (IMAGES_OF_ONE_SIZE, (0,))
    network = plain_network().train(training)
    assert_compiled_equals_eager(network, images, "inductor", axes=axes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "compiler"),
    [(True, "aot_eager"), (False, "eager")],
    ids=["training", "evaluation"],
)
def test_densenet(training, compiler):
    network = small_densenet().train(training)
    assert_compiled_equals_eager(network, IMAGES[:2], compiler)
