// Log-sum-exp pooling as a window function: (1/theta) log mean e^(theta x), relative to a centre.

#define NUMBERS 2  // the centre; what an element there gets

typedef Exponent Theta;

__device__ __forceinline__ Theta theta_of(acc_t lam) { return exponent_of(lam); }

struct Summary {
  acc_t centre;
  LogMeanExp from_centre;
};

// Relative to the mean, or to the extreme that has the largest weight: for every window and theta.
template <class Elements>
__device__ __forceinline__ Summary relative_summary_of(
    const Elements& window, const Theta& theta) {
  const acc_t least = window.smallest(), most = window.largest();
  const acc_t finite = (least - least) + (most - most);  // 0 or NaN
  acc_t centre = theta.theta < 0 ? least : most;
  const bool from_mean = may_be_from_mean(most - least, theta);
  if (window.any(from_mean)) {
    const acc_t mean = window.mean([](acc_t x) { return x; });
    if (from_mean) centre = between(mean, least, most);
  }
  centre += finite;
  return {centre, log_mean_exp(window, [&](acc_t x) { return x - centre; }, theta)};
}

// Half types: relative to nothing, which windows beside each other share, is what most need.
template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
#if defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16)
  // (NaN of what is not finite.)
  Summary result = {0, log_mean_exp(window, [](acc_t x) { return fma(0, x, x); }, theta)};
  const bool holds = is_moderate(result.from_centre.total);
  if (window.any(!holds)) {
    const Summary relative = relative_summary_of(window, theta);
    if (!holds) result = relative;
  }
  return result;
#else
  return relative_summary_of(window, theta);
#endif
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  return of.centre + of.from_centre.shift;
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  const auto deviation = [&](acc_t x) { return x - of.centre; };
  return derivative_by_theta(window, deviation, of.from_centre, theta);
}

struct Message {
  acc_t number[NUMBERS];
};

// g times the element's weight over the sum of the weights.
template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  return {of.centre, grad * quotient(1, window.count() * of.from_centre.total)};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  return message.number[1] * weight_of(x - message.number[0], theta);
}
