// Max-Ent pooling as a window function: for the kernels that take any, after max_ent.cu.
//
// As in streamed_softmax.cu, sums are taken relative to the window's maximum r (its minimum where
// lam < 0), so that no weight exceeds 1, and the output is corrected by what its elements deviate
// from it.

struct Theta {
  acc_t lam;
  acc_t scale;  // lam log2(e)
};

__device__ __forceinline__ Theta theta_of(acc_t lam) { return {lam, LOG2_E * lam}; }

struct Summary {
  acc_t reference;      // r
  acc_t inverse_total;  // of the weights
  acc_t shift;          // the mean of x - r under the weights
  acc_t output;
};

__device__ __forceinline__ acc_t weight_of(acc_t x, acc_t reference, const Theta& theta) {
  return power_of_two(theta.scale * (x - reference));
}

// The mean under the weights of how far the elements are from `origin`.
template <class Elements>
__device__ __forceinline__ acc_t mean_distance(
    const Elements& window, const Summary& of, const Theta& theta, acc_t origin) {
  const acc_t mean = window.mean([&](acc_t x) {
    return weight_of(x, of.reference, theta) * (x - origin);
  });
  // Not to be joined with what it is added to: the output has the same bits whatever else a program
  // makes of this mean.
  return fma(mean * of.inverse_total, window.count(), (acc_t)0);
}

template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  Summary result;
  const acc_t least = window.smallest(), most = window.largest();
  const acc_t reference = theta.lam < 0 ? least : most;
  result.reference = reference;
  result.inverse_total =
      reciprocal(window.sum([&](acc_t x) { return weight_of(x, reference, theta); }));
  result.shift = mean_distance(window, result, theta, reference);
  // In the two parts that softmax.cu tells of.
  const acc_t first = reference + result.shift;
  result.output = first + mean_distance(window, result, theta, first);
  return result;
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  return of.output;
}

// The variance.
template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  const acc_t sum = window.sum([&](acc_t x) {
    const acc_t deviation = (x - of.reference) - of.shift;
    // In this order: a weight of 0 must not meet an infinite square.
    return weight_of(x, of.reference, theta) * deviation * deviation;
  });
  return sum * of.inverse_total;
}

struct Message {
  acc_t number[NUMBERS];  // those that max_ent.cu's received reads
};

template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  return {of.reference, of.shift, grad * of.inverse_total};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  return received(x, theta.lam, [&](int number) { return message.number[number]; });
}
