// The softmax of one window held in registers, by itself.
//
// Macros: KERNEL_*, STRIDE_*, LAM_PER_WINDOW.

// Left alone, the compiler spills a few registers in any type, for the reason that element.cu
// names; but not those of the most common windows (and of more channels than one thread takes),
// which thus keep the room for more blocks.
#if KERNEL_H != KERNEL_W || TAPS > 9 || STRIDE_H < 2 || STRIDE_W < 2 || LAM_PER_WINDOW || \
    (CHANNELS_LAST && LANES == 1)
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, 1)
#endif

constexpr int TAPS_LOG2 = log2_ceil(TAPS);

// Sums of TAPS numbers times this do not overflow where the numbers do not. Those of float16 are
// far from it.
#if defined(DTYPE_FLOAT16)
#define FACTOR ((acc_t)1)
#else
#define FACTOR ((acc_t)1 / (1 << TAPS_LOG2))
#endif

// Relative to a reference element r, the window's maximum (minimum where lam < 0): no weight
// exceeds 1, and differences from r have one sign.
struct State {
  acc_t deviation[TAPS];  // x - r
  acc_t weight[TAPS];     // 2^(scale (x - r)), scale = lam log2(e); 0 outside the plane
  acc_t reference;        // r
  acc_t inverse_total;    // of the weights
  acc_t shift;            // the mean of x - r, to a few roundings
};

#define ALL_INSIDE 0xffffffffu

// Of a window of which the reference is known. `inside` has bit i for each element x[i] that takes
// part (at least one does). Weights are 2^EXPONENT times smaller: with TAPS_LOG2, they are FACTOR.
template <int EXPONENT = 0>
__device__ __forceinline__ State softmax_from(
    acc_t reference, const acc_t (&x)[TAPS], acc_t scale, unsigned inside = ALL_INSIDE) {
  constexpr acc_t factor = EXPONENT > 0 ? 1 : FACTOR;
  State result;
  acc_t weighted = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const bool takes_part = inside >> tap & 1;
    const acc_t deviation = takes_part ? x[tap] - reference : 0;
    result.deviation[tap] = deviation;
    const acc_t exponent = EXPONENT > 0 ? fma(scale, deviation, -EXPONENT) : scale * deviation;
    result.weight[tap] = takes_part ? power_of_two(exponent) : 0;
    weighted = fma(result.weight[tap], factor * deviation, weighted);
  }
  result.reference = reference;
  result.inverse_total = reciprocal(sum_of(result.weight));
  result.shift = weighted * result.inverse_total * (1 / factor);
  return result;
}

__device__ __forceinline__ State softmax(
    const acc_t (&x)[TAPS], acc_t scale, unsigned inside = ALL_INSIDE) {
  const acc_t infinity = (acc_t)__int_as_float(0x7f800000);
  // Both extremes and one choice take fewer instructions than a choice for each element.
  acc_t least = inside & 1 ? x[0] : infinity, most = inside & 1 ? x[0] : -infinity;
#pragma unroll
  for (int tap = 1; tap < TAPS; ++tap) {
    if (inside >> tap & 1) {
      least = min(least, x[tap]);
      most = max(most, x[tap]);
    }
  }
  return softmax_from(scale < 0 ? least : most, x, scale, inside);
}

__device__ __forceinline__ State state_of(const acc_t (&x)[TAPS], acc_t lam, unsigned inside) {
  return softmax(x, LOG2_E * lam, inside);
}

// y: what rounding made of r + shift, and the mean of what the elements deviate from that. The
// second part is small, so its own rounding does not show, nor what the sums behind shift lost; and
// it does not lead out of the window's range.
__device__ __forceinline__ acc_t output_of(const acc_t (&x)[TAPS], const State& of) {
  const acc_t first = of.reference + of.shift;
  if (sizeof(scalar_t) == 2) return first;  // far closer than the 16 bits that it is rounded to
  acc_t weighted = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    weighted = fma(of.weight[tap], fma(FACTOR, x[tap], -FACTOR * first), weighted);
  }
  return first + weighted * of.inverse_total * (1 / FACTOR);
}

// The variance.
__device__ __forceinline__ acc_t sensitivity_of(const State& of) {
  acc_t sum = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const acc_t deviation = of.deviation[tap] - of.shift;
    // In this order: a weight of 0 must not meet an infinite square.
    sum += of.weight[tap] * deviation * deviation;
  }
  return sum * of.inverse_total;
}

// Number `number`, a constant, of the window's statistics.
__device__ __forceinline__ acc_t statistic_of(const State& of, acc_t grad, int number) {
  return number == 0 ? of.reference : number == 1 ? of.shift : grad * of.inverse_total;
}
