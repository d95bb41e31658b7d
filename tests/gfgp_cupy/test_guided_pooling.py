"""guided_max_ent_pool2d is the composition of a mean, a head and max_ent_pool2d, however autograd
is used."""

import gc
import weakref

import pytest
import torch
import torch.distributed.autograd as distributed_autograd
import torch.utils.checkpoint
from torch import nn
from torch._dynamo import compiled_autograd
from torch.distributed import rpc
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gfgp_cupy import GFGPMaxEntPool2d, use_backend
from gfgp_cupy.functional import guided_max_ent_pool2d, max_ent_pool2d
from tests.support.implementations import each_backend
from tests.support.kernel_cases import DTYPES
from tests.support.random_numbers import random_numbers

WINDOWS = {
    "disjoint": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
}
each_window = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)


class Head(nn.Module):
    """λ = softplus(W mean + b), which mixes channels."""

    def __init__(self, channels=3, device="cpu", dtype=torch.float64):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(random_numbers(shape, dtype, seed).to(device))
            for shape, seed in (((channels, channels), 7), ((channels, 1, 1), 8))
        )

    def forward(self, mean):
        mixed = torch.einsum("oc,nchw->nohw", self.weight, mean.to(self.weight.dtype))
        return nn.functional.softplus(mixed + self.bias)


def composed(input, head, **window):
    """The definition, and in evaluation of the head the same rounding."""
    batched = input if input.dim() == 4 else input.unsqueeze(0)
    return max_ent_pool2d(input, head(batched.mean((2, 3), keepdim=True)), **window)


def example(device, shape=(2, 3, 6, 4), dtype=torch.float64):
    input = random_numbers(shape, dtype, 0).to(device).requires_grad_()
    head_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    return input, Head(shape[-3], device, head_dtype)


def gradients_of(pool, input, head, window, grad_seed=5):
    output = pool(input, head, **window)
    grad_output = random_numbers(output.shape, output.dtype, grad_seed).to(output.device)
    inputs = (input, *head.parameters())
    return output, *torch.autograd.grad(output, inputs, grad_output)


# ---------------------------------------------------------------- values


@each_backend
@each_window
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_output_and_gradients_are_those_of_the_composition(backend, window, dtype, layout):
    input, head = example(backend.device, (2, 3, 8, 12), dtype)
    input = input.detach().contiguous(memory_format=layout).requires_grad_()
    with use_backend(backend.name):
        guided = gradients_of(guided_max_ent_pool2d, input, head, window)
        expected = gradients_of(composed, input, head, window)
    # A half type stores the spread, 24 windows a plane of λ's gradient, and the sum of gradients
    # that the composition rounds twice; its tolerance is a few of its roundoffs.
    roundoff = torch.finfo(dtype).eps
    for actual, wanted in zip(guided, expected, strict=True):
        assert actual.dtype == wanted.dtype
        assert actual.stride() == wanted.stride()
        allowed = 8 * roundoff * wanted.abs().max().item()
        torch.testing.assert_close(actual, wanted, rtol=4 * roundoff, atol=allowed)


@each_backend
def test_3d_input(backend):
    input, head = example(backend.device, (3, 6, 4))
    with use_backend(backend.name):
        guided = gradients_of(guided_max_ent_pool2d, input, head, {"kernel_size": 2})
        expected = gradients_of(composed, input, head, {"kernel_size": 2})
    assert guided[0].shape == (3, 3, 2)
    for actual, wanted in zip(guided, expected, strict=True):
        torch.testing.assert_close(actual, wanted)


@each_backend
def test_empty_batch(backend):
    input, head = example(backend.device, (0, 3, 6, 4))
    with use_backend(backend.name):
        output, grad_input, *others = gradients_of(
            guided_max_ent_pool2d, input, head, {"kernel_size": 2}
        )
    assert output.shape == (0, 3, 3, 2)
    assert grad_input.shape == input.shape
    assert all((gradient == 0).all() for gradient in others)


# ---------------------------------------------------------------- traffic


class Writers(TorchDispatchMode):
    """The names of the operators that give a new tensor as large as ``input`` or larger."""

    def __init__(self, input):
        super().__init__()
        self.nbytes, self.names = input.nbytes, []
        self.seen = [(input.untyped_storage().data_ptr(), input)]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if storage.nbytes() >= self.nbytes and address not in {a for a, _ in self.seen}:
                self.names.append(func.name())
                self.seen.append((address, tensor))  # kept, so that no other one gets its address
        return result


@each_backend
@each_window
def test_layer_in_training_writes_the_gradient_of_its_input_once(backend, window):
    layer = GFGPMaxEntPool2d(4, **window, device=backend.device)
    input = torch.rand(2, 4, 16, 16, device=backend.device, requires_grad=True)

    def written(pool):
        with use_backend(backend.name):
            output = pool(input)
        with torch.autograd.set_multithreading_enabled(False), Writers(input) as writers:
            torch.autograd.grad(output.sum(), (input, *layer.parameters()))
        return writers.names

    assert written(layer) == ["gfgp_cupy::max_ent_pool2d_backward"]
    assert len(written(lambda input: composed(input, layer.head, **window))) == 3


HEADS = {
    "per sample and channel": torch.sigmoid,
    "per sample": lambda mean: mean.mean(1, keepdim=True),
    "per channel": lambda mean: mean.mean(0, keepdim=True),
    "one": lambda mean: mean.mean(),
    "constant": lambda mean: torch.ones_like(mean),
    "number": lambda mean: 0.5,
    "detached": lambda mean: mean.detach(),
    "twice": lambda mean: mean * mean.sigmoid(),
    "other type": lambda mean: mean.float(),
}


@each_backend
@each_window
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_any_head(backend, window, head):
    input, _ = example(backend.device)
    with use_backend(backend.name):
        actual, wanted = (
            torch.autograd.grad(pool(input, head, **window).square().sum(), input)[0]
            for pool in (guided_max_ent_pool2d, composed)
        )
    torch.testing.assert_close(actual, wanted)


# ---------------------------------------------------------------- finite differences


@each_backend
@each_window
def test_gradients_agree_with_finite_differences(backend, window):
    input, head = example(backend.device)

    def pool(input, *parameters):
        with use_backend(backend.name):
            return guided_max_ent_pool2d(input, head, **window)

    assert torch.autograd.gradcheck(pool, (input, *head.parameters()))


@each_backend
@each_window
def test_second_derivatives_agree_with_finite_differences(backend, window):
    input, head = example(backend.device)

    def pool(input, *parameters):
        with use_backend(backend.name):
            return guided_max_ent_pool2d(input, head, **window)

    assert torch.autograd.gradgradcheck(pool, (input, *head.parameters()), fast_mode=True)


@each_backend
@each_window
def test_gradient_penalty(backend, window):
    # Its backward pass runs through the pooling twice: once by way of grad_output = 2 y.
    input, head = example(backend.device)

    def penalty(input, *parameters):
        with use_backend(backend.name):
            output = guided_max_ent_pool2d(input, head, **window)
        (gradient,) = torch.autograd.grad(output.square().sum(), input, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(penalty, (input, *head.parameters()))


# ---------------------------------------------------------------- ways to use autograd


@pytest.fixture
def graph():
    """Input, head, and the guided and the composed output of them."""
    input, head = example("cpu")
    return (
        input,
        head,
        *(
            pool(input, head, kernel_size=3, stride=2, padding=1)
            for pool in (guided_max_ent_pool2d, composed)
        ),
    )


def test_graph_serves_several_backward_passes(graph):
    input, head, *outputs = graph
    inputs = (input, *head.parameters())
    for power in (1, 2, 3):
        actual, wanted = (
            torch.autograd.grad(output.pow(power).sum(), inputs, retain_graph=True)
            for output in outputs
        )
        torch.testing.assert_close(actual, wanted)


def test_gradients_asked_for_one_at_a_time(graph):
    input, head, *outputs = graph
    for wanted_input in (input, head.weight, input, head.bias, head.weight):
        actual, wanted = (
            torch.autograd.grad(output.square().sum(), wanted_input, retain_graph=True)
            for output in outputs
        )
        torch.testing.assert_close(actual, wanted)


def test_pass_without_the_input_leaves_nothing_for_a_differentiable_one(graph):
    input, head, *outputs = graph

    def penalty(output):
        torch.autograd.grad(output.sum(), head.weight, retain_graph=True)
        (gradient,) = torch.autograd.grad(output.square().sum(), input, create_graph=True)
        return gradient, *torch.autograd.grad(gradient.square().sum(), (input, head.weight))

    torch.testing.assert_close(*map(penalty, outputs))


def test_pass_that_failed_leaves_nothing_for_a_differentiable_one(graph):
    input, head, *outputs = graph

    def penalty(output):
        def fail(gradient):
            raise FloatingPointError("from a hook")

        handle = head.weight.register_hook(fail)
        with pytest.raises(FloatingPointError, match="from a hook"):
            torch.autograd.grad(output.sum(), (head.weight, input), retain_graph=True)
        handle.remove()
        (gradient,) = torch.autograd.grad(output.square().sum(), input, create_graph=True)
        return gradient, *torch.autograd.grad(gradient.square().sum(), (input, head.weight))

    torch.testing.assert_close(*map(penalty, outputs))


def test_a_pass_for_the_head_alone_changes_no_later_one(graph):
    """Nor one that comes to the mean by way of the first derivative's graph alone."""
    input, head, *outputs = graph

    def second_derivative(output):
        (gradient,) = torch.autograd.grad(output.sum(), input, create_graph=True)
        torch.autograd.grad(output.sum(), head.weight, retain_graph=True)
        return torch.autograd.grad(gradient.square().sum(), input)

    torch.testing.assert_close(*map(second_derivative, outputs))


def test_a_pass_inside_another(graph):
    """A hook, or another thread, may begin one of the same graph before the first has ended."""
    input, head, *outputs = graph

    def gradient(output):
        inner = []

        def begin_another(_):
            if not inner:
                inner.append(None)  # it comes here, too
                ones = torch.ones_like(output)
                inner[0] = torch.autograd.grad(output, input, ones, retain_graph=True)

        handle = head.weight.register_hook(begin_another)
        weights = random_numbers(output.shape, output.dtype, 3)
        outer = torch.autograd.grad(output, (input, head.weight), weights, retain_graph=True)
        handle.remove()
        return inner[0], outer

    torch.testing.assert_close(*map(gradient, outputs))


class Token:
    """Lives as long as the node of a graph whose metadata hold it."""


def test_a_pass_for_the_head_alone_leaves_nothing_pending(graph):
    input, head, output, _ = graph
    (output.square().sum() + input.sum()).backward(inputs=[head.weight], retain_graph=True)
    assert output.grad_fn.pending == {}
    output.sum().backward()
    assert output.grad_fn.pending == {}


@pytest.mark.parametrize("ends", ["with the head's gradients", "with an error"])
def test_no_graph_outlives_its_last_user(ends):
    input, head = example("cpu")
    hidden, token = input.sin(), Token()
    hidden.grad_fn.metadata["token"], alive = token, weakref.ref(token)
    output = guided_max_ent_pool2d(hidden, head, 2)
    if ends == "with an error":

        def fail(_):
            raise FloatingPointError("from a hook")

        head.weight.register_hook(fail)
        with pytest.raises(FloatingPointError):
            output.sum().backward()
        input.sum().backward()  # until another pass ends autograd keeps the one that failed
    else:
        output.sum().backward(inputs=list(head.parameters()), retain_graph=True)
    del token, hidden, output
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("kept", ["as it is", "as a copy"])
def test_saved_tensors_hooks(kept):
    def gradient(pool):
        input, head = example("cpu")
        pack = (lambda x: x) if kept == "as it is" else (lambda x: x.detach().clone())
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            output = pool(input.sin(), head, kernel_size=2).square().sum()
        return torch.autograd.grad(output, (input, head.weight))

    torch.testing.assert_close(gradient(guided_max_ent_pool2d), gradient(composed))


@pytest.mark.skipif(not torch.distributed.rpc.is_available(), reason="PyTorch without RPC")
def test_distributed_autograd(tmp_path):
    """Whose engine cannot say which nodes it will run."""
    options = rpc.TensorPipeRpcBackendOptions(init_method=f"file://{tmp_path}/rpc")
    rpc.init_rpc("alone", rank=0, world_size=1, rpc_backend_options=options)
    try:
        input, head = example("cpu")
        with distributed_autograd.context() as context:
            loss = guided_max_ent_pool2d(input.sin(), head, 2).square().sum()
            distributed_autograd.backward(context, [loss])
            actual = distributed_autograd.get_gradients(context)
    finally:
        rpc.shutdown()
    wanted = torch.autograd.grad(composed(input.sin(), head, kernel_size=2).square().sum(), input)
    torch.testing.assert_close(actual[input], *wanted)


def test_compiled_backward_pass():
    def gradient(pool, backward):
        input, head = example("cpu")
        backward(pool(input.sin(), head, kernel_size=2).square().sum())
        return input.grad, head.weight.grad

    def compiled(loss):
        with compiled_autograd._enable(torch.compile(backend="eager")):
            loss.backward()

    torch.testing.assert_close(
        gradient(guided_max_ent_pool2d, compiled), gradient(composed, torch.Tensor.backward)
    )


def test_input_used_elsewhere_too():
    def gradient(pool):
        input, head = example("cpu")
        hidden = input.sin()
        pooled = pool(hidden, head, kernel_size=2)
        loss = pooled.sum() + hidden.square().sum() + (pooled * pooled.detach()).sum()
        loss.backward()
        return input.grad, head.weight.grad

    torch.testing.assert_close(gradient(guided_max_ent_pool2d), gradient(composed))


@pytest.mark.parametrize("loss", ["of lam", "of both"])
def test_lam_used_elsewhere_too(loss):
    def gradient(pool):
        input, head = example("cpu")
        predicted = []

        def remembering_head(mean):
            predicted.append(head(mean))
            return predicted[0]

        total = pool(input, remembering_head, kernel_size=2).sum() * (loss == "of both")
        (total + predicted[0].square().sum()).backward()
        return input.grad, head.weight.grad

    torch.testing.assert_close(gradient(guided_max_ent_pool2d), gradient(composed))


def test_stacked_poolings_of_one_head():
    def gradient(pool):
        input, head = example("cpu", (2, 3, 8, 8))
        once = pool(input, head, kernel_size=2)
        pool(once, head, kernel_size=3, stride=1).square().sum().backward()
        return input.grad, head.weight.grad

    torch.testing.assert_close(gradient(guided_max_ent_pool2d), gradient(composed))


def test_gradients_accumulate():
    input, head = example("cpu")
    for _ in range(2):
        guided_max_ent_pool2d(input, head, kernel_size=2).sum().backward()
    (gradient,) = torch.autograd.grad(composed(input, head, kernel_size=2).sum(), input)
    torch.testing.assert_close(input.grad, 2 * gradient)


def test_hooks_on_parameters():
    def gradients(pool):
        input, head = example("cpu")
        seen = []
        head.weight.register_hook(lambda gradient: 2 * gradient)
        head.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad + 0))
        pool(input, head, kernel_size=2).square().sum().backward()
        (after_backward,) = seen
        return input.grad, head.weight.grad, after_backward

    torch.testing.assert_close(gradients(guided_max_ent_pool2d), gradients(composed))


def test_frozen_parameters():
    def gradients(pool):
        input, head = example("cpu")
        head.requires_grad_(False)
        pool(input, head, kernel_size=2).square().sum().backward()
        assert head.weight.grad is head.bias.grad is None
        return input.grad

    torch.testing.assert_close(gradients(guided_max_ent_pool2d), gradients(composed))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant):
    def gradient(pool):
        input, head = example("cpu")
        pooled = torch.utils.checkpoint.checkpoint(
            lambda input: pool(input.sin(), head, kernel_size=2),
            input,
            use_reentrant=use_reentrant,
        )
        pooled.square().sum().backward()
        return input.grad, head.weight.grad

    torch.testing.assert_close(gradient(guided_max_ent_pool2d), gradient(composed))


def test_input_without_gradient():
    input, head = example("cpu")
    pooled = guided_max_ent_pool2d(input.detach(), head, kernel_size=2)
    (weight,) = torch.autograd.grad(pooled.sum(), head.weight)
    (expected,) = torch.autograd.grad(composed(input, head, kernel_size=2).sum(), head.weight)
    torch.testing.assert_close(weight, expected)
    with torch.no_grad():
        assert torch.equal(guided_max_ent_pool2d(input, head, kernel_size=2), pooled)
        assert not pooled.detach().requires_grad


def test_input_changed_in_place_before_the_backward_pass_is_an_error():
    input, head = example("cpu")
    hidden = input.sin()
    pooled = guided_max_ent_pool2d(hidden, head, kernel_size=2)
    hidden.add_(1)
    with pytest.raises(RuntimeError, match=r"modified.* inplace"):
        pooled.sum().backward()


def test_functional_transforms():
    input, head = example("cpu")

    def loss(pool):
        return lambda input: pool(input, head, kernel_size=2).square().sum()

    torch.testing.assert_close(
        torch.func.grad(loss(guided_max_ent_pool2d))(input.detach()),
        torch.autograd.grad(loss(composed)(input), input)[0],
    )


# ---------------------------------------------------------------- errors


def test_lam_that_varies_inside_a_plane_is_refused():
    input, _ = example("cpu")
    with pytest.raises(ValueError, match=r"lam.*\(2, 3, 3, 2\).*\(2, 3, 1, 1\)"):
        guided_max_ent_pool2d(input, lambda mean: mean.expand(2, 3, 3, 2), kernel_size=2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"input": torch.ones(1, 1, 4, 4, dtype=torch.int64)}, TypeError, "input.*int64"),
        ({"input": torch.ones(4, 4)}, ValueError, r"input.*\(4, 4\)"),
        ({"head": lambda mean: "1"}, TypeError, "lam.*str"),
        ({"head": lambda mean: mean.long()}, TypeError, "lam.*int64"),
        ({"head": lambda mean: torch.ones(5)}, ValueError, r"lam.*\(5,\).*\(1, 2, 1, 1\)"),
        ({"head": lambda mean: mean.to("meta")}, ValueError, "cpu.*meta"),
        ({"kernel_size": 0}, ValueError, "kernel_size.*0"),
        ({"stride": -1}, ValueError, "stride.*-1"),
        ({"padding": 2}, ValueError, "padding=2.*kernel_size=2"),
        ({"kernel_size": 9}, ValueError, "empty.*kernel_size=.*9"),
    ],
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_bad_arguments(changes, error, message, requires_grad):
    good = {"input": torch.ones(1, 2, 4, 4), "head": torch.sigmoid, "kernel_size": 2}
    arguments = {**good, **changes}
    if requires_grad and arguments["input"].is_floating_point():
        arguments["input"] = arguments["input"].clone().requires_grad_()
    with pytest.raises(error, match=message):
        guided_max_ent_pool2d(**arguments)
