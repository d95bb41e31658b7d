// The softmax of one window held in registers.
//
// Macros: KERNEL_*, STRIDE_*, LAM_PER_WINDOW.

#define TAPS (KERNEL_H * KERNEL_W)
#define LOG2_E ((acc_t)1.4426950408889634074)

// Left alone, the compiler spills a few registers in any type, for the reason that element.cu names;
// but not those of the most common windows, which thus keep the room for more blocks.
#if KERNEL_H != KERNEL_W || TAPS > 9 || STRIDE_H < 2 || STRIDE_W < 2 || LAM_PER_WINDOW
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, 1)
#endif

// Relative to a reference element r, the window's maximum (minimum where lam < 0): no weight
// exceeds 1, and the mean cannot leave the window's range.
struct Softmax {
  acc_t weight[TAPS];  // 2^(scale (x - r)), scale = lam log2(e); 0 outside the plane
  acc_t reference;     // r
  acc_t inverse_total;
  acc_t mean;
};

#define ALL_INSIDE 0xffffffffu

// `inside` has bit i for each element x[i] that takes part (at least one does).
__device__ __forceinline__ Softmax softmax(
    const acc_t (&x)[TAPS], acc_t scale, unsigned inside = ALL_INSIDE) {
  Softmax result;
  const acc_t infinity = (acc_t)__int_as_float(0x7f800000);
  acc_t reference = scale < 0 ? infinity : -infinity;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    if (inside >> tap & 1) {
      reference = scale < 0 ? min(reference, x[tap]) : max(reference, x[tap]);
    }
  }
  acc_t total = 0, weighted = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const bool takes_part = inside >> tap & 1;
    const acc_t deviation = takes_part ? x[tap] - reference : 0;
    const acc_t weight = takes_part ? power_of_two(scale * deviation) : 0;
    result.weight[tap] = weight;
    total += weight;
    weighted += weight * deviation;
  }
  result.reference = reference;
  result.inverse_total = reciprocal(total);
  result.mean = reference + weighted * result.inverse_total;
  return result;
}

__device__ __forceinline__ acc_t variance(const acc_t (&x)[TAPS], const Softmax& of) {
  acc_t sum = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const acc_t deviation = x[tap] - of.mean;
    sum += of.weight[tap] * deviation * deviation;
  }
  return sum * of.inverse_total;
}
