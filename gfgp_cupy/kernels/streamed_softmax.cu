// The softmax of one window of any size, whose elements are read anew for each sum.
//
// As in softmax.cu, sums are taken relative to a reference element r, the window's maximum (its
// minimum where lam < 0), and terms that are no weights get a factor with which their sum does not
// overflow where differences do not. Sums are compensated, since windows may be of any size.

struct State {
  acc_t scale;          // lam log2(e)
  acc_t reference;      // r
  acc_t inverse_total;  // of the weights
  acc_t shift;          // the mean of x - r
};

__device__ __forceinline__ acc_t weight_of(acc_t x, const State& of) {
  return power_of_two(of.scale * (x - of.reference));
}

__device__ __forceinline__ State state_of(
    const Window& window, const Planes& planes, acc_t lam) {
  State result;
  result.scale = LOG2_E * lam;
  acc_t reference = widen(load(window.plane + window.h_begin * row_step(planes) +
                               window.w_begin * column_step(planes)));
  for_each_element(window, planes, [&](acc_t x) {
    if (lam < 0 ? x < reference : x > reference) reference = x;
  });
  result.reference = reference;
  CompensatedSum total, weighted;
  for_each_element(window, planes, [&](acc_t x) {
    const acc_t weight = weight_of(x, result);
    total.add(weight);
    weighted.add(weight * (planes.factor * (x - reference)));
  });
  result.inverse_total = reciprocal(total.total);
  result.shift = weighted.total * result.inverse_total * planes.taps;
  return result;
}

// y, in the two parts that softmax.cu tells of.
__device__ __forceinline__ acc_t output_of(
    const Window& window, const Planes& planes, const State& of) {
  const acc_t first = of.reference + of.shift;
  CompensatedSum weighted;
  for_each_element(window, planes, [&](acc_t x) {
    weighted.add(weight_of(x, of) * (planes.factor * (x - first)));
  });
  return first + weighted.total * of.inverse_total * planes.taps;
}

// The variance.
__device__ __forceinline__ acc_t sensitivity_of(
    const Window& window, const Planes& planes, const State& of) {
  CompensatedSum sum;
  for_each_element(window, planes, [&](acc_t x) {
    const acc_t deviation = (x - of.reference) - of.shift;
    // In this order: a weight of 0 must not meet an infinite square.
    sum.add(weight_of(x, of) * deviation * deviation);
  });
  return sum.total * of.inverse_total;
}

struct Message {
  acc_t number[NUMBERS];
};

__device__ __forceinline__ Message message_of(
    const Window& window, const Planes& planes, const State& of, acc_t grad) {
  return {of.reference, of.shift, grad * of.inverse_total};
}

__device__ __forceinline__ acc_t received(acc_t x, acc_t lam, const Message& message) {
  return received(x, lam, [&](int number) { return message.number[number]; });
}
