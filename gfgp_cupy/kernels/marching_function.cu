// Windows beside each other, each by itself, of any window function: window_function.cu's for
// marching_rows.cu and marching_channels.cu, which ask for what max_ent.cu tells.
//
// Macros: KERNEL_*.

// Nothing that is made of an element serves several windows.
#define SHARES 0

struct Parameter {
  acc_t lam;
  Theta theta;
};

__device__ __forceinline__ Parameter parameter(acc_t lam) { return {lam, theta_of(lam)}; }

// Nothing is sought before the others.
__device__ __forceinline__ acc_t reference_of(const acc_t (&x)[TAPS], acc_t lam) { return 0; }

template <int COUNT, class TakeWindow>
__device__ __forceinline__ void find_references(
    acc_t (&reference)[COUNT], acc_t lam, const TakeWindow& take_window) {
#pragma unroll
  for (int w = 0; w < COUNT; ++w) reference[w] = 0;
}

struct Present {
  bool element[TAPS];
  __device__ __forceinline__ bool operator()(int tap) const { return element[tap]; }
};

struct State {
  acc_t x[TAPS];
  Present present;
  acc_t count;
  Theta theta;
  Summary summary;
};

// What is made of half types' elements is often the same for all windows that they are in.
typedef HeldWindow<Present, sizeof(scalar_t) == 2 ? 16 : 9> Window;

__device__ __forceinline__ Window window_of(const State& of) {
  return {of.x, of.present, of.count};
}

__device__ __forceinline__ State state_about(
    acc_t reference, const acc_t (&x)[TAPS], const acc_t (&absent)[TAPS], const Parameter& of) {
  State state;
  state.count = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    state.x[tap] = x[tap];
    state.present.element[tap] = absent[tap] == 0;
    state.count += state.present(tap) ? 1 : 0;
  }
  state.theta = of.theta;
  state.summary = summary_of(window_of(state), of.theta);
  return state;
}

__device__ __forceinline__ acc_t output_of(const State& of) {
  return output_of(of.summary, of.theta);
}

__device__ __forceinline__ acc_t sensitivity_of(const State& of) {
  return sensitivity_of(window_of(of), of.summary, of.theta);
}

typedef Message Sent;

__device__ __forceinline__ Sent sent(const State& of, const Parameter& parameter, acc_t grad) {
  return message_of(window_of(of), of.summary, of.theta, grad);
}

__device__ __forceinline__ acc_t received(
    const State& of, const Sent& sent, int tap, acc_t others) {
  return others + received(of.x[tap], sent, of.theta);
}
