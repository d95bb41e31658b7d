struct State {
  acc_t lam, mean, part;
};

__device__ __forceinline__ State state_of(
    const Window& window, const Planes& planes, acc_t lam) {
  acc_t sum = 0, count = 0;
  for_each_element(window, planes, [&](acc_t x) {
    sum += x * x;
    count += 1;
  });
  return {lam, sum / count, 1 / count};
}

__device__ __forceinline__ acc_t output_of(
    const Window& window, const Planes& planes, const State& of) {
  return of.lam * of.mean;
}

__device__ __forceinline__ acc_t sensitivity_of(
    const Window& window, const Planes& planes, const State& of) {
  return of.mean;
}

struct Message {
  acc_t number[NUMBERS];
};

__device__ __forceinline__ Message message_of(
    const Window& window, const Planes& planes, const State& of, acc_t grad) {
  return {of.part, grad};
}

__device__ __forceinline__ acc_t received(acc_t x, acc_t lam, const Message& message) {
  return received(x, lam, [&](int number) { return message.number[number]; });
}
