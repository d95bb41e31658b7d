// A window function from outside the package: y = theta times the mean of x^2.

#define NUMBERS 1  // 2 g theta / n

struct Theta {
  acc_t factor;
};

__device__ __forceinline__ Theta theta_of(acc_t factor) { return {factor}; }

struct Summary {
  acc_t mean;
};

template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  return {window.mean([](acc_t x) { return x * x; })};
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  return theta.factor * of.mean;
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  return of.mean;
}

struct Message {
  acc_t number[NUMBERS];
};

template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  return {2 * grad * theta.factor * reciprocal(window.count())};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  return message.number[0] * x;
}
