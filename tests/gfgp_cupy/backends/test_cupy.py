"""The cupy backend without a GPU: its way through CuPy, on the stand-in driver.

``test_pooling.py`` tries its numbers on the same driver. With CuPy 13 on PYTHONPATH, this file is
what that version is tried with.
"""

import importlib.util
import sys
import types
import weakref

import numpy
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from gfgp_cupy import ops, use_backend
from gfgp_cupy.backends import backend_report, select_backend, selection
from gfgp_cupy.backends import cupy as backend
from gfgp_cupy.functional import max_ent_pool2d
from gfgp_cupy.kernels import Launch, passes
from tests.support import stand_in_driver
from tests.support.implementations import kernels_on_cpu
from tests.support.kernel_cases import DTYPES, FUSED_CASES
from tests.support.stand_in_driver import capsule_of_gpu, launch_count, needs_stand_in

CPU = torch.device("cpu")
CASES = FUSED_CASES[:5]
GEOMETRY = CASES[0].geometry


def run(launch: Launch) -> None:
    backend.run_launch(launch, CPU)


@pytest.fixture
def on_stand_in():
    """The backend serves CPU tensors, and has not been used before."""
    backend.cannot_run_on.cache_clear()
    backend.loaded_kernel.cache_clear()
    with stand_in_driver.on_cpu_tensors():
        yield
    backend.cannot_run_on.cache_clear()


# ---------------------------------------------------------------- tensors and streams cross


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_tensors_cross_without_a_copy(monkeypatch, dtype, layout):
    monkeypatch.setattr(backend, "to_dlpack", capsule_of_gpu)
    memory = torch.zeros(2, 3, 4, 5, dtype=dtype).to(memory_format=layout).requires_grad_()
    for tensor in (memory, memory[1:], memory.detach()[:, :, 1:], memory[:, :1, :1, 1:2]):
        with torch.no_grad():
            assert backend.pointer_to(tensor).ptr == tensor.data_ptr()


def test_pointer_keeps_the_memory(monkeypatch):
    monkeypatch.setattr(backend, "to_dlpack", capsule_of_gpu)
    tensor = torch.zeros(3)
    storage = weakref.ref(tensor.untyped_storage())
    pointer = backend.pointer_to(tensor)
    del tensor
    assert storage() is not None and pointer.ptr == storage().data_ptr()
    del pointer
    assert storage() is None


def test_empty_tensors_cross_and_tensors_without_memory_do_not(monkeypatch):
    monkeypatch.setattr(backend, "to_dlpack", capsule_of_gpu)
    assert backend.pointer_to(torch.empty(0, 3)).ptr == torch.empty(0, 3).data_ptr()
    with pytest.raises(RuntimeError, match=r"without memory.*\(2, 3\)"):
        torch.func.functionalize(backend.pointer_to)(torch.ones(2, 3))


@pytest.mark.parametrize("address", [0, 0x7F00_1234_5678])
def test_streams_cross_with_any_version_of_pytorch_and_cupy(address):
    assert backend.stream_at(address).ptr == address


# ---------------------------------------------------------------- the whole way


@needs_stand_in
@pytest.mark.parametrize("case", CASES, ids=str)
def test_launches_through_cupy_give_the_kernels_bits(on_stand_in, case):
    input, lam, grad_output = case.input(2), case.lam(2), case.grad_output(2)

    def results(module):
        output, spread = module.forward_with_spread(input, lam, case.geometry)
        return (
            output,
            spread,
            module.forward(input, lam, case.geometry),
            module.lam_backward(grad_output, spread, lam),
            *module.backward(grad_output, input, lam, case.geometry, (True, True)),
            module.backward(grad_output, input, lam, case.geometry, (True, False), mean_grad=lam)[
                0
            ],
        )

    before = launch_count()
    through_cupy = results(backend)
    assert launch_count() - before >= 5
    assert all(map(torch.equal, through_cupy, results(kernels_on_cpu())))


@needs_stand_in
def test_public_functions_and_operators(on_stand_in):
    case = CASES[0]
    input, lam = case.input(2).requires_grad_(), case.lam(2).requires_grad_()
    with use_backend("torch"):
        expected = max_ent_pool2d(input, lam, 2)
    with use_backend("cupy"):
        before = launch_count()
        output = max_ent_pool2d(input, lam, 2)
        gradients = torch.autograd.grad(output, (input, lam), torch.ones_like(output))
    assert launch_count() - before == 3  # the backend's probe, forward, backward
    torch.testing.assert_close(output, expected)
    for actual, other in zip(
        gradients, torch.autograd.grad(expected, (input, lam), torch.ones_like(output)), strict=True
    ):
        torch.testing.assert_close(actual, other, rtol=1e-5, atol=1e-5)
    arguments = (*map(list, case.geometry[:3]), False, "cupy")
    torch.library.opcheck(ops.max_ent_pool2d, (input, lam, *arguments))


@needs_stand_in
def test_only_the_backend_sees_the_stand_in(on_stand_in):
    assert backend.unavailable(CPU) is None
    assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|nvidia"):
        torch.empty(1, device="cuda")


@needs_stand_in
def test_kernels_share_one_set_of_compiler_options(on_stand_in):
    # For each set, CuPy runs the compiler once more, on an empty file, though all is in its cache.
    launches = []
    for case in CASES:
        passes.forward(case.input(2), case.lam(2), case.geometry, launches.append)
    kernels = [backend.loaded_kernel(one.name, one.source, one.defines, 0) for one in launches]
    assert len({kernel.options for kernel in kernels}) == 1 < len(set(kernels))


@needs_stand_in
def test_source_is_one_that_every_locale_can_write(on_stand_in):
    launches = []
    passes.forward(CASES[0].input(2), CASES[0].lam(2), CASES[0].geometry, launches.append)
    (one,) = launches
    kernel = backend.loaded_kernel(one.name, f"// θ²\n{one.source}", one.defines, 0)
    assert kernel.code.isascii()
    assert f"// ??\n{one.source}" in kernel.code


# ---------------------------------------------------------------- the first call of a process


def pool(x):
    return max_ent_pool2d(x, 1.0, 2)


class Pool(nn.Module):
    def forward(self, x):
        return pool(x)


def under_fake_mode(x):
    with FakeTensorMode():
        pool(torch.ones(x.shape))


FIRST_CALLS = {
    "FakeTensorMode": under_fake_mode,
    "make_fx": lambda x: make_fx(pool, tracing_mode="fake")(x),
    "make_fx symbolic": lambda x: make_fx(pool, tracing_mode="symbolic")(x),
    "export": lambda x: torch.export.export(Pool(), (x,), strict=False),
    "grad": torch.func.grad(lambda x: pool(x).sum()),
    "functionalize": torch.func.functionalize(pool),
    "jvp": lambda x: torch.func.jvp(pool, (x,), (x,)),
}


@needs_stand_in
@pytest.mark.parametrize("call", FIRST_CALLS.values(), ids=FIRST_CALLS)
def test_first_call_may_be_one_that_is_traced_or_transformed(on_stand_in, call):
    before = launch_count()
    with use_backend("cupy"):
        call(torch.ones(1, 1, 8, 8))
    assert backend.cannot_run_on.cache_info().currsize == 1
    assert backend.unavailable(CPU) is None
    launched = launch_count() - before
    # The probe; the operator itself where functionalize lets it run.
    assert launched == 1 or (call is FIRST_CALLS["functionalize"] and launched == 2)
    with use_backend("cupy"):
        torch.testing.assert_close(pool(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 4, 4))


@needs_stand_in
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_tensors_without_memory_reach_no_launch(on_stand_in):
    backend.unavailable(CPU)
    before = launch_count()
    fake = FakeTensorMode().from_tensor(torch.ones(1, 1, 4, 4))
    for tensor in (fake, torch.ones(1, 1, 4, 4, device="meta")):
        with pytest.raises((RuntimeError, BufferError), match=r"without memory|meta"):
            passes.forward(tensor, tensor, GEOMETRY, run)
    assert launch_count() == before


# ---------------------------------------------------------------- CUDA graphs


@needs_stand_in
def test_first_use_in_a_capture_says_to_warm_up_and_is_forgotten(on_stand_in, monkeypatch):
    input, lam = CASES[0].input(2), CASES[0].lam(2)
    advice = r"first time inside a CUDA graph's capture.*before the capture.*compile_kernels"
    before = launch_count()
    with monkeypatch.context() as capture, use_backend("cupy"):
        capture.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        with pytest.raises(RuntimeError, match=advice):  # the backend's first
            max_ent_pool2d(input, lam, 2)
        with pytest.raises(RuntimeError, match=advice):
            backend_report()
    assert launch_count() == before
    assert backend.unavailable(CPU) is None
    with monkeypatch.context() as capture, use_backend("cupy"):
        capture.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert select_backend(CPU) == "cupy"
        with pytest.raises(RuntimeError, match=advice):  # a kernel's first
            max_ent_pool2d(input, lam, 2)
    with use_backend("cupy"):
        output = max_ent_pool2d(input, lam, 2)
    with monkeypatch.context() as capture, use_backend("cupy"):
        capture.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert torch.equal(max_ent_pool2d(input, lam, 2), output)


@needs_stand_in
@pytest.mark.parametrize("name", ["cupy", "auto"])
def test_first_use_while_another_thread_captures_is_forgotten(on_stand_in, monkeypatch, name):
    def refused(*args, **options):
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted")

    monkeypatch.setitem(selection.MADE_FOR, "cpu", "cupy")
    selection.automatic_backend.cache_clear()
    input, lam = CASES[0].input(2), CASES[0].lam(2)
    with use_backend(name):
        with monkeypatch.context() as first:
            first.setattr(backend, "run_small_case", refused)
            with pytest.raises(RuntimeError, match=r"another thread captures.*before the capture"):
                max_ent_pool2d(input, lam, 2)
        before = launch_count()
        max_ent_pool2d(input, lam, 2)
        assert launch_count() == before + 2  # the probe, and this


@needs_stand_in
def test_error_that_only_names_a_capture_is_a_reason(on_stand_in, monkeypatch):
    def refused(*args, **options):
        raise RuntimeError("/home/me/capture/include/cuda_fp16.h: no such file")

    monkeypatch.setattr(backend, "run_small_case", refused)
    assert "/home/me/capture/include/cuda_fp16.h" in backend.unavailable(CPU)


FULL = {
    "PyTorch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
    "PyTorch outside its allocator": RuntimeError("CUDA error: out of memory\nCUDA kernel errors"),
    "the driver": RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    "the runtime": RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    "CuPy's pool": MemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes)."),
}


@needs_stand_in
@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
@pytest.mark.parametrize("name", ["cupy", "auto"])
def test_memory_that_is_full_at_the_first_use_is_forgotten(on_stand_in, monkeypatch, error, name):
    def full(*args, **options):
        raise error

    monkeypatch.setitem(selection.MADE_FOR, "cpu", "cupy")
    selection.automatic_backend.cache_clear()
    input, lam = CASES[0].input(2), CASES[0].lam(2)
    with use_backend(name):
        with monkeypatch.context() as first:
            first.setattr(backend, "run_small_case", full)
            with pytest.raises(torch.OutOfMemoryError, match="memory of cpu is too full to try"):
                max_ent_pool2d(input, lam, 2)
            assert "cupy: no (the memory of cpu is too full to try a kernel: " in backend_report()
        before = launch_count()
        max_ent_pool2d(input, lam, 2)
        assert launch_count() == before + 2  # the probe, and this
        assert select_backend(CPU) == "cupy"


# ---------------------------------------------------------------- versions of CuPy


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Makes a package the installed CuPy, that fails at import as an old one beside a new NumPy."""

    def install(version):
        package = tmp_path / "cupy"
        package.mkdir()
        (package / "__init__.py").write_text("raise AttributeError('numpy has no attribute bool')")
        if version is not None:
            (package / "_version.py").write_text(f"__version__ = '{version}'\n")
        module = types.ModuleType("cupy")
        module.__spec__ = importlib.util.spec_from_file_location(
            "cupy", package / "__init__.py", submodule_search_locations=[str(package)]
        )
        monkeypatch.setitem(sys.modules, "cupy", module)

    backend.cannot_run_on.cache_clear()
    yield install
    backend.cannot_run_on.cache_clear()


@pytest.mark.parametrize("version", ["12.3.0", "9.6.0", "12.0.0rc1"])
def test_old_cupy_is_the_reason_and_says_what_to_install(installed, version):
    installed(version)
    reason = backend.unavailable(torch.device("cuda", 0))
    assert reason == (
        f"CuPy {version} is too old, 13 is the oldest that serves: "
        "pip install --upgrade cupy-cuda12x (or cupy-cuda13x)"
    )


@pytest.mark.parametrize("version", ["13.0.0", "13.6.0", "14.2.0", "15.0.0a1", None])
def test_other_versions_are_tried(installed, version):
    installed(version)
    # Here with no GPU, and with a GPU by a CuPy that cannot be imported.
    reason = backend.unavailable(torch.device("cuda", 0))
    assert reason is not None and reason.startswith("CuPy cannot run a kernel on it: ")


# ---------------------------------------------------------------- launches that a GPU refuses

SOURCE = r"""
template <class T> __device__ T load(const T* address) {
#ifdef GFGP_HOST
  gfgp_host_load(address, sizeof(T));
#endif
  return *address;
}
template <class T> __device__ void store(T* address, T value) {
#ifdef GFGP_HOST
  gfgp_host_store(address, sizeof(T));
#endif
  *address = value;
}
extern "C" __global__ void __launch_bounds__(64)
scaled(const float* x, float* y, long long factor, long long n) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n && x) store(y + i, load(x + i) * factor);
}
"""


def scaled(x, y, *others, grid=1, block=64, name="scaled", source=SOURCE):
    """Launches y = factor · x, with other arguments where a test gives them."""
    run(Launch(name, source, (), grid, block, (x, y, *(others or (3, 8)))))


def scaled_by_hand(*args, stream=stand_in_driver.STREAM):
    """Launches ``scaled`` without the backend, with arguments and a stream as CuPy takes them."""
    kernel = backend.loaded_kernel("scaled", SOURCE, (), 0)
    kernel((1,), (64,), list(args), stream=backend.stream_at(stream))


@pytest.fixture
def refused(on_stand_in):
    """Checks that a launch comes to an error, raised by CuPy."""

    def check(match, *args, launch=scaled, **kwargs):
        with pytest.raises(Exception, match=match) as caught:
            launch(*args, **kwargs)
        assert type(caught.value).__module__.startswith("cupy")

    return check


X, Y = torch.arange(8.0), torch.zeros(8)


@needs_stand_in
def test_right_launch(on_stand_in):
    y = torch.zeros(8)
    scaled(X, y)
    assert torch.equal(y, 3 * X)
    scaled(None, y)  # a null pointer, with any version of CuPy; the kernel does not touch it
    assert torch.equal(y, 3 * X)


@needs_stand_in
def test_wrong_arguments_are_refused(refused):
    refused("takes 4 arguments, got 3", X, Y, 3)
    refused("takes 4 arguments, got 5", X, Y, 3, 8, 8)
    refused("argument 1 of scaled is a pointer, got int", X, 8, 3, 8)
    refused("argument 2 of scaled is a long long, got pointer", X, Y, Y, 8)
    refused("store of 4 bytes", X, None)


@needs_stand_in
@pytest.mark.parametrize("number", [numpy.int32(3), numpy.zeros(1, numpy.int16)])
def test_wrong_sizes_are_refused(refused, number):
    pointers = map(backend.pointer_to, (X, Y))
    wrong = f"argument 2 of scaled has 8 bytes, got {number.dtype} of"
    refused(wrong, *pointers, number, 8, launch=scaled_by_hand)


@needs_stand_in
def test_wrong_addresses_are_refused(refused):
    memory = torch.zeros(64, dtype=torch.uint8)
    refused("misaligned load of 4 bytes", memory[1:], Y)
    refused("load of 4 bytes out of bounds: at byte 28 of argument 0", X[:7], Y)
    refused("store of 4 bytes out of bounds", X, Y[4:])
    for bytes, match in (
        (32, "argument 0 .* outside every tensor"),
        (-4, "argument 0 .* outside every tensor"),
        (4, "load of 4 bytes out of bounds"),
        (2, "misaligned load"),
    ):
        x, y = map(backend.pointer_to, (X, Y))
        refused(match, x + bytes, y, 3, 8, launch=scaled_by_hand)


@needs_stand_in
def test_memory_of_an_earlier_launch_is_out_of_range(refused):
    earlier = backend.pointer_to(X)
    scaled_by_hand(earlier, backend.pointer_to(Y), 3, 8)
    outside = "argument 0 of scaled points to .*outside every tensor"
    refused(outside, earlier, backend.pointer_to(Y), 3, 8, launch=scaled_by_hand)


@needs_stand_in
def test_wrong_launches_are_refused(refused):
    refused("128 threads a block, compiled for at most 64", X, Y, block=128)
    refused("no kernel twice, only .*scaled", X, Y, name="twice")
    refused("(?s)error.*undefined", X, Y, source=SOURCE.replace("factor)", "facto)"))
    pointers = map(backend.pointer_to, (X, Y))
    elsewhere = stand_in_driver.STREAM + 16
    refused("not PyTorch's current one", *pointers, 3, 8, launch=scaled_by_hand, stream=elsewhere)


@needs_stand_in
def test_grid_of_2_31_blocks_is_refused_with_the_way_out(refused):
    before = launch_count()
    with pytest.raises(ValueError, match=r"2147483648 blocks.*2147483647.*in parts.*'torch'"):
        scaled(X, Y, grid=2**31)
    assert launch_count() == before
    # The largest goes to the driver as it is: that is more than the CPU engine takes.
    refused(f"grid .* block is {(2**31 - 1) * 64}", X, Y, grid=2**31 - 1)
