// The part of CUDA C++ that the project's kernels use, for a host compiler (test equipment).
//
// A kernel source is compiled after this header, unchanged, with GFGP_HOST defined and
// __CUDA_ARCH__ not. Each CUDA thread is a fiber of engine.cpp. Rules for a kernel:
//
// - extern "C" __global__, outside any namespace; every parameter is a pointer, a `long long`
//   or a `double`, because CuPy passes a Python int and a Python float as those.
// - Shared memory is the dynamic array named smem, declared where it is used with
//       extern __shared__ __align__(16) unsigned char smem[];
//   A static __shared__ array does not compile here.
// - Global memory is accessed through functions that first call gfgp_host_load or
//   gfgp_host_store (under #ifdef GFGP_HOST): those check and count the access.
// - No standard header: NVRTC has none either, and this file must compile fast.
//
// Unlike on a GPU, float32 denormals are kept and a*b+c is not fused unless written fma().
#pragma once
#define GFGP_HOST 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// An attribute that g++ takes on an extern declaration and refuses on a local variable.
#define __shared__ __attribute__((visibility("default")))  // only: extern __shared__ ... smem[]

// ---------------------------------------------------------------- vector types

#define GFGP_VECTOR2(name, type)                          \
  struct __align__(2 * sizeof(type)) name { type x, y; }; \
  inline name make_##name(type x, type y) { return {x, y}; }
#define GFGP_VECTOR4(name, type)                                \
  struct __align__(4 * sizeof(type)) name { type x, y, z, w; }; \
  inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

GFGP_VECTOR2(uchar2, unsigned char)
GFGP_VECTOR4(uchar4, unsigned char)
GFGP_VECTOR2(short2, short)
GFGP_VECTOR4(short4, short)
GFGP_VECTOR2(ushort2, unsigned short)
GFGP_VECTOR4(ushort4, unsigned short)
GFGP_VECTOR2(int2, int)
GFGP_VECTOR4(int4, int)
GFGP_VECTOR2(uint2, unsigned)
GFGP_VECTOR4(uint4, unsigned)
GFGP_VECTOR2(longlong2, long long)
GFGP_VECTOR2(ulonglong2, unsigned long long)
GFGP_VECTOR2(float2, float)
GFGP_VECTOR4(float4, float)
GFGP_VECTOR2(double2, double)

struct uint3 { unsigned x, y, z; };

// ------------------------------------------------- what engine.cpp does for a kernel

extern uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

// A place in the kernel's source. As a default argument it is the place of the call, which
// tells apart the calls that the threads of a block or warp must make together.
struct GfgpPlace {
  const char* file;
  int line;
  static constexpr GfgpPlace here(const char* file = __builtin_FILE(),
                                  int line = __builtin_LINE()) {
    return {file, line};
  }
};

extern "C" {
// Check and count one access of `bytes` bytes at p; an access at fault ends the launch.
void gfgp_host_load(const void* p, int bytes);
void gfgp_host_store(const void* p, int bytes);
// Wait until every live thread of the block is here.
void gfgp_host_block_barrier(GfgpPlace place);
// Wait until every live lane of mask is here; the result is the value lane `source` brought,
// all bits set if that lane is not there, or for source -1 the lanes whose value is not zero.
unsigned long long gfgp_host_warp_exchange(const char* intrinsic, unsigned mask,
                                           unsigned long long value, int source,
                                           GfgpPlace place);
}

inline void __syncthreads(GfgpPlace place = GfgpPlace::here()) {
  gfgp_host_block_barrier(place);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, GfgpPlace place = GfgpPlace::here()) {
  gfgp_host_warp_exchange("__syncwarp", mask, 0, -1, place);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, GfgpPlace place = GfgpPlace::here()) {
  return (unsigned)gfgp_host_warp_exchange("__ballot_sync", mask, predicate != 0, -1, place);
}
inline int __any_sync(unsigned mask, int predicate, GfgpPlace place = GfgpPlace::here()) {
  return gfgp_host_warp_exchange("__any_sync", mask, predicate != 0, -1, place) != 0;
}
inline int __all_sync(unsigned mask, int predicate, GfgpPlace place = GfgpPlace::here()) {
  return gfgp_host_warp_exchange("__all_sync", mask, predicate == 0, -1, place) == 0;
}

template <class To, class From> inline To gfgp_bit_cast(From from) {
  static_assert(sizeof(To) >= sizeof(From), "bits would be lost");
  To to{};
  __builtin_memcpy(&to, &from, sizeof(From));
  return to;
}

template <class T>
inline T gfgp_shuffle(const char* intrinsic, unsigned mask, T value, int source, GfgpPlace place) {
  unsigned long long bits = gfgp_bit_cast<unsigned long long>(value);
  bits = gfgp_host_warp_exchange(intrinsic, mask, bits, source, place);
  T result;
  __builtin_memcpy(&result, &bits, sizeof(T));
  return result;
}

// The source lanes are those of the CUDA C++ Programming Guide, "Warp Shuffle Functions":
// a source outside the segment of `width` lanes is the lane itself.
#define GFGP_SHUFFLES(T)                                                            \
  inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,          \
                       GfgpPlace place = GfgpPlace::here()) {                       \
    int lane = threadIdx.x % 32;                                                    \
    source = (lane & -width) + (source & (width - 1));                              \
    return gfgp_shuffle("__shfl_sync", mask, value, source, place);                 \
  }                                                                                 \
  inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,   \
                          GfgpPlace place = GfgpPlace::here()) {                    \
    int lane = threadIdx.x % 32, source = lane - (int)delta;                        \
    if (source < (lane & -width)) source = lane;                                    \
    return gfgp_shuffle("__shfl_up_sync", mask, value, source, place);              \
  }                                                                                 \
  inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, \
                            GfgpPlace place = GfgpPlace::here()) {                  \
    int lane = threadIdx.x % 32, source = lane + (int)delta;                        \
    if (source > (lane | (width - 1))) source = lane;                               \
    return gfgp_shuffle("__shfl_down_sync", mask, value, source, place);            \
  }                                                                                 \
  inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,   \
                           GfgpPlace place = GfgpPlace::here()) {                   \
    int lane = threadIdx.x % 32, source = lane ^ lane_mask;                         \
    if (source > (lane | (width - 1))) source = lane;                               \
    return gfgp_shuffle("__shfl_xor_sync", mask, value, source, place);             \
  }

GFGP_SHUFFLES(int)
GFGP_SHUFFLES(unsigned)
GFGP_SHUFFLES(long)
GFGP_SHUFFLES(unsigned long)
GFGP_SHUFFLES(long long)
GFGP_SHUFFLES(unsigned long long)
GFGP_SHUFFLES(float)
GFGP_SHUFFLES(double)

// ---------------------------------------------------------------- arithmetic

// CUDA has these for both types under C's names and, for float, under C++'s overloads.
#define GFGP_MATH1(name)           \
  extern "C" double name(double);  \
  extern "C" float name##f(float); \
  inline float name(float x) { return name##f(x); }
#define GFGP_MATH2(name)                  \
  extern "C" double name(double, double); \
  extern "C" float name##f(float, float); \
  inline float name(float x, float y) { return name##f(x, y); }

GFGP_MATH1(exp)
GFGP_MATH1(exp2)
GFGP_MATH1(expm1)
GFGP_MATH1(log)
GFGP_MATH1(log2)
GFGP_MATH1(log1p)
GFGP_MATH1(sqrt)
GFGP_MATH1(fabs)
GFGP_MATH1(floor)
GFGP_MATH1(ceil)
GFGP_MATH1(tanh)
GFGP_MATH2(fmin)
GFGP_MATH2(fmax)
GFGP_MATH2(pow)
extern "C" double fma(double, double, double);
extern "C" float fmaf(float, float, float);
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

#define GFGP_CLASSIFY(T)                                \
  inline bool isnan(T x) { return __builtin_isnan(x); } \
  inline bool isinf(T x) { return __builtin_isinf(x); } \
  inline bool isfinite(T x) { return __builtin_isfinite(x); }
GFGP_CLASSIFY(float)
GFGP_CLASSIFY(double)

#define GFGP_MIN_MAX(T)                            \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
GFGP_MIN_MAX(int)
GFGP_MIN_MAX(unsigned)
GFGP_MIN_MAX(long)
GFGP_MIN_MAX(unsigned long)
GFGP_MIN_MAX(long long)
GFGP_MIN_MAX(unsigned long long)
// As in CUDA, the floating-point ones return the operand that is not NaN.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline unsigned __float_as_uint(float x) { return gfgp_bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return gfgp_bit_cast<float>(x); }
inline int __float_as_int(float x) { return gfgp_bit_cast<int>(x); }
inline float __int_as_float(int x) { return gfgp_bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return gfgp_bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return gfgp_bit_cast<double>(x); }
template <class T> inline T __ldg(const T* p) { return *p; }

// ------------------------------------------------- how engine.cpp calls a kernel

template <class T> struct GfgpParameter {
  static_assert(sizeof(T) == 0, "a kernel parameter must be a pointer, a long long or a double");
};
template <class T> struct GfgpParameter<T*> {
  static constexpr char kind = 'p';
  static T* from(unsigned long long slot) { return (T*)slot; }
};
template <> struct GfgpParameter<long long> {
  static constexpr char kind = 'i';
  static long long from(unsigned long long slot) { return (long long)slot; }
};
template <> struct GfgpParameter<double> {
  static constexpr char kind = 'd';
  static double from(unsigned long long slot) { return gfgp_bit_cast<double>(slot); }
};

template <class... P> struct GfgpKernel {
  static constexpr char kinds[] = {GfgpParameter<P>::kind..., '\0'};
  // A braced initialiser evaluates its clauses in order, which a call's arguments are not.
  struct Call {
    Call(void (*kernel)(P...), P... arguments) { kernel(arguments...); }
  };
  static void call(void (*kernel)(P...), const unsigned long long* slots) {
    Call{kernel, GfgpParameter<P>::from(*slots++)...};
  }
};
template <class... P> GfgpKernel<P...> gfgp_kernel(void (*)(P...));

#define GFGP_HOST_KERNEL(name)                                                              \
  extern "C" const char* gfgp_kernel_kinds() { return decltype(gfgp_kernel(name))::kinds; } \
  extern "C" void gfgp_kernel_call(const unsigned long long* slots) {                       \
    decltype(gfgp_kernel(name))::call(name, slots);                                         \
  }

// ------------------------------------------------- how run.py calls engine.cpp

struct GfgpTensor {
  unsigned long long begin, bytes;  // the tensor's own extent
  long long argument;               // its index in the launch's arguments
  long long load_bytes, store_bytes;  // counted by the launch
};

struct GfgpLaunch {
  void (*call)(const unsigned long long* slots);
  const unsigned long long* slots;
  GfgpTensor* tensors;
  long long tensor_count, grid, block, shared_bytes;
  long long order, seed;    // order: 0 forward, 1 reverse, 2 shuffled with seed
  long long loads, stores;  // counted by the launch
  long long sector_bytes;   // of all 32-byte sectors that a block loads from, each once a block
};

// Runs the whole grid. Returns 0, or 1 with the reason in message.
extern "C" int gfgp_host_launch(GfgpLaunch* launch, char* message, long long message_bytes);
