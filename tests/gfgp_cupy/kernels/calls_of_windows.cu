// How often a window function calls for its window, whose elements one thread has: the numbers of
// calls, for each parameter, must not differ. Goes after a function's file.

struct CountedWindow {
  static constexpr bool IN_REGISTERS = false;
  const acc_t* x;
  int elements;
  acc_t* calls;

  __device__ acc_t count() const { return elements; }

  // Of another window it may hold.
  __device__ bool any(bool condition) const { return true; }

  template <class Term>
  __device__ acc_t sum(const Term& term) const {
    *calls += 1;
    acc_t result = 0;
    for (int k = 0; k < elements; ++k) result += term(x[k]);
    return result;
  }

  template <class Term>
  __device__ acc_t mean(const Term& term) const {
    return sum(term) / elements;
  }

  __device__ acc_t largest() const {
    *calls += 1;
    acc_t result = x[0];
    for (int k = 1; k < elements; ++k) result = max(result, x[k]);
    return result;
  }

  __device__ acc_t smallest() const {
    *calls += 1;
    acc_t result = x[0];
    for (int k = 1; k < elements; ++k) result = min(result, x[k]);
    return result;
  }
};

extern "C" __global__ void calls_of_windows(
    const acc_t* input, const acc_t* parameters, acc_t* calls, acc_t* results, long long windows,
    long long elements) {
  const int index = threadIdx.x;
  if (index >= windows) return;
  acc_t made = 0, x[8];
  for (int k = 0; k < elements; ++k) x[k] = load(input + index * elements + k);
  const CountedWindow window = {x, (int)elements, &made};
  const Theta theta = theta_of(load(parameters + index));
  const Summary summary = summary_of(window, theta);
  const acc_t sensitivity = sensitivity_of(window, summary, theta);
  const Message message = message_of(window, summary, theta, 1);
  store(calls + index, made);
  store(results + index, output_of(summary, theta) + sensitivity + message.number[0]);
}
