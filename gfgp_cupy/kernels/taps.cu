// The elements of one window, as many as a thread holds in registers.
//
// Macros: KERNEL_*.

#if defined(KERNEL_D)
#define TAPS (KERNEL_D * KERNEL_H * KERNEL_W)
#else
#define TAPS (KERNEL_H * KERNEL_W)
#endif

// The least k with 2^k >= count.
constexpr int log2_ceil(int count) { return count < 2 ? 0 : 1 + log2_ceil((count + 1) / 2); }

// In pairs: a term is rounded as often as TAPS can be halved, not TAPS times.
__device__ __forceinline__ acc_t sum_of(const acc_t (&terms)[TAPS]) {
  acc_t sum[TAPS];
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) sum[tap] = terms[tap];
#pragma unroll
  for (int step = 1; step < TAPS; step *= 2) {
#pragma unroll
    for (int tap = 0; tap + step < TAPS; tap += 2 * step) sum[tap] += sum[tap + step];
  }
  return sum[0];
}
