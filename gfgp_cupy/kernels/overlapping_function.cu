// A window by itself of any window function: window_function.cu's for overlapping.cu, which asks
// for what max_ent.cu tells.
//
// Macros: KERNEL_*.

struct Bits {
  unsigned inside;
  __device__ __forceinline__ bool operator()(int tap) const { return inside >> tap & 1; }
};

struct State {
  acc_t x[TAPS];
  Bits bits;
  acc_t count;
  Theta theta;
  Summary summary;
};

__device__ __forceinline__ HeldWindow<Bits> window_of(const State& of) {
  return {of.x, of.bits, of.count};
}

__device__ __forceinline__ State state_of(const acc_t (&x)[TAPS], acc_t lam, unsigned inside) {
  State state;
  state.bits = {inside};
  state.count = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    state.x[tap] = x[tap];
    state.count += state.bits(tap) ? 1 : 0;
  }
  state.theta = theta_of(lam);
  state.summary = summary_of(window_of(state), state.theta);
  return state;
}

__device__ __forceinline__ acc_t output_of(const acc_t (&x)[TAPS], const State& of) {
  return output_of(of.summary, of.theta);
}

__device__ __forceinline__ acc_t sensitivity_of(const State& of) {
  return sensitivity_of(window_of(of), of.summary, of.theta);
}

// Number `number`, a constant, of what the window sends to its elements.
__device__ __forceinline__ acc_t statistic_of(const State& of, acc_t grad, int number) {
  return message_of(window_of(of), of.summary, of.theta, grad).number[number];
}

template <class Statistic>
__device__ __forceinline__ acc_t received(acc_t x, acc_t lam, const Statistic& statistic) {
  Message message;
#pragma unroll
  for (int k = 0; k < NUMBERS; ++k) message.number[k] = statistic(k);
  return received(x, message, theta_of(lam));
}
