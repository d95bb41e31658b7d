// Mixed max-average pooling as a window function: the largest element, less (1 - theta) of how far
// the mean is below it. The largest element's gradient is shared evenly among those that equal it.

#define NUMBERS 3  // the largest element; what each element gets; what those that equal it also get

struct Theta {
  acc_t of_largest, of_mean;
};

__device__ __forceinline__ Theta theta_of(acc_t proportion) { return {proportion, 1 - proportion}; }

struct Summary {
  acc_t largest;
  acc_t half_gap;  // from the mean to it, halved: the whole may overflow; NaN if it is not finite
};

template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  const acc_t largest = window.largest(), half = (acc_t)0.5 * largest;
  const acc_t half_gap = window.mean([&](acc_t x) { return fma((acc_t)-0.5, x, half); });
  return {largest, half_gap + (half_gap - half_gap)};
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  return fma(-2 * theta.of_mean, of.half_gap, of.largest);
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  return 2 * of.half_gap;
}

struct Message {
  acc_t number[NUMBERS];
};

template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  const acc_t equal = window.sum([&](acc_t x) { return x == of.largest ? (acc_t)1 : (acc_t)0; });
  const acc_t level = grad * theta.of_mean * reciprocal(window.count());
  const acc_t share = grad * theta.of_largest * reciprocal(equal);
  return {of.largest, fma((acc_t)0, of.half_gap, level), share};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  return message.number[1] + (x == message.number[0] ? message.number[2] : 0);
}
