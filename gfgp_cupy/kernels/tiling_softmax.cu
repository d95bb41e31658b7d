// The softmax of windows that tile a plane, by softmax.cu.
//
// Macros: those of disjoint.cu.

// Half types: where lam is negative, windows of -x are pooled with -lam, to -y. The reference is
// then the largest element, always; and no other derivative changes.
#define HALF_TYPE (sizeof(scalar_t) == 2)

__device__ __forceinline__ unsigned flip_of(acc_t lambda) {
#if defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16)
  return __float_as_uint(lambda) & SIGN_BIT;
#else
  return 0;
#endif
}

__device__ __forceinline__ acc_t flip(acc_t y, unsigned sign) {
#if defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16)
  return __uint_as_float(__float_as_uint(y) ^ sign);
#else
  return y;
#endif
}

// Of weights, where no more is wanted than y: makes sums of bfloat16 numbers that do not overflow.
#if defined(DTYPE_BFLOAT16)
#define POOLING_EXPONENT TAPS_LOG2
#else
#define POOLING_EXPONENT 0
#endif

// Without its sign in half types.
__device__ __forceinline__ acc_t flipped(acc_t lambda) {
  return HALF_TYPE ? fabs(lambda) : lambda;
}

// Of elements flipped in half types; `scale`, lam times log2(e), too.
template <int EXPONENT = 0>
__device__ __forceinline__ State own_softmax(const acc_t (&x)[TAPS], acc_t scale) {
  if (!HALF_TYPE) return softmax(x, scale);
  acc_t most = x[0];
#pragma unroll
  for (int tap = 1; tap < TAPS; ++tap) most = max(most, x[tap]);
  return softmax_from<EXPONENT>(most, x, scale);
}

// In a forward pass lam times log2(e).
__device__ __forceinline__ acc_t kept_of(acc_t lambda) {
  constexpr acc_t factor = WRITE_GRAD_INPUT || WRITE_GRAD_LAM ? 1 : LOG2_E;
  return factor * lambda;
}

// In a forward pass, of elements that were taken with flip_of(kept).
__device__ __forceinline__ State state_of(const acc_t (&x)[TAPS], acc_t kept) {
  return own_softmax<POOLING_EXPONENT>(x, flipped(kept));
}

__device__ __forceinline__ acc_t output_of(const acc_t (&x)[TAPS], const State& of, acc_t kept) {
  return flip(output_of(x, of), flip_of(kept));
}

// Replaces a window's elements by their gradients, plus `added` each, where `grad` is that of the
// window's output. Returns the window's part of lam's gradient. `lambda` is flipped, as elements
// are.
//
// The gradient of x is g/T e (1 + lam (x - y)), with e the weight and T their total.
__device__ __forceinline__ acc_t send_flipped_back(
    acc_t grad, acc_t lambda, acc_t added, acc_t (&x)[TAPS]) {
  const State of = own_softmax(x, LOG2_E * lambda);
  const acc_t most = grad * of.inverse_total;
  acc_t squares = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const acc_t deviation = of.deviation[tap] - of.shift;
    // In this order: where e is 0, lam (x - y) and the square may be infinite.
    const acc_t weighted = of.weight[tap] * deviation;
    squares = fma(weighted, deviation, squares);
    // Two instructions less; an element that is the reference is rounded once more.
    x[tap] = HALF_TYPE ? fma(most, fma(lambda, weighted, of.weight[tap]), added)
                       : slope(most * of.weight[tap], lambda, deviation) + added;
  }
  return grad * (squares * of.inverse_total);
}

__device__ __forceinline__ acc_t send_back(
    acc_t grad, acc_t kept, acc_t added, acc_t (&x)[TAPS]) {
  return send_flipped_back(grad, flipped(kept), added, x);
}
