// A window function of windows of any size, whose elements are read anew for each sum:
// window_function.cu's for general.cu and volume.cu, which ask for what max_ent.cu tells.

struct StreamedWindow {
  static constexpr bool IN_REGISTERS = false;
  const Window& window;
  const Planes& planes;

  __device__ __forceinline__ acc_t count() const {
    return (acc_t)elements_of(window);
  }

  __device__ __forceinline__ bool any(bool condition) const { return condition; }

  template <class Term>
  __device__ __forceinline__ acc_t sum(const Term& term) const {
    CompensatedSum sum;
    for_each_element(window, planes, [&](acc_t x) { sum.add(term(x)); });
    return sum.total;
  }

  template <class Term>
  __device__ __forceinline__ acc_t mean(const Term& term) const {
    const acc_t scaled = sum([&](acc_t x) { return planes.factor * term(x); });
    return scaled * (planes.taps * reciprocal(count()));
  }

  __device__ __forceinline__ acc_t largest() const {
    acc_t result = -(acc_t)__int_as_float(0x7f800000);
    for_each_element(window, planes, [&](acc_t x) { result = max(result, x); });
    return result;
  }

  __device__ __forceinline__ acc_t smallest() const {
    acc_t result = (acc_t)__int_as_float(0x7f800000);
    for_each_element(window, planes, [&](acc_t x) { result = min(result, x); });
    return result;
  }
};

struct State {
  Theta theta;
  Summary summary;
};

__device__ __forceinline__ State state_of(
    const Window& window, const Planes& planes, acc_t lam) {
  const Theta theta = theta_of(lam);
  return {theta, summary_of(StreamedWindow{window, planes}, theta)};
}

__device__ __forceinline__ acc_t output_of(
    const Window& window, const Planes& planes, const State& of) {
  return output_of(of.summary, of.theta);
}

__device__ __forceinline__ acc_t sensitivity_of(
    const Window& window, const Planes& planes, const State& of) {
  return sensitivity_of(StreamedWindow{window, planes}, of.summary, of.theta);
}

__device__ __forceinline__ Message message_of(
    const Window& window, const Planes& planes, const State& of, acc_t grad) {
  return message_of(StreamedWindow{window, planes}, of.summary, of.theta, grad);
}

__device__ __forceinline__ acc_t received(acc_t x, acc_t lam, const Message& message) {
  return received(x, message, theta_of(lam));
}
