// Max-Ent pooling where the windows tile the plane: stride = kernel, no padding, height and width
// divisible by the kernel. Each window lives in the registers of one thread.
//
// This is what both memory formats have in common; disjoint_contiguous.cu or
// disjoint_channels_last.cu follows. A program holds one kernel: the backward pass's where a
// gradient is to be written. Macros: KERNEL_H, KERNEL_W; LAM_PER_WINDOW, whether lam varies inside
// a plane; WRITE_SPREAD; WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD.
//
// "Spread" is the square root of a window's variance: it has the range of the input, so it fits
// into as many bits where the variance might not.

// The kernels' tensors. What is read is not declared to be read alone: the compiler would ask for
// it only where it is used, past the barrier that loads are to be ahead of.
#define FORWARD_TENSORS                                                                           \
  const scalar_t* input, const acc_t* __restrict__ lam, scalar_t* output, scalar_t* spread
#define BACKWARD_TENSORS                                                                          \
  const scalar_t* grad_output, const scalar_t* input, const acc_t* __restrict__ lam,              \
      const acc_t* __restrict__ mean_grad, scalar_t* grad_input, acc_t* grad_lam

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

// What a window is computed with, lambda or lambda times a number: without its sign in half types.
__device__ __forceinline__ acc_t flipped(acc_t lambda) {
  return HALF_TYPE ? fabs(lambda) : lambda;
}

// The softmax of one window of the elements, flipped in half types; `scale`, too.
template <int EXPONENT = 0>
__device__ __forceinline__ Softmax own_softmax(const acc_t (&x)[TAPS], acc_t scale) {
  if (!HALF_TYPE) return softmax(x, scale);
  acc_t most = x[0];
#pragma unroll
  for (int tap = 1; tap < TAPS; ++tap) most = max(most, x[tap]);
  return softmax_from<EXPONENT>(most, x, scale);
}

// Replaces a window's elements by their gradients, plus `added` each, where `grad` is that of the
// window's output. Returns the window's part of lam's gradient.
//
// The gradient of x is g/T e (1 + lam (x - y)), with e the weight and T their total.
__device__ __forceinline__ acc_t send_back(
    acc_t grad, acc_t lambda, acc_t added, acc_t (&x)[TAPS]) {
  const Softmax of = own_softmax(x, LOG2_E * lambda);
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
