__device__ __forceinline__ acc_t kept_of(acc_t lam) { return 2 * lam; }

// Half types: elements of either sign, whichever.
__device__ __forceinline__ unsigned flip_of(acc_t kept) {
  return sizeof(scalar_t) == 2 && !WRITE_GRAD_INPUT ? SIGN_BIT : 0;
}

__device__ __forceinline__ State state_of(const acc_t (&x)[TAPS], acc_t kept) {
  return state_of(x, kept / 2, 0xffffffffu);
}

__device__ __forceinline__ acc_t output_of(const acc_t (&x)[TAPS], const State& of, acc_t kept) {
  return output_of(x, of);
}

__device__ __forceinline__ acc_t send_back(
    acc_t grad, acc_t kept, acc_t added, acc_t (&x)[TAPS]) {
  const State of = state_of(x, kept);
  for (int tap = 0; tap < TAPS; ++tap) x[tap] = kept * x[tap] * of.part * grad + added;
  return grad * of.mean;
}
