"""The public function: any call that max_pool2d would take, its gradients, memory and errors."""

import functools
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gfgp_cupy import use_backend
from gfgp_cupy.backends import backend_module
from gfgp_cupy.functional import max_ent_pool1d, max_ent_pool2d, max_ent_pool3d
from gfgp_cupy.geometry import pool_geometry
from tests.support import slow_loops
from tests.support.implementations import each_backend
from tests.support.kernel_cases import DTYPES
from tests.support.random_numbers import random_numbers
from tests.support.rounding import assert_rounding_only
from tests.support.strategies import calls

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
each_lam_shape = pytest.mark.parametrize(
    "lam_shape",
    [(1, 1, 1, 1), (1, 2, 1, 1), (2, 2, 1, 1), (2, 1, 1, 1), (2, 2, 3, 2), (3, 1)],
    ids=str,
)
"""The published layouts, and one with missing dimensions."""
WINDOWS = {
    "disjoint": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "overhanging": {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True},
}
SIZES = {"disjoint": (6, 4), "overlapping": (5, 4), "overhanging": (4, 4)}
each_window = pytest.mark.parametrize("window", WINDOWS)


def doubles(shape, seed, device="cpu"):
    return random_numbers(shape, torch.float64, seed).to(device)


# ---------------------------------------------------------------- random calls


@each_backend
@settings(max_examples=150)
@given(call=calls())
def test_output_and_gradients_are_those_of_the_formulas(backend, call):
    input = call.input().to(backend.device).requires_grad_()
    lam = call.lam().to(backend.device).requires_grad_()
    grad_output = call.grad_output().to(backend.device)
    with use_backend(backend.name):
        output = max_ent_pool2d(
            input, lam, call.kernel_size, call.stride, call.padding, call.ceil_mode
        )
    output.backward(grad_output)

    assert output.dtype == input.dtype
    assert output.shape == call.output_shape
    assert input.grad.shape == input.shape
    assert lam.grad.shape == lam.shape
    assert lam.grad.dtype == lam.dtype
    batched, grads = (
        tensor if tensor.dim() == 4 else tensor.unsqueeze(0)
        for tensor in (input.detach(), grad_output)
    )
    compute_dtype = torch.float64 if call.dtype == torch.float64 else torch.float32
    exact = slow_loops.max_ent_pool2d(batched, lam, call.geometry)
    exact_input, exact_lam = slow_loops.max_ent_pool2d_gradients(grads, batched, lam, call.geometry)
    assert_rounding_only(output.reshape(exact.value.shape), exact, compute_dtype)
    assert_rounding_only(input.grad.reshape(batched.shape), exact_input, compute_dtype)
    assert_rounding_only(lam.grad, exact_lam, compute_dtype)


# ---------------------------------------------------------------- derivatives


@each_backend
@each_window
@each_lam_shape
def test_gradients_agree_with_finite_differences(backend, window, lam_shape):
    input = doubles((2, 2, *SIZES[window]), 0, backend.device).requires_grad_()
    lam = doubles(lam_shape, 1, backend.device).requires_grad_()

    def pool(input, lam):
        with use_backend(backend.name):
            return max_ent_pool2d(input, lam, **WINDOWS[window])

    assert pool(input, lam).shape == (2, 2, 3, 2)
    assert torch.autograd.gradcheck(pool, (input, lam))


@each_backend
@each_window
@each_lam_shape
def test_second_derivatives_agree_with_finite_differences(backend, window, lam_shape):
    input = doubles((2, 2, *SIZES[window]), 0, backend.device).requires_grad_()
    lam = doubles(lam_shape, 1, backend.device).requires_grad_()

    def pool(input, lam):
        with use_backend(backend.name):
            return max_ent_pool2d(input, lam, **WINDOWS[window])

    # The fast mode compares random projections of the derivatives, not each entry.
    assert torch.autograd.gradgradcheck(pool, (input, lam), fast_mode=True)


@each_backend
def test_lam_made_of_the_input(backend):
    input = doubles((2, 2, 4, 4), 0, backend.device).requires_grad_()

    def pool(input):
        with use_backend(backend.name):
            return max_ent_pool2d(input, input.mean((2, 3), keepdim=True), 3, 2, 1)

    def loss(input):
        return pool(input).square().sum()

    def penalty(input):
        return torch.autograd.grad(loss(input), input, create_graph=True)[0].square().sum()

    assert torch.autograd.gradcheck(pool, input)
    assert torch.autograd.gradcheck(penalty, input)
    (gradient,) = torch.autograd.grad(loss(input), input)
    (differentiable,) = torch.autograd.grad(loss(input), input, create_graph=True)
    torch.testing.assert_close(differentiable, gradient)
    torch.testing.assert_close(torch.func.grad(loss)(input.detach()), gradient)


@each_backend
def test_gradient_of_a_single_argument(backend):
    input, lam = doubles((2, 3, 4, 4), 0, backend.device), doubles((3, 1, 1), 1, backend.device)
    with use_backend(backend.name):
        pool = lambda input, lam: max_ent_pool2d(input, lam, 2).square().sum()  # noqa: E731
        both = torch.autograd.grad(pool(input.requires_grad_(), lam.requires_grad_()), (input, lam))
        only_input = torch.autograd.grad(pool(input, lam.detach()), input)
        only_lam = torch.autograd.grad(pool(input.detach(), lam), lam)
        neither = pool(input.detach(), lam.detach())
    assert torch.equal(only_input[0], both[0])
    assert torch.equal(only_lam[0], both[1])
    assert not neither.requires_grad


@each_backend
@each_dtype
@pytest.mark.parametrize("lam_dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_lam_of_another_type_gets_a_gradient_of_its_own(backend, dtype, lam_dtype):
    input = random_numbers((2, 3, 8, 8), dtype, 0).to(backend.device).requires_grad_()
    lam = torch.full((1, 3, 1, 1), 0.5, dtype=lam_dtype, device=backend.device).requires_grad_()
    with use_backend(backend.name):
        output = max_ent_pool2d(input, lam, 2)
        same = max_ent_pool2d(input, lam.detach().to(torch.float64), 2)
    output.sum().backward()
    assert output.dtype == input.grad.dtype == dtype
    assert lam.grad.dtype == lam_dtype
    assert torch.equal(output, same)  # one half is one half in every type


# ---------------------------------------------------------------- other calls


@pytest.mark.parametrize(("shape", "what"), [((5,), "channel"), ((2, 5), "sample and channel")])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_lam_of_channels_first_is_told_how_to_be_passed(shape, what, axes):
    pool = {1: max_ent_pool1d, 2: max_ent_pool2d, 3: max_ent_pool3d}[axes]
    lam, x = torch.rand(shape), torch.rand(2, 5, *[8] * axes)
    with pytest.raises(ValueError, match="does not broadcast") as error:
        pool(x, lam, 2)
    advice = str(error.value).rpartition("if it is one a ")[2]
    assert advice.startswith(f"{what}, pass lam[")
    passed = eval(advice.rpartition("pass ")[2], {"lam": lam})
    full = lam.expand(2, 5)[(..., *[None] * axes)]
    assert torch.equal(pool(x, passed, 2), pool(x, full, 2))


@each_backend
@each_dtype
def test_number_as_lam(backend, dtype):
    input = random_numbers((2, 3, 8, 8), dtype, 0).to(backend.device)
    with use_backend(backend.name):
        for number in (0, 1, -2.5):
            expected = max_ent_pool2d(input, torch.tensor(float(number), device=input.device), 2)
            assert torch.equal(max_ent_pool2d(input, number, 2), expected)


@each_backend
@each_dtype
def test_3d_input_is_one_sample(backend, dtype):
    input = random_numbers((3, 9, 8), dtype, 0).to(backend.device)
    lam = random_numbers((3, 1, 1), torch.float32, 1).to(backend.device)
    with use_backend(backend.name):
        output = max_ent_pool2d(input, lam, 3, 2, 1)
        batched = max_ent_pool2d(input.unsqueeze(0), lam, 3, 2, 1)
    assert output.shape == (3, 5, 4)
    assert torch.equal(output, batched[0])


@each_backend
@pytest.mark.parametrize("lam_shape", [(), (1, 3, 1, 1), (0, 3, 1, 1), (0, 3, 4, 4)], ids=str)
def test_empty_batch(backend, lam_shape):
    input = torch.empty(0, 3, 8, 8, device=backend.device, requires_grad=True)
    lam = torch.ones(lam_shape, device=backend.device, requires_grad=True)
    with use_backend(backend.name):
        output = max_ent_pool2d(input, lam, 2)
    output.sum().backward()
    assert output.shape == (0, 3, 4, 4)
    assert input.grad.shape == input.shape
    assert torch.equal(lam.grad, torch.zeros_like(lam))


@each_backend
@pytest.mark.parametrize(
    ("stride", "same"), [(None, (2, 3)), ((1, 2), (1, 2)), (3, (3, 3))], ids=str
)
def test_stride_defaults_to_the_kernel(backend, stride, same):
    input = random_numbers((1, 1, 8, 9), torch.float32, 0).to(backend.device)
    with use_backend(backend.name):
        output = max_ent_pool2d(input, 1.0, (2, 3), stride)
        assert torch.equal(output, max_ent_pool2d(input, 1.0, (2, 3), same))


@each_backend
def test_state_of_the_process_is_left_alone(backend):
    input = random_numbers((2, 3, 8, 8), torch.float32, 0).to(backend.device).requires_grad_()
    states = (torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled())
    with use_backend(backend.name):
        max_ent_pool2d(input, 1.0, 2).sum().backward()
    after = (torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled())
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]


@each_backend
def test_backward_runs_on_the_backend_of_the_forward(backend):
    class Names(TorchDispatchMode):
        used = None

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.gfgp_cupy.max_ent_pool2d_backward.default:
                self.used = [value for value in args if isinstance(value, str)]
            return func(*args, **(kwargs or {}))

    input = torch.ones(1, 1, 4, 4, device=backend.device, requires_grad=True)
    with use_backend(backend.name):
        output = max_ent_pool2d(input, 1.0, 2)
    with torch.autograd.set_multithreading_enabled(False), Names() as names:
        output.sum().backward()
    assert names.used == [backend.name]


# ---------------------------------------------------------------- memory


@each_backend
@each_dtype
def test_saves_the_input_and_lam_for_backward_and_no_more(backend, dtype):
    input = random_numbers((2, 3, 32, 32), dtype, 0).to(backend.device).requires_grad_()
    lam = torch.ones(2, 3, 1, 1, dtype=dtype, device=backend.device, requires_grad=True)
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with use_backend(backend.name), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        max_ent_pool2d(input, lam, 7, 1, 3)
    assert input.data_ptr() in saved
    # λ in the type it is computed in, at most 8 bytes an element.
    assert sum(saved.values()) <= input.nbytes + 8 * lam.numel()


class Memory(TorchDispatchMode):
    """The largest tensor that appears, and the most bytes alive at a time."""

    def __init__(self):
        super().__init__()
        self.largest = self.peak = 0
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.seen.append((weakref.ref(tensor), storage.data_ptr(), storage.nbytes()))
                self.largest = max(self.largest, storage.nbytes())
        self.seen = [item for item in self.seen if item[0]() is not None]
        self.peak = max(self.peak, sum({address: size for _, address, size in self.seen}.values()))
        return result


@functools.cache
def torch_memory(kernel: int) -> Memory:
    """What the torch backend takes for one and the same output, in units of the input."""
    geometry = pool_geometry(kernel, stride=1, padding=kernel // 2)
    input = random_numbers((2, 8, 32, 32), torch.float32, 0)
    lam = random_numbers((2, 8, 1, 1), torch.float32, 1)
    grad_output = torch.ones_like(input)
    reference = backend_module("torch")
    memory = Memory()
    with torch.no_grad(), memory:
        reference.forward(input, lam, geometry)
        reference.backward(grad_output, input, lam, geometry, (True, True))
    memory.largest /= input.nbytes
    memory.peak /= input.nbytes
    return memory


def test_torch_backend_makes_no_tensor_larger_than_the_padded_input():
    assert 1 <= torch_memory(kernel=7).largest <= (38 / 32) ** 2


def test_torch_backend_takes_no_more_memory_for_a_larger_kernel():
    # An unfolded copy would take 49 times the input instead of 9 times.
    small, large = torch_memory(kernel=3).peak, torch_memory(kernel=7).peak
    assert large <= small * (38 / 34) ** 2
    assert large < 20


# ---------------------------------------------------------------- errors


GOOD = {"input": torch.ones(2, 3, 8, 8), "lam": 1.0, "kernel_size": 2}
BAD_CALLS = {
    "int input": ({"input": torch.ones(1, 1, 4, 4, dtype=torch.int64)}, TypeError, "input.*int64"),
    "complex input": (
        {"input": torch.ones(1, 1, 4, 4, dtype=torch.complex64)},
        TypeError,
        "input.*complex64",
    ),
    "bool input": ({"input": torch.ones(1, 1, 4, 4) > 0}, TypeError, "input.*bool"),
    "float8 input": (
        {"input": torch.ones(1, 1, 4, 4).to(torch.float8_e4m3fn)},
        TypeError,
        "input.*float8",
    ),
    "list as input": ({"input": [[[[1.0]]]]}, TypeError, "input.*list"),
    "2-D input": ({"input": torch.ones(8, 8)}, ValueError, r"input.*\(8, 8\)"),
    "5-D input": ({"input": torch.ones(1, 1, 1, 8, 8)}, ValueError, r"input.*\(1, 1, 1, 8, 8\)"),
    "no channels": ({"input": torch.ones(2, 0, 8, 8)}, ValueError, r"input.*\(2, 0, 8, 8\)"),
    "no rows": ({"input": torch.ones(2, 3, 0, 8)}, ValueError, r"input.*\(2, 3, 0, 8\)"),
    "int lam": ({"lam": torch.ones(1, 3, 1, 1, dtype=torch.int32)}, TypeError, "lam.*int32"),
    "complex lam": ({"lam": torch.ones(1, dtype=torch.complex64)}, TypeError, "lam.*complex64"),
    "complex number as lam": ({"lam": 1j}, TypeError, "lam.*complex"),
    "bool as lam": ({"lam": True}, TypeError, "lam.*bool"),
    "str as lam": ({"lam": "1"}, TypeError, "lam.*str"),
    "None as lam": ({"lam": None}, TypeError, "lam.*NoneType"),
    "lam of other channels": (
        {"lam": torch.ones(1, 4, 1, 1)},
        ValueError,
        r"lam.*\(1, 4, 1, 1\).*\(2, 3, 4, 4\)",
    ),
    "lam of the input's size": (
        {"lam": torch.ones(2, 3, 8, 8)},
        ValueError,
        r"lam.*\(2, 3, 8, 8\).*\(2, 3, 4, 4\)",
    ),
    "lam of channels last": ({"lam": torch.ones(3)}, ValueError, r"lam.*\(3,\).*\(2, 3, 4, 4\)"),
    "lam of a larger batch": (
        {"input": torch.ones(3, 8, 8), "lam": torch.ones(2, 3, 1, 1)},
        ValueError,
        r"lam.*\(2, 3, 1, 1\).*\(1, 3, 4, 4\).*input of shape \(3, 8, 8\)",
    ),
    "5-D lam": (
        {"lam": torch.ones(1, 1, 1, 1, 1)},
        ValueError,
        r"lam.*\(1, 1, 1, 1, 1\).*\(2, 3, 4, 4\)",
    ),
    "lam on another device": (
        {"lam": torch.ones(1, device="meta")},
        ValueError,
        "input.*cpu.*lam.*meta",
    ),
    "zero kernel": ({"kernel_size": 0}, ValueError, "kernel_size.*0"),
    "negative kernel": ({"kernel_size": (2, -1)}, ValueError, r"kernel_size.*\(2, -1\)"),
    "float kernel": ({"kernel_size": 2.0}, TypeError, r"kernel_size.*2\.0"),
    "bool kernel": ({"kernel_size": True}, TypeError, "kernel_size.*True"),
    "three kernels": ({"kernel_size": (2, 2, 2)}, TypeError, r"kernel_size.*\(2, 2, 2\)"),
    "str kernel": ({"kernel_size": "2"}, TypeError, "kernel_size.*'2'"),
    "None as kernel": ({"kernel_size": None}, TypeError, "kernel_size.*None"),
    "zero stride": ({"stride": 0}, ValueError, "stride.*0"),
    "negative stride": ({"stride": (-2, 1)}, ValueError, r"stride.*\(-2, 1\)"),
    "float stride": ({"stride": (1, 1.5)}, TypeError, r"stride.*\(1, 1\.5\)"),
    "negative padding": ({"padding": -1}, ValueError, "padding.*-1"),
    "padding over half the kernel": (
        {"kernel_size": 3, "padding": 2},
        ValueError,
        "padding=2.*kernel_size=3",
    ),
    "padding over half on one axis": (
        {"kernel_size": (4, 2), "padding": 2},
        ValueError,
        r"padding=2.*kernel_size=\(4, 2\)",
    ),
    "float padding": ({"padding": 0.5}, TypeError, r"padding.*0\.5"),
    "empty output": ({"kernel_size": 9}, ValueError, r"empty.*\(2, 3, 8, 8\).*kernel_size=.*9"),
    "output without columns": (
        {"input": torch.ones(2, 3, 9, 2), "kernel_size": 3},
        ValueError,
        r"empty.*\(2, 3, 9, 2\).*kernel_size=.*3",
    ),
}


class Operators(TorchDispatchMode):
    """The names of this project's operators that are called."""

    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "gfgp_cupy":
            self.called.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["auto", "torch", "cupy"])
@pytest.mark.parametrize("call", BAD_CALLS)
def test_bad_arguments_are_named_before_anything_runs(call, name):
    # With "cupy" the tensors are on the wrong device besides: the arguments are checked first.
    changes, error, message = BAD_CALLS[call]
    with use_backend(name), Operators() as operators, pytest.raises(error, match=message):
        max_ent_pool2d(**{**GOOD, **changes})
    assert operators.called == []


def test_good_arguments_call_the_operator():
    with Operators() as operators:
        max_ent_pool2d(**GOOD)
    assert operators.called == [torch.ops.gfgp_cupy.max_ent_pool2d.default]


@each_backend
@pytest.mark.parametrize("lam", [math.inf, -math.inf, math.nan])
def test_lam_that_is_not_finite_gives_nan(backend, lam):
    # ∞ · 0 has no value: a diverged head must show as NaN, not as max pooling.
    input = random_numbers((1, 1, 4, 4), torch.float32, 0).to(backend.device)
    with use_backend(backend.name):
        assert max_ent_pool2d(input, lam, 2).isnan().all()


@each_backend
@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("first", [math.inf, -math.inf, math.nan, 3e38])
def test_elements_that_are_not_finite_or_too_far_apart_give_nan(backend, first, lam):
    input = torch.tensor([[[[first, 1.0], [-3e38, 2.0]]]], device=backend.device)
    with use_backend(backend.name):
        assert max_ent_pool2d(input, lam, 2).isnan().all()
        assert max_ent_pool2d(input.double(), lam, 2).isnan().all() == (first != 3e38)
