// AdaPool as a window function: theta times the mean under weights e^s, s how like the plain mean m
// an element is, 2 x m / (x^2 + m^2), and (1 - theta) times that under weights e^(x - r), r the
// largest element. The first mean is m and what its elements are off m; the second is a centre and
// what they are off that. Those that have a weight are near r, however far from m: so the centre is
// r; but m, except in half types, where that is less than 1 from r, for the mean may be much less
// than r.

#define MANY_REGISTERS
#define NUMBERS 7
#define LOG2_E ((acc_t)1.4426950408889634074)

struct Theta {
  acc_t by_likeness, by_size;
};

__device__ __forceinline__ Theta theta_of(acc_t beta) { return {beta, 1 - beta}; }

// A mean under weights, less a centre, and one over their sum.
struct Mean {
  acc_t inverse_total, shift;
};

struct Summary {
  acc_t mean, largest;
  Mean by_likeness, by_size;
  acc_t slope;  // of the mean by likeness by m
};

// By way of the quotient of the smaller of x and m by the larger, whose square is in range.
struct Likeness {
  acc_t four_over_larger, quotient_of_both;  // quarters, for one over the largest numbers is 0
  bool x_is_larger;

  __device__ __forceinline__ Likeness(acc_t x, acc_t mean) {
    x_is_larger = fabs(x) > fabs(mean);
    const acc_t larger = x_is_larger ? x : mean;
    const bool counts = !(fabs(larger) < 4 * SMALLEST);  // one over a smaller one is infinite
    four_over_larger = counts ? reciprocal((acc_t)0.25 * larger) : (acc_t)0;
    quotient_of_both = by_larger(x_is_larger ? mean : x);
  }

  // 0 where both are as good as 0.
  __device__ __forceinline__ acc_t by_larger(acc_t number) const {
    return (acc_t)0.25 * number * four_over_larger;
  }

  __device__ __forceinline__ acc_t of_squares() const {
    return reciprocal(fma(quotient_of_both, quotient_of_both, (acc_t)1));
  }

  __device__ __forceinline__ acc_t weight() const {
    return power_of_two((2 * LOG2_E) * quotient_of_both * of_squares());
  }

  // distance ds/dx, or distance ds/dm. By the larger one, distances are in range.
  __device__ __forceinline__ acc_t slope(acc_t distance, bool by_x) const {
    const acc_t inverse = of_squares(), square = quotient_of_both * quotient_of_both;
    const acc_t by_smaller = 2 * by_larger(distance) * (1 - square) * inverse * inverse;
    return by_x == x_is_larger ? -quotient_of_both * by_smaller : by_smaller;
  }
};

__device__ __forceinline__ acc_t weight_by_size(acc_t x, acc_t largest) {
  return power_of_two(LOG2_E * (x - largest));
}

// Made again where it is used: kernels that hold many windows have no register to keep it in. What
// the choice is good for does not show in half types.
__device__ __forceinline__ acc_t centre_of(acc_t mean, acc_t largest) {
  return sizeof(scalar_t) > 2 && fabs(largest - mean) < 1 ? mean : largest;
}

template <class Elements, class Weight>
__device__ __forceinline__ Mean mean_under(
    const Elements& window, acc_t centre, const Weight& weight) {
  const acc_t inverse = reciprocal(window.sum(weight));
  return {inverse, window.sum([&](acc_t x) { return inverse * weight(x) * (x - centre); })};
}

template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  Summary result;
  const acc_t mean = result.mean = window.mean([](acc_t x) { return x; });
  const Mean of = result.by_likeness =
      mean_under(window, mean, [&](acc_t x) { return Likeness(x, mean).weight(); });
  result.slope = of.inverse_total * window.sum([&](acc_t x) {
    const Likeness likeness(x, mean);
    return likeness.weight() * likeness.slope((x - mean) - of.shift, false);
  });
  const acc_t largest = result.largest = window.largest();
  const acc_t centre = centre_of(mean, largest);
  result.by_size =
      mean_under(window, centre, [&](acc_t x) { return weight_by_size(x, largest); });
  return result;
}

// The mean by likeness less that by size, of nearly equal elements to the last digits.
__device__ __forceinline__ acc_t difference_of(const Summary& of) {
  return (of.by_likeness.shift - of.by_size.shift) + (of.mean - centre_of(of.mean, of.largest));
}

// From the mean that counts more: of one that counts for nothing it has no rounding errors.
__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  const acc_t difference = difference_of(of);
  return theta.by_likeness < theta.by_size
      ? centre_of(of.mean, of.largest) + fma(theta.by_likeness, difference, of.by_size.shift)
      : of.mean + fma(-theta.by_size, difference, of.by_likeness.shift);
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  return difference_of(of);
}

struct Message {
  acc_t number[NUMBERS];
};

template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  const acc_t likeness = grad * theta.by_likeness, size = grad * theta.by_size;
  return {
      of.mean, of.largest, likeness * of.slope * reciprocal(window.count()),
      likeness * of.by_likeness.inverse_total, of.by_likeness.shift,
      size * of.by_size.inverse_total,
      of.by_size.shift + (centre_of(of.mean, of.largest) - of.largest)};
}

// Of each mean p (1 + (x - y) ds/dx), ds/dx = 1 by size; by likeness what comes by way of m, too.
__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  const acc_t* number = message.number;
  const acc_t distance = x - number[0];
  const Likeness likeness(x, number[0]);
  const acc_t weight = number[3] * likeness.weight();
  const acc_t by_likeness = fma(weight, likeness.slope(distance - number[4], true), weight);
  const acc_t size = number[5] * weight_by_size(x, number[1]);
  return by_likeness + number[2] + fma(size, (x - number[1]) - number[6], size);
}
