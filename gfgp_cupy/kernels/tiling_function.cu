// A window function of windows that tile a plane: window_function.cu's for disjoint.cu, which asks
// for what max_ent.cu tells.
//
// Macros: those of disjoint.cu.

// Left alone, the compiler spills a register on some GPUs to make room for a sixth block, or takes,
// forward, of few elements, twice the registers that it needs.
#if defined(MANY_REGISTERS)
#undef BOUNDS
#define FEW_REGISTERS (TAPS <= 4 && !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM)
#define WANTED_BLOCKS (sizeof(acc_t) == 8 ? 1 : FEW_REGISTERS ? 4 : 2)
#define BOUNDS(threads) __launch_bounds__(threads, WANTED_BLOCKS)
#elif !CHANNELS_LAST && defined(DTYPE_FLOAT32) && !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, 5)
#endif

struct Whole {
  __device__ __forceinline__ bool operator()(int tap) const { return true; }
};

#define WINDOW_OF(x) (HeldWindow<Whole>{x, Whole(), TAPS})

struct State {
  Summary summary;
  acc_t sensitivity;
};

__device__ __forceinline__ acc_t kept_of(acc_t lam) { return lam; }

__device__ __forceinline__ unsigned flip_of(acc_t kept) { return 0; }

__device__ __forceinline__ State state_of(const acc_t (&x)[TAPS], acc_t kept) {
  const Theta theta = theta_of(kept);
  const auto window = WINDOW_OF(x);
  const Summary summary = summary_of(window, theta);
  return {summary, WRITE_SPREAD ? sensitivity_of(window, summary, theta) : 0};
}

__device__ __forceinline__ acc_t output_of(const acc_t (&x)[TAPS], const State& of, acc_t kept) {
  return output_of(of.summary, theta_of(kept));
}

__device__ __forceinline__ acc_t sensitivity_of(const State& of) { return of.sensitivity; }

// Replaces a window's elements by their gradients, plus `added` each, where `grad` is that of the
// window's output. Returns the window's part of lam's gradient.
__device__ __forceinline__ acc_t send_back(
    acc_t grad, acc_t kept, acc_t added, acc_t (&x)[TAPS]) {
  const Theta theta = theta_of(kept);
  const auto window = WINDOW_OF(x);
  const Summary summary = summary_of(window, theta);
  const acc_t part = WRITE_GRAD_LAM ? grad * sensitivity_of(window, summary, theta) : 0;
  const Message message = message_of(window, summary, theta, grad);
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) x[tap] = received(x[tap], message, theta) + added;
  return part;
}
