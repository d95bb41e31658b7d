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

// The kernels' tensors.
#define FORWARD_TENSORS                                                                           \
  const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,                              \
      scalar_t* __restrict__ output, scalar_t* __restrict__ spread
#define BACKWARD_TENSORS                                                                          \
  const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,                   \
      const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,                         \
      scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam

// Replaces a window's elements by their gradients, plus `added` each, where `grad` is that of the
// window's output. Returns the window's part of lam's gradient.
__device__ __forceinline__ acc_t send_back(
    acc_t grad, acc_t lambda, acc_t added, acc_t (&x)[TAPS]) {
  const Softmax of = softmax(x, LOG2_E * lambda);
  const acc_t of_lam = WRITE_GRAD_LAM ? grad * variance(of) : 0;
  const acc_t most = grad * of.inverse_total;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const acc_t sent = most * of.weight[tap];
    x[tap] = slope(sent, lambda, of.deviation[tap] - of.shift) + added;
  }
  return of_lam;
}
