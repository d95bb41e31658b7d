// Pooling where the windows tile the plane: stride = kernel, no padding, height and width
// divisible by the kernel. Each window lives in the registers of one thread.
//
// This is what both memory formats have in common; disjoint_contiguous.cu or
// disjoint_channels_last.cu follows. A program holds one kernel: the backward pass's where a
// gradient is to be written. Macros: KERNEL_H, KERNEL_W; LAM_PER_WINDOW, whether lam varies inside
// a plane; WRITE_SPREAD; WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD.

// The kernels' tensors. What is read is not declared to be read alone: the compiler would ask for
// it only where it is used, past the barrier that loads are to be ahead of.
#define FORWARD_TENSORS                                                                           \
  const scalar_t* input, const acc_t* __restrict__ lam, scalar_t* output, scalar_t* spread
#define BACKWARD_TENSORS                                                                          \
  const scalar_t* grad_output, const scalar_t* input, const acc_t* __restrict__ lam,              \
      const acc_t* __restrict__ mean_grad, scalar_t* grad_input, acc_t* grad_lam
