// Gaussian pooling as a window function: the mean, and theta times the standard deviation, of which
// the square is at least CONSTANT. Where the variance is less, the deviation is a constant.

#define NUMBERS 3  // the mean; what an element gets for its distance from it; what it gets anyway

struct Theta {
  acc_t weight;
};

__device__ __forceinline__ Theta theta_of(acc_t weight) { return {weight}; }

// The mean in two parts: what rounding made of it, and the mean of what the elements are off that,
// which does not show beside the distances of half types. Of these, windows vary by far more than
// the rounding of their mean, or their elements are equal and what seems to vary is that rounding.
struct Summary {
  acc_t mean, rest, deviation;
  bool varies;  // whether the deviation does
};

template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  const acc_t mean = window.mean([](acc_t x) { return x; });
  const acc_t rest = sizeof(scalar_t) == 2 ? 0 : window.mean([&](acc_t x) { return x - mean; });
  const acc_t variance = window.mean([&](acc_t x) {
    const acc_t distance = (x - mean) - rest;
    return distance * distance;
  });
  acc_t least = CONSTANT;
  if (sizeof(scalar_t) == 2) {
    const acc_t rounding = (acc_t)9.5367431640625e-7 * mean;  // 2^-20 of it
    least = fmax(least, rounding * rounding);
  }
  const bool varies = !(variance < least);  // NaN varies
  return {mean, rest, root(varies ? variance : CONSTANT), varies};
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  return of.mean + fma(theta.weight, of.deviation, of.rest);
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  return of.deviation;
}

struct Message {
  acc_t number[NUMBERS];
};

// g / n (1 + theta (x - mean) / deviation).
template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  const acc_t level = grad * reciprocal(window.count());
  const acc_t slope = of.varies ? level * quotient(theta.weight, of.deviation) : 0;
  return {of.mean, slope, fma(-slope, of.rest, level)};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  return fma(message.number[1], x - message.number[0], message.number[2]);
}
