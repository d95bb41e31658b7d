// The element type of input and output (scalar_t), the type of all arithmetic (acc_t), and the
// only doors to global memory: load() and store().
//
// Macros: one of DTYPE_FLOAT16, DTYPE_BFLOAT16, DTYPE_FLOAT32, DTYPE_FLOAT64;
//         index_t, the integer type of element offsets (int or long long);
//         POOLING, the name of what becomes of a window, with which kernels' names begin.
// GFGP_HOST is defined when the tests compile this text for a CPU.

#define KERNEL(pass) KERNEL_OF(POOLING, pass)
#define KERNEL_OF(pooling, pass) NAME_OF_KERNEL(pooling, pass)
#define NAME_OF_KERNEL(pooling, pass) pooling##_pool2d_##pass

#if defined(DTYPE_FLOAT64)
typedef double scalar_t;
typedef double acc_t;
#elif defined(DTYPE_FLOAT32)
typedef float scalar_t;
typedef float acc_t;
#else
typedef unsigned short scalar_t;  // the 16 bits of a float16 or bfloat16
typedef float acc_t;
#endif

#if defined(DTYPE_FLOAT16)
#define IS_FLOAT16 1
#else
#define IS_FLOAT16 0
#endif

// What a kernel of so many threads a block declares. Left alone, the compiler spills float64
// registers to make room for more blocks.
#if defined(DTYPE_FLOAT64)
#define BOUNDS(threads) __launch_bounds__(threads, 1)
#else
#define BOUNDS(threads) __launch_bounds__(threads)
#endif

template <class T>
__device__ __forceinline__ T load(const T* address) {
#ifdef GFGP_HOST
  gfgp_host_load(address, sizeof(T));
#endif
  return *address;
}

template <class T>
__device__ __forceinline__ void store(T* address, T value) {
#ifdef GFGP_HOST
  gfgp_host_store(address, sizeof(T));
#endif
  *address = value;
}

// N neighbouring elements that cross global memory in one access. Half types also lie there in
// pairs, as the registers hold them.
template <int N>
struct __align__(N * sizeof(scalar_t)) Pack {
  union {
    scalar_t element[N];
#if defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16)
    unsigned pair[N / 2];
#endif
  };
};

template <>
struct Pack<1> {
  scalar_t element[1];
};

template <int N>
__device__ __forceinline__ Pack<N> load_pack(const scalar_t* address) {
  return load(reinterpret_cast<const Pack<N>*>(address));
}

template <int N>
__device__ __forceinline__ void store_pack(scalar_t* address, const Pack<N>& pack) {
  store(reinterpret_cast<Pack<N>*>(address), pack);
}

#if defined(DTYPE_FLOAT32) || defined(DTYPE_FLOAT64)

__device__ __forceinline__ acc_t widen(scalar_t value) { return value; }
__device__ __forceinline__ scalar_t narrow(acc_t value) { return value; }

#elif defined(DTYPE_BFLOAT16)

__device__ __forceinline__ acc_t widen(scalar_t bits) {
  return __uint_as_float((unsigned)bits << 16);
}

#if defined(GFGP_HOST) || __CUDA_ARCH__ < 800

__device__ __forceinline__ scalar_t narrow(acc_t value) {
  const unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // rounding could turn a NaN into inf
  return (scalar_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#else

__device__ __forceinline__ scalar_t narrow(acc_t value) {
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

#define NARROW_PAIR "cvt.rn.bf16x2.f32 %0, %1, %2;"

#endif

#elif defined(GFGP_HOST)  // float16 without PTX

__device__ __forceinline__ acc_t widen(scalar_t bits) {
  const unsigned sign = (unsigned)(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (magnitude << 13));
  if (magnitude < 0x0400u) {  // subnormal: an exact multiple of 2^-24
    const float value = (float)magnitude * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  return __uint_as_float(sign | ((magnitude << 13) + 0x38000000u));
}

__device__ __forceinline__ scalar_t narrow(acc_t value) {
  const unsigned bits = __float_as_uint(value);
  const unsigned sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return (scalar_t)(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // adding 0.5 leaves a multiple of 2^-24 in the low bits
    const float shifted = __uint_as_float(magnitude) + 0.5f;
    return (scalar_t)(sign | (__float_as_uint(shifted) - 0x3f000000u));
  }
  return (scalar_t)(sign | ((magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13));
}

#else  // float16

__device__ __forceinline__ acc_t widen(scalar_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ __forceinline__ scalar_t narrow(acc_t value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

#if __CUDA_ARCH__ >= 800
#define NARROW_PAIR "cvt.rn.f16x2.f32 %0, %1, %2;"
#endif

#endif

// An element of a pack, by one instruction where the other half of its pair would be in the way.
template <int N>
__device__ __forceinline__ acc_t widen_from(const Pack<N>& pack, int k) {
#if defined(DTYPE_BFLOAT16)
  return __uint_as_float(k % 2 ? pack.pair[k / 2] & 0xffff0000u : pack.pair[k / 2] << 16);
#else
  return widen(pack.element[k]);
#endif
}

template <>
__device__ __forceinline__ acc_t widen_from(const Pack<1>& pack, int k) {
  return widen(pack.element[0]);
}

// Half types: numbers that are taken, or given back, with their signs changed where `flip` is
// SIGN_BIT, not 0. For bfloat16 that costs nothing, for float16 an instruction a pair.
#define SIGN_BIT 0x80000000u

__device__ __forceinline__ unsigned upper_half_flipped(unsigned pair, unsigned flip) {
#ifdef GFGP_HOST
  return (pair & 0xffff0000u) ^ flip;
#else
  // Left alone, the compiler makes two instructions of it, out of what `flip` was made of.
  unsigned bits;
  asm("lop3.b32 %0, %1, 0xffff0000, %2, 0x6a;" : "=r"(bits) : "r"(pair), "r"(flip));
  return bits;
#endif
}

template <int N>
__device__ __forceinline__ acc_t widen_flipped(const Pack<N>& pack, int k, unsigned flip) {
#if defined(DTYPE_BFLOAT16)
  const unsigned pair = pack.pair[k / 2];
  return __uint_as_float(k % 2 ? upper_half_flipped(pair, flip) : pair * 0x10000u + flip);
#elif defined(DTYPE_FLOAT16)
  const unsigned pair = pack.pair[k / 2] ^ (flip | flip >> 16);
  return widen((scalar_t)(k % 2 ? pair >> 16 : pair));
#else
  return widen(pack.element[k]);
#endif
}

template <>
__device__ __forceinline__ acc_t widen_flipped(const Pack<1>& pack, int k, unsigned flip) {
#if defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16)
  return widen((scalar_t)(pack.element[0] ^ flip >> 16));
#else
  return widen(pack.element[0]);
#endif
}

// Puts two numbers where elements k and k + 1 of a pack are; k is even.
template <int N>
__device__ __forceinline__ void narrow_pair(acc_t first, acc_t second, Pack<N>& pack, int k) {
#if defined(NARROW_PAIR)
  asm(NARROW_PAIR : "=r"(pack.pair[k / 2]) : "f"(second), "f"(first));
#else
  pack.element[k] = narrow(first);
  pack.element[k + 1] = narrow(second);
#endif
}

template <int N>
__device__ __forceinline__ Pack<N> narrow_pack(const acc_t (&values)[N]) {
  Pack<N> pack;
  if constexpr (N == 1) {
    pack.element[0] = narrow(values[0]);
  } else {
#pragma unroll
    for (int k = 0; k < N; k += 2) narrow_pair(values[k], values[k + 1], pack, k);
  }
  return pack;
}

// power_of_two: 2^x, one instruction in float32 (2 units in the last place), exact to rounding in
// float64.
// reciprocal: 1 / x to 1 unit in the last place, where both are normal numbers, without the
// subroutine (and its registers) that a division brings along for others.
#if defined(GFGP_HOST)

__device__ __forceinline__ acc_t power_of_two(acc_t x) { return exp2(x); }
__device__ __forceinline__ acc_t reciprocal(acc_t x) { return 1 / x; }

#elif defined(DTYPE_FLOAT64)

__device__ __forceinline__ acc_t power_of_two(acc_t x) { return exp2(x); }

__device__ __forceinline__ acc_t reciprocal(acc_t x) {
  double result;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(result) : "d"(x));  // 20 bits, doubled twice
  result = fma(fma(-x, result, 1.0), result, result);
  return fma(fma(-x, result, 1.0), result, result);
}

#else

__device__ __forceinline__ acc_t power_of_two(acc_t x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ acc_t reciprocal(acc_t x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

#endif

// The square root, in float32 to 1 unit in the last place, without the subroutine that a correctly
// rounded one brings along.
__device__ __forceinline__ acc_t root(acc_t x) {
#if defined(GFGP_HOST) || defined(DTYPE_FLOAT64)
  return sqrt(x);
#else
  float result;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}
