"""The test equipment itself: CUDA C++ on a CPU, and NVRTC without a GPU."""

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch

from benchmarks.cuda_on_cpu import LaunchError, Traffic, run_launch
from tests.support.cuda_compiler import compile_cubin, nvrtc_available, resource_usage
from tests.support.cxx import needs_cxx

ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
ORDERS = ("forward", "reverse", "shuffled")

ACCESS = r"""
template <class T> __device__ __forceinline__ T load(const T* address) {
#ifdef GFGP_HOST
  gfgp_host_load(address, sizeof(T));
#endif
  return *address;
}
template <class T> __device__ __forceinline__ void store(T* address, T value) {
#ifdef GFGP_HOST
  gfgp_host_store(address, sizeof(T));
#endif
  *address = value;
}
"""

SAXPY = (
    ACCESS
    + r"""
extern "C" __global__ void __launch_bounds__(128)
saxpy(const float* __restrict__ x, float* __restrict__ y, const double a, const long long n) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  store(y + i, fmaf((float)a, load(x + i), load(y + i)));
}
"""
)

SUM_ROWS = (
    ACCESS
    + r"""
template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

extern "C" __global__ void __launch_bounds__(128)
sum_rows(const TYPE* __restrict__ x, TYPE* __restrict__ sums, long long columns) {
  extern __shared__ __align__(16) unsigned char smem[];
  TYPE* partial = reinterpret_cast<TYPE*>(smem);
  TYPE sum = 0;
  for (long long i = threadIdx.x; i < columns; i += blockDim.x)
    sum += load(x + blockIdx.x * columns + i);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = warp_sum(threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : (TYPE)0);
  if (threadIdx.x == 0) store(sums + blockIdx.x, sum);
}
"""
)


@dataclass(frozen=True)
class Launch:
    """The fields of gfgp_cupy.kernels.Launch."""

    name: str
    source: str
    args: tuple
    defines: tuple[str, ...] = ()
    grid: int = 1
    block: int = 32
    shared_bytes: int = 0


def kernel(parameters: str, body: str) -> str:
    """The source of a kernel named ``test``, whose ``self`` is the thread's global index."""
    return (
        f'{ACCESS}extern "C" __global__ void test({parameters}) {{\n'
        "extern __shared__ __align__(16) unsigned char smem[];\n"
        "int* shared = reinterpret_cast<int*>(smem);\n"
        "int self = blockIdx.x * blockDim.x + threadIdx.x;\n"
        f"{body}\n}}\n"
    )


def saxpy(n: int, alpha: float = 2.5) -> Launch:
    x = torch.arange(n, dtype=torch.float32)
    return Launch("saxpy", SAXPY, (x, torch.ones(n), alpha, n), grid=(n + 127) // 128, block=128)


def sum_rows(type_name: str = "float", dtype: torch.dtype = torch.float32) -> Launch:
    x = torch.arange(3 * 333).reshape(3, 333).remainder(17).to(dtype)
    args = (x, torch.zeros(3, dtype=dtype), 333)
    defines = (f"TYPE={type_name}",)
    return Launch("sum_rows", SUM_ROWS, args, defines, grid=3, block=128, shared_bytes=32)


# ---------------------------------------------------------------- results


@needs_cxx
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [1, 128, 1000])
def test_elementwise_kernel_and_its_traffic(n, order):
    launch = saxpy(n)
    traffic = run_launch(launch, order=order)
    x, y, _, _ = launch.args
    assert torch.equal(y, 2.5 * x + 1)
    assert traffic == Traffic(
        loads=2 * n,
        stores=n,
        load_bytes=8 * n,
        store_bytes=4 * n,
        sector_bytes=2 * 32 * -(-n // 8),
        per_argument=((4 * n, 0), (4 * n, 4 * n)),
    )


@needs_cxx
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("type_name", "dtype"),
    [("float", torch.float32), ("double", torch.float64), ("long long", torch.int64)],
)
def test_block_reduction(type_name, dtype, order):
    launch = sum_rows(type_name, dtype)
    run_launch(launch, order=order)
    x, sums, _ = launch.args
    assert torch.equal(sums, x.sum(dim=1))


def shuffle_sources(intrinsic: str, amount: int, width: int) -> list[int]:
    """The lane each lane reads, from the CUDA C++ Programming Guide."""
    sources = []
    for lane in range(32):
        first = lane // width * width
        source = {
            "__shfl_sync": first + amount % width,
            "__shfl_up_sync": lane - amount,
            "__shfl_down_sync": lane + amount,
            "__shfl_xor_sync": lane ^ amount,
        }[intrinsic]
        below, above = source < first, source >= first + width
        stays = above or (below and intrinsic != "__shfl_xor_sync")
        sources.append(lane if stays else source)
    return sources


@needs_cxx
@pytest.mark.parametrize("width", [32, 8])
@pytest.mark.parametrize("amount", [1, 5, 16])
@pytest.mark.parametrize(
    "intrinsic", ["__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"]
)
def test_shuffles(intrinsic, amount, width):
    source = kernel(
        "int* out, long long amount, long long width",
        "store(out + self, INTRINSIC(0xffffffffu, self % 32 * 10, (int)amount, (int)width));",
    )
    out = torch.zeros(64, dtype=torch.int32)
    launch = Launch("test", source, (out, amount, width), (f"INTRINSIC={intrinsic}",), block=64)
    run_launch(launch, order="shuffled")
    expected = [10 * lane for lane in shuffle_sources(intrinsic, amount, width)]
    assert out.tolist() == 2 * expected


@needs_cxx
def test_votes_and_partial_masks():
    source = kernel(
        "int* out",
        """
        if (self % 2) {
          store(out + self, __any_sync(0xaaaaaaaau, self > 40));
        } else {
          store(out + self, (int)__ballot_sync(0x55555555u, self < 4)
                            + 100 * __all_sync(0x55555555u, self < 34));
        }
        """,
    )
    out = torch.zeros(64, dtype=torch.int32)
    run_launch(Launch("test", source, (out,), block=64))
    assert out.tolist() == 16 * [0b101 + 100, 0] + 16 * [0, 1]


@needs_cxx
def test_lane_that_has_returned_gives_nan():
    source = kernel(
        "float* out",
        """
        if (self >= 16) return;
        store(out + self, __shfl_xor_sync(0xffffffffu, 1.0f, 16));
        """,
    )
    out = torch.zeros(16)
    run_launch(Launch("test", source, (out,)))
    assert out.isnan().all()


@needs_cxx
def test_arithmetic_is_that_of_cuda():
    nan = float("nan")
    source = kernel(
        "double* out, double x, double not_a_number",
        """
        if (self) return;
        float f = (float)x, n = (float)not_a_number;
        store(out + 0, (double)min(n, f));
        store(out + 1, (double)max(n, f));
        store(out + 2, (double)exp2f(f));
        store(out + 3, exp(x));
        store(out + 4, (double)__uint_as_float(__float_as_uint(f) ^ 0x80000000u));
        store(out + 5, (double)__fdividef(f, 2.0f));
        store(out + 6, (double)isnan(n));
        store(out + 7, (double)max(-1, 3));
        """,
    )
    out = torch.zeros(8, dtype=torch.float64)
    run_launch(Launch("test", source, (out, 2.5, nan)))
    expected = [2.5, 2.5, 2**2.5, math.exp(2.5), -2.5, 1.25, 1, 3]
    assert out.tolist() == pytest.approx(expected, rel=1e-7)


@needs_cxx
def test_product_and_sum_are_fused_only_by_fma():
    source = kernel(
        "double* out, double x, double square",
        "if (self == 0) { store(out, x * x - square); store(out + 1, fma(x, x, -square)); }",
    )
    out = torch.zeros(2, dtype=torch.float64)
    run_launch(Launch("test", source, (out, 1.1, 1.1 * 1.1)))
    error = float(Fraction(1.1) ** 2 - Fraction(1.1 * 1.1))
    assert error != 0
    assert out.tolist() == [0, error]


@needs_cxx
@pytest.mark.parametrize(("n", "a"), [(-5, -2.5), (2**63 - 1, 1e300), (-(2**63), float("-inf"))])
def test_numbers_arrive_as_they_are(n, a):
    source = kernel(
        "long long* n_out, double* a_out, const long long n, const double a",
        "if (self == 0) { store(n_out, n); store(a_out, a); }",
    )
    n_out, a_out = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    run_launch(Launch("test", source, (n_out, a_out, n, a)))
    assert (n_out.item(), a_out.item()) == (n, a)


# ---------------------------------------------------------------- shared memory and order

REVERSE_BLOCK = kernel(
    "int* out",
    """
    shared[threadIdx.x] = self;
    BARRIER;
    store(out + self, shared[blockDim.x - 1 - threadIdx.x]);
    """,
)


def reverse_block(barrier: str, block: int, order: str) -> list[int]:
    out = torch.zeros(2 * block, dtype=torch.int32)
    launch = Launch("test", REVERSE_BLOCK, (out,), (f"BARRIER={barrier}",), 2, block, 4 * block)
    run_launch(launch, order=order)
    return out.tolist()


@needs_cxx
@pytest.mark.parametrize(("barrier", "block"), [("__syncthreads()", 96), ("__syncwarp()", 32)])
def test_missing_barrier_shows_as_a_difference_between_orders(barrier, block):
    expected = list(range(block))[::-1] + list(range(block, 2 * block))[::-1]
    assert all(reverse_block(barrier, block, order) == expected for order in ORDERS)
    results = [reverse_block("", block, order) for order in ORDERS]
    assert results[0] != results[1]
    assert results[2] not in (results[0], results[1], expected)


@needs_cxx
def test_seed_chooses_the_shuffled_order():
    def shuffled(seed: int) -> list[int]:
        out = torch.zeros(64, dtype=torch.int32)
        launch = Launch("test", REVERSE_BLOCK, (out,), ("BARRIER=",), block=64, shared_bytes=256)
        run_launch(launch, order="shuffled", seed=seed)
        return out.tolist()

    assert shuffled(1) == shuffled(1)
    assert shuffled(1) != shuffled(2)


@needs_cxx
def test_each_block_starts_with_poisoned_shared_memory():
    source = kernel("int* out", "store(out + self, shared[threadIdx.x]); shared[threadIdx.x] = 5;")
    out = torch.zeros(96, dtype=torch.int32)
    run_launch(Launch("test", source, (out,), grid=3, shared_bytes=128))
    assert out.tolist() == 96 * [-1]


@needs_cxx
def test_writing_past_the_shared_memory_is_an_error():
    source = kernel("", "shared[threadIdx.x] = 0;")
    run_launch(Launch("test", source, (), shared_bytes=128))
    with pytest.raises(LaunchError, match=r"block 0: shared memory written at byte 124; .* 124 b"):
        run_launch(Launch("test", source, (), shared_bytes=124))


# ---------------------------------------------------------------- global memory


@needs_cxx
@pytest.mark.parametrize(
    ("access", "offset", "message"),
    [
        ("load(x + self + OFFSET)", 0, None),
        ("load(x + self + OFFSET)", 1, r"load of 4 bytes .* byte 256 of argument 1, .* 256 bytes"),
        ("load(x + self + OFFSET)", -1, r"block 0, thread 0: load .* byte -4 of argument 1"),
        ("store(x + self + OFFSET, 0.0f)", 0, None),
        ("store(x + self + OFFSET, 0.0f)", 1, r"test: block 1, thread 31: store of 4 bytes out of"),
    ],
)
def test_access_out_of_bounds(access, offset, message):
    source = kernel("long long unused, float* x", access + ";")
    memory = torch.zeros(128)
    args = (0, memory[32:96])
    launch = Launch("test", source, args, (f"OFFSET=({offset})",), grid=2)
    if message is None:
        run_launch(launch)
        return
    with pytest.raises(LaunchError, match=message):
        run_launch(launch)
    assert memory.count_nonzero() == 0
    follower = saxpy(5)
    run_launch(follower)
    assert follower.args[1].tolist() == [1, 3.5, 6, 8.5, 11]


@needs_cxx
def test_extent_of_a_strided_tensor_ends_at_its_last_element():
    source = kernel("const float* x, long long n", "if (self < n) load(x + self);")
    x = torch.zeros(4, 6)[:, :3]
    run_launch(Launch("test", source, (x, 21)))
    with pytest.raises(LaunchError, match="byte 84 of argument 0, which has 84 bytes"):
        run_launch(Launch("test", source, (x, 22)))


@needs_cxx
def test_empty_tensor_has_no_valid_address():
    source = kernel("const float* x, long long n", "if (self < n) load(x);")
    run_launch(Launch("test", source, (torch.zeros(0), 0)))
    with pytest.raises(LaunchError, match="argument 0, which has 0 bytes"):
        run_launch(Launch("test", source, (torch.zeros(0), 1)))


@needs_cxx
@pytest.mark.parametrize("vector", ["float2", "float4", "double"])
@pytest.mark.parametrize("access", ["load(p)", "store(p, VECTOR{})"])
def test_misaligned_vector_access(access, vector):
    source = kernel("float* x", f"if (self == 3) {{ VECTOR* p = (VECTOR*)x; {access}; }}")
    x = torch.zeros(16)
    assert x.data_ptr() % 16 == 0
    run_launch(Launch("test", source, (x,), (f"VECTOR={vector}",)))
    with pytest.raises(LaunchError, match=r"thread 3: misaligned .* argument 0.* is 4 modulo"):
        run_launch(Launch("test", source, (x[1:],), (f"VECTOR={vector}",)))


@needs_cxx
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("body", "races"),
    [
        ("store(x + self, 1); store(x + self, load(x + self) + 1);", False),
        ("load(x);", False),
        ("load(x); if (self == 40) store(x + 1, 1);", False),
        ("if (self < 2) store(x, 1);", True),
        ("if (self % 32 == 0) store(x, 1);", True),
        ("if (self == 40) store(x, 1); if (self == 2) load(x);", True),
        ("load(x); if (self == 63) store(x, 1);", True),
        ("if (self == 1) store((char*)x + 3, (char)1); if (self == 2) load(x);", True),
    ],
)
def test_race_in_global_memory(body, races, order):
    launch = Launch("test", kernel("int* x", body), (torch.zeros(64, dtype=torch.int32),), grid=2)
    if not races:
        run_launch(launch, order=order)
        return
    with pytest.raises(LaunchError, match=r"race: (load|store) at byte \d of argument 0, which"):
        run_launch(launch, order=order)


@needs_cxx
def test_race_through_two_arguments_that_share_memory():
    source = kernel("const int* x, int* y", "store(y + self, load(x + self));")
    memory = torch.arange(64, dtype=torch.int32)
    run_launch(Launch("test", source, (memory[:32], memory[32:])))
    assert memory.tolist() == 2 * list(range(32))
    with pytest.raises(LaunchError, match=r"race: .* block 0 (loads|stores) in the same launch"):
        run_launch(Launch("test", source, (memory[:32], memory[1:33])))


# ---------------------------------------------------------------- divergence


@needs_cxx
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("if (self % 2) __syncthreads(); else __syncwarp();", id="barrier-or-warp"),
        pytest.param("if (self < 32) __syncthreads(); else\n__syncthreads();", id="two-barriers"),
        pytest.param(
            '#line 9 "test.cu"\nif (self < 8) __syncwarp(); else\n#line 9 "b.cu"\n__syncwarp();',
            id="two-files",
        ),
        pytest.param(
            "if (self < 8) __shfl_sync(~0u, self, 0); else\n__shfl_sync(~0u, self, 0);",
            id="two-shuffles",
        ),
        pytest.param(
            "if (self < 8) __shfl_sync(~0u, self, 0); else __syncwarp();", id="two-intrinsics"
        ),
        pytest.param("if (self < 8) __syncwarp(0xffffu); else __syncwarp();", id="two-masks"),
        pytest.param("if (self < 8) __syncwarp(); else __syncthreads();", id="absent-lanes"),
    ],
)
def test_divergence_is_an_error_and_no_hang(body, order):
    with pytest.raises(LaunchError, match=r"divergent: thread \d+ waits at __s\w+ in test\.cu:\d"):
        run_launch(Launch("test", kernel("", body), (), block=64), order=order)


@needs_cxx
def test_mask_without_the_caller_is_an_error():
    source = kernel("", "__syncwarp(0x0000ffffu);")
    with pytest.raises(LaunchError, match=r"thread 16: __syncwarp .* leaves out the calling lane"):
        run_launch(Launch("test", source, ()))


@needs_cxx
@pytest.mark.parametrize("order", ORDERS)
def test_threads_that_have_returned_do_not_hold_up_the_others(order):
    source = kernel(
        "int* out",
        """
        if (self >= 40) return;
        shared[self] = self;
        __syncthreads();
        if (self >= 8) return;
        __syncwarp();
        store(out + self, shared[39 - self]);
        """,
    )
    out = torch.zeros(8, dtype=torch.int32)
    run_launch(Launch("test", source, (out,), block=64, shared_bytes=256), order=order)
    assert out.tolist() == [39, 38, 37, 36, 35, 34, 33, 32]


# ---------------------------------------------------------------- launches that cannot be


@needs_cxx
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": 48}, "block must be a multiple of 32 up to 1024, got 48"),
        ({"block": 2048}, "block .* got 2048"),
        ({"grid": 0}, "grid must be from 1 .* got 0"),
        ({"grid": 2**31 - 1, "block": 64}, r"grid \* block is"),
        ({"shared_bytes": 49153}, "shared_bytes must be from 0 to 49152, got 49153"),
        ({"args": (2**63,)}, "9223372036854775808 does not fit"),
    ],
)
def test_launch_that_no_gpu_takes(fields, message):
    launch = Launch(**{"name": "test", "source": kernel("long long n", ""), "args": (0,), **fields})
    with pytest.raises(ValueError, match=message):
        run_launch(launch)


@needs_cxx
def test_unknown_order():
    with pytest.raises(ValueError, match=r"order must be one of .* got 'backward'"):
        run_launch(saxpy(1), order="backward")


@needs_cxx
@pytest.mark.parametrize(
    "args", [(1.0, 1, 1.0), (torch.zeros(1), 1.0, 1.0), (torch.zeros(1), True, 1.0), (1, 1, 1)]
)
def test_arguments_must_fit_the_parameters(args):
    source = kernel("const float* x, long long n, double a", "")
    run_launch(Launch("test", source, (torch.zeros(1), 1, 1.0)))
    message = r"test: argument \d must be a (Tensor or None|int|float), got"
    with pytest.raises(TypeError, match=message):
        run_launch(Launch("test", source, args))


@needs_cxx
def test_null_pointer_is_taken_and_has_no_valid_address():
    copy = kernel("const float* x, float* y", "if (self == 0 && BODY) store(y, load(x));")
    y = torch.zeros(1)
    run_launch(Launch("test", copy, (None, y), ("BODY=0",)))
    with pytest.raises(LaunchError, match="load"):
        run_launch(Launch("test", copy, (None, y), ("BODY=1",)))
    with pytest.raises(TypeError, match="argument 1 must be a int, got None"):
        run_launch(Launch("test", kernel("float* y, long long n", ""), (y, None)))


@needs_cxx
def test_number_of_arguments():
    with pytest.raises(TypeError, match="test takes 2 arguments, got 1"):
        run_launch(Launch("test", kernel("double a, double b", ""), (1.0,)))


@needs_cxx
def test_tensor_that_is_not_on_the_cpu():
    with pytest.raises(ValueError, match="argument 0 must be a CPU tensor, it is on meta"):
        run_launch(Launch("test", kernel("float* x", ""), (torch.zeros(1, device="meta"),)))


@needs_cxx
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (kernel("int n", ""), "a kernel parameter must be a pointer, a long long or a double"),
        (
            kernel("", "__shared__ float x[8]; x[0] = 1;"),
            r"(?s)cuda_on_cpu\.h says .*test\.cu:18.*error",
        ),
        (kernel("", "extern __shared__ float other[]; other[0] = 1;"), "undefined .*other"),
        (kernel("", "int n = 0\n"), r"test\.cu:\d+.* error: expected"),
    ],
)
def test_source_that_does_not_compile(source, message):
    with pytest.raises(RuntimeError, match=message):
        run_launch(Launch("test", source, ()))


# ---------------------------------------------------------------- NVRTC


def test_nvrtc_is_there():
    assert nvrtc_available()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("launch", [saxpy(1), sum_rows()], ids=lambda launch: launch.name)
def test_kernel_compiles_for_every_architecture(launch, arch):
    assert compile_cubin(launch, arch).startswith(b"\x7fELF")
    usage = resource_usage(launch, arch)
    assert 8 <= usage.registers <= 64
    assert usage.stack_frame == usage.spill_stores == usage.spill_loads == usage.shared_bytes == 0


def test_syntax_error_is_reported_with_its_line():
    with pytest.raises(RuntimeError, match=r"(?s)NVRTC refused test .*test\.cu\(2\): error"):
        compile_cubin(Launch("test", "\nvoid test( { }", ()), "90")


def test_unknown_architecture_is_reported():
    with pytest.raises(RuntimeError, match=r"(?s)sm_12345.*invalid value for --gpu-arch"):
        compile_cubin(saxpy(1), "12345")


def test_kernel_that_the_source_lacks_is_reported():
    with pytest.raises(RuntimeError, match='no extern "C" kernel other'):
        compile_cubin(Launch("other", SAXPY, ()), "90")


def test_local_array_is_reported():
    source = kernel(
        "float* x, const int* index",
        """
        float values[32];
        for (int i = 0; i < 32; ++i) values[i] = load(x + i * 64);
        for (int i = 0; i < 32; ++i) values[load(index + i) & 31] *= 2.0f;
        store(x + self, values[load(index + self) & 31]);
        """,
    )
    usage = resource_usage(Launch("test", source, ()), "90")
    assert usage.stack_frame == 128
    assert usage.spill_stores == usage.spill_loads == 0


def test_spills_and_static_shared_memory_are_reported():
    source = kernel(
        "float* x",
        """
        __shared__ float keep[10];
        keep[threadIdx.x % 10] = load(x);
        __syncthreads();
        float values[64];
        for (int i = 0; i < 64; ++i) values[i] = load(x + i * self) + keep[i % 10];
        for (int i = 0; i < 64; ++i) store(x + self * i, values[(i * 7) & 63] * values[i]);
        """,
    ).replace("void test", "void __launch_bounds__(1024, 2) test")
    usage = resource_usage(Launch("test", source, ()), "90")
    assert usage.registers == 32
    assert usage.spill_stores > 0
    assert usage.spill_loads > 0
    assert usage.shared_bytes >= 40


def test_usage_is_that_of_the_kernel_named():
    static = "__shared__ int kept[99]; kept[threadIdx.x] = x[0]; __syncthreads(); *x = kept[*x];"
    bodies = {"first": "", "second": static, "third": ""}
    source = "".join(
        f'extern "C" __global__ void {name}(int* x) {{ {body} }}\n' for name, body in bodies.items()
    )
    usages = [resource_usage(Launch(name, source, ()), "90").shared_bytes for name in bodies]
    assert usages[0] == usages[2] == 0
    assert usages[1] >= 396
