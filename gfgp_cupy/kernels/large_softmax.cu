// The softmax of one window of more elements than softmax.cu takes, held in registers, by itself.
//
// As there, relative to the window's maximum (minimum where lam < 0). Elements outside the plane
// repeat one inside. Those of a column that is outside have the weight 0, and what is summed is
// summed row by row, without the rows that are outside: so no element has to be chosen by itself.
//
// Macros: KERNEL_*, WRITE_SPREAD.

// Weights of half types are so many times smaller, that is 2^-TAPS_LOG2, and so are terms that are
// no weights: sums do not overflow where terms do not.
constexpr int TAPS_LOG2 = log2_ceil(TAPS);
#define FACTOR ((acc_t)1 / (1 << TAPS_LOG2))
#define SMALL_WEIGHTS (sizeof(scalar_t) == 2)

struct State {
  acc_t weight[TAPS];   // 2^(scale (x - r)), scale = lam log2(e); 0 in columns outside the plane
  const acc_t (&x)[TAPS];
  Inside inside;
  acc_t reference;      // r
  acc_t inverse_total;  // of the weights
  acc_t shift;          // the mean of x - r, to a few roundings
};

// Of term(tap), 0 in columns outside the plane, over the rows inside it.
template <class Term>
__device__ __forceinline__ acc_t sum_by_rows(const Inside& inside, const Term& term) {
  acc_t sum = 0;
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
    acc_t row = term(i * KERNEL_W);
#pragma unroll
    for (int j = 1; j < KERNEL_W; ++j) row += term(i * KERNEL_W + j);
    sum += inside.rows >> i & 1 ? row : 0;
  }
  return sum;
}

__device__ __forceinline__ State state_of(const acc_t (&x)[TAPS], acc_t lam, const Inside& inside) {
  const acc_t scale = LOG2_E * lam;
  acc_t least = x[0], most = x[0];
#pragma unroll
  for (int tap = 1; tap < TAPS; ++tap) {
    least = min(least, x[tap]);
    most = max(most, x[tap]);
  }
  State result = {{}, x, inside};
  const acc_t reference = scale < 0 ? least : most;
#pragma unroll
  for (int j = 0; j < KERNEL_W; ++j) {
    const acc_t own = SMALL_WEIGHTS ? -TAPS_LOG2 : 0;
    const acc_t exponent = inside.columns >> j & 1 ? own : -(acc_t)__int_as_float(0x7f800000);
#pragma unroll
    for (int i = 0; i < KERNEL_H; ++i) {
      const int tap = i * KERNEL_W + j;
      result.weight[tap] = power_of_two(fma(scale, x[tap] - reference, exponent));
    }
  }
  const acc_t factor = SMALL_WEIGHTS ? 1 : FACTOR;
  result.reference = reference;
  result.inverse_total =
      reciprocal(sum_by_rows(inside, [&](int tap) { return result.weight[tap]; }));
  const acc_t weighted = sum_by_rows(
      inside, [&](int tap) { return result.weight[tap] * (factor * (x[tap] - reference)); });
  result.shift = weighted * result.inverse_total * (1 / factor);
  return result;
}

// What rounding made of r + shift.
__device__ __forceinline__ acc_t rounded_mean(const State& of) { return of.reference + of.shift; }

// The mean of what the elements deviate from that.
__device__ __forceinline__ acc_t rest_of_mean(const State& of) {
  const acc_t first = rounded_mean(of);
  const acc_t weighted = sum_by_rows(of.inside, [&](int tap) {
    return of.weight[tap] * fma(FACTOR, of.x[tap], -FACTOR * first);
  });
  return weighted * of.inverse_total * (1 / FACTOR);
}

// In the two parts that softmax.cu tells of.
__device__ __forceinline__ acc_t output_of(const acc_t (&x)[TAPS], const State& of) {
  if (SMALL_WEIGHTS) return rounded_mean(of);
  return rounded_mean(of) + rest_of_mean(of);
}

// The variance. Beside float32's output from differences that it is made of, too: those from r,
// kept for all elements beside x and weights, are more than there are registers.
__device__ __forceinline__ acc_t sensitivity_of(const State& of) {
  constexpr bool beside_output = WRITE_SPREAD && !SMALL_WEIGHTS;
  const acc_t origin = beside_output ? rounded_mean(of) : of.reference;
  const acc_t mean = beside_output ? rest_of_mean(of) : of.shift;
  const acc_t sum = sum_by_rows(of.inside, [&](int tap) {
    const acc_t deviation = of.x[tap] - origin - mean;
    // In this order: a weight of 0 must not meet an infinite square.
    return of.weight[tap] * deviation * deviation;
  });
  return sum * of.inverse_total;
}

// Number `number`, a constant, of the window's statistics.
__device__ __forceinline__ acc_t statistic_of(const State& of, acc_t grad, int number) {
  const acc_t own = SMALL_WEIGHTS ? of.inverse_total * FACTOR : of.inverse_total;
  return number == 0 ? of.reference : number == 1 ? of.shift : grad * own;
}
