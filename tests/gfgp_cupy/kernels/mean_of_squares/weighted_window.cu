struct Parameter {
  acc_t lam;
};

__device__ __forceinline__ Parameter parameter(acc_t lam) { return {lam}; }

// The window's first element, for no other reason than to see it given back.
__device__ __forceinline__ acc_t reference_of(const acc_t (&x)[TAPS], acc_t lam) { return x[0]; }

template <int COUNT, class TakeWindow>
__device__ __forceinline__ void find_references(
    acc_t (&reference)[COUNT], acc_t lam, const TakeWindow& take_window) {
  for (int w = 0; w < COUNT; ++w) {
    acc_t x[TAPS];
    take_window(x, w);
    reference[w] = reference_of(x, lam);
  }
}

struct State {
  acc_t x[TAPS];
  acc_t lam, mean, part;
};

__device__ __forceinline__ State state_about(
    acc_t reference, const acc_t (&x)[TAPS], const acc_t (&absent)[TAPS], const Parameter& of) {
  State state;
  acc_t sum = 0, count = 0;
  for (int tap = 0; tap < TAPS; ++tap) {
    state.x[tap] = x[tap];
    if (absent[tap] < 0) continue;
    sum += x[tap] * x[tap];
    count += 1;
  }
  state.lam = of.lam;
  state.mean = sum / count + (reference - x[0]);
  state.part = 1 / count;
  return state;
}

__device__ __forceinline__ acc_t output_of(const State& of) { return of.lam * of.mean; }

__device__ __forceinline__ acc_t sensitivity_of(const State& of) { return of.mean; }

struct Sent {
  acc_t factor;
};

__device__ __forceinline__ Sent sent(const State& of, const Parameter& parameter, acc_t grad) {
  return {2 * parameter.lam * of.part * grad};
}

__device__ __forceinline__ acc_t received(
    const State& of, const Sent& sent, int tap, acc_t others) {
  return others + sent.factor * of.x[tap];
}
