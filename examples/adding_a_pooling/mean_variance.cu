// Mean-variance pooling: the mean, and theta times the variance.

#define NUMBERS 3  // the mean, what an element gets anyway, what it gets for its distance from it

struct Theta {
  acc_t weight;
};

__device__ __forceinline__ Theta theta_of(acc_t weight) { return {weight}; }

struct Summary {
  acc_t mean, variance;
};

template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  const acc_t mean = window.mean([](acc_t x) { return x; });
  return {mean, window.mean([&](acc_t x) { return (x - mean) * (x - mean); })};
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  return fma(theta.weight, of.variance, of.mean);
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  return of.variance;
}

struct Message {
  acc_t number[NUMBERS];
};

template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  const acc_t level = grad * reciprocal(window.count());
  // NaN where the variance is, for an infinite element's neighbours, too.
  return {of.mean, fma((acc_t)0, of.variance, level), 2 * theta.weight * level};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  return fma(message.number[2], x - message.number[0], message.number[1]);
}
