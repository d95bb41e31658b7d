// Generalised-mean pooling as a window function: the centre times the exponential of
// (1/theta) log mean e^(theta d), where d is the logarithm of an element over the centre. Elements
// below CONSTANT count as that, and get nothing.

#define MANY_REGISTERS
#define NUMBERS 3  // the centre, in two numbers (see Ratio, Logarithm); what an element there gets

typedef Exponent Theta;

__device__ __forceinline__ Theta theta_of(acc_t p) { return exponent_of(p); }

__device__ __forceinline__ acc_t at_least(acc_t x) { return x < CONSTANT ? CONSTANT : x; }

struct Message {
  acc_t number[NUMBERS];
};

#if defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16)

// The logarithm to base 2, a whole number and one from -1/2 to 1/2: of two such the whole numbers
// are subtracted exactly. It is of the element alone, so windows beside each other share it.
struct Logarithm {
  acc_t whole, part;
};

__device__ __forceinline__ Logarithm logarithm_of(acc_t x) {
  const int bits = __float_as_int(x), exponent = (bits - 0x3f3504f3) & ~0x7fffff;
  // The exponent is the last bits of a number whose first are 1.5 * 2^23.
  const acc_t whole = __int_as_float(0x4b400000 + (exponent >> 23)) - 12582912;
  return {whole, logarithm(__int_as_float(bits - exponent))};
}

// The logarithm of x / y to base 2.
__device__ __forceinline__ acc_t difference(const Logarithm& of_x, const Logarithm& of_y) {
  return (of_x.whole - of_y.whole) + (of_x.part - of_y.part);
}

// The least |theta| for powers relative to nothing: the output's relative error is that of the
// mean's logarithm, over theta.
#define LEAST_POWER ((acc_t)0.125)

struct Summary {
  Logarithm centre, of_output;
  acc_t output, slope;  // of the output, by an element at the centre
};

// By the elements' logarithms over a centre: for every window and theta.
template <class Elements>
__device__ __forceinline__ Summary relative_summary_of(
    const Elements& window, const Theta& theta) {
  const acc_t finite = window.sum([](acc_t x) { return 0 * x; });  // 0 or NaN
  const acc_t from = at_least(window.smallest()), to = at_least(window.largest());
  acc_t centre = theta.theta < 0 ? from : to;
  const acc_t range = LN_2 * difference(logarithm_of(to), logarithm_of(from));
  const bool from_mean = may_be_from_mean(range, theta);
  if (window.any(from_mean)) {
    acc_t mean = between(window.mean(at_least), from, to);
    // Near theta = 0 the result is near the geometric mean, perhaps far from this one.
    const bool near = from_mean && fabs(theta.theta) < (acc_t)0.5;
    if (window.any(near)) {
      const Logarithm of_mean = logarithm_of(mean);
      const acc_t shift =
          window.mean([&](acc_t x) { return difference(logarithm_of(at_least(x)), of_mean); });
      if (near) mean *= power_of_two(shift);
    }
    if (from_mean) centre = mean;
  }
  const Logarithm of_centre = logarithm_of(centre);
  const auto deviation = [&](acc_t x) {
    return fma(LN_2, difference(logarithm_of(at_least(x)), of_centre), finite);
  };
  const LogMeanExp of = log_mean_exp(window, deviation, theta);
  const acc_t over_centre = power_of_two(LOG2_E * of.shift), output = centre * over_centre;
  const acc_t slope = quotient(over_centre, window.count() * of.total);
  return {of_centre, logarithm_of(output), output, slope};
}

// Powers as such, relative to nothing, are what most windows need; with what few half types have.
template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  const acc_t sum = window.sum([&](acc_t x) {
    const Logarithm of_x = logarithm_of(at_least(x));
    const acc_t power = power_of_two(theta.theta * (of_x.whole + of_x.part));
    return fma(0, x, power);  // NaN if x is -inf, too
  });
  const acc_t mean = sum * reciprocal(window.count());
  const acc_t output = power_of_two(theta.inverse * logarithm(mean));
  Summary result = {{0, 0}, logarithm_of(output), output, output * reciprocal(sum)};
  const bool in_range = mean > (acc_t)0x1p-100 && mean < (acc_t)0x1p100;
  const bool holds = fabs(theta.theta) >= LEAST_POWER && in_range && is_moderate(result.slope);
  if (window.any(!holds)) {
    const Summary relative = relative_summary_of(window, theta);
    if (!holds) result = relative;
  }
  return result;
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  return of.output;
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  const auto distance = [&](acc_t x) {
    return LN_2 * difference(logarithm_of(at_least(x)), of.of_output);
  };
  return of.output * derivative_by_theta(window, distance, {0, 1}, theta);
}

template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  return {of.centre.whole, of.centre.part, grad * of.slope};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  const Logarithm centre = {message.number[0], message.number[1]};
  const acc_t ratio = difference(logarithm_of(at_least(x)), centre);
  const acc_t power = power_of_two((theta.theta - 1) * ratio);
  return (x < CONSTANT ? 0 : power) * message.number[2];
}

#else

// Logarithms of elements over a centre. The centre is quartered: one over the largest numbers is
// flushed to 0.
struct Ratio {
  acc_t centre, four_over_centre;

  __device__ __forceinline__ acc_t operator()(acc_t x) const {
    x = at_least(x);
    const acc_t distance = x - centre;
    const acc_t excess = (acc_t)0.25 * distance * four_over_centre;
    const acc_t quotient = (acc_t)0.25 * x * four_over_centre;
#if defined(DTYPE_FLOAT32)
    // A power of two times a number from 1 / sqrt(2) to sqrt(2), which is 1 + t, and whose
    // logarithm is t + t^2 q(t), to 5.2e-9 of it. Ratios beyond the range count as its ends.
    constexpr acc_t coefficients[] = {
        -0.07621193254607804f, 0.1290468671804169f, -0.13243441307487472f, 0.1418183005335055f,
        -0.16609015055227955f, 0.20001968831131137f, -0.25001586442207113f, 0.33333325986760254f,
        -0.49999988291314573f};
    const int bits = __float_as_int(quotient), exponent = (bits - 0x3f3504f3) & ~0x7fffff;
    const acc_t t = exponent == 0 ? excess : __int_as_float(bits - exponent) - 1;
    acc_t q = coefficients[0];
#pragma unroll
    for (int k = 1; k < 9; ++k) q = fma(q, t, coefficients[k]);
    // What is no number has an exponent and a t, too: it is told by 0 times it.
    return fma((acc_t)(exponent >> 23), LN_2, fma(q * t, t, fma(0, distance, t)));
#else
    const bool close = fabs(excess) < (acc_t)0.25;
    return close ? log1p(excess) : log(quotient < SMALLEST ? SMALLEST : quotient);
#endif
  }
};

__device__ __forceinline__ Ratio ratio_to(acc_t centre) {
  return {centre, quotient(1, (acc_t)0.25 * centre)};
}

struct Summary {
  Ratio ratio;
  LogMeanExp of_ratios;
};

template <class Elements>
__device__ __forceinline__ Summary summary_of(const Elements& window, const Theta& theta) {
  const acc_t least = window.smallest(), most = window.largest();
  const acc_t finite = (least - least) + (most - most);  // 0 or NaN
  const acc_t from = at_least(least), to = at_least(most);
  acc_t centre = theta.theta < 0 ? from : to;
  const bool from_mean = may_be_from_mean(ratio_to(from)(to), theta);
  if (window.any(from_mean)) {
    acc_t mean = between(window.mean(at_least), from, to);
    // Near theta = 0 the result is near the geometric mean, perhaps far from this one.
    const bool near = from_mean && fabs(theta.theta) < (acc_t)0.5;
    if (window.any(near)) {
      const acc_t shift = window.mean(ratio_to(mean));
      if (near) mean *= power_of_two(LOG2_E * shift);
    }
    if (from_mean) centre = mean;
  }
  const Ratio ratio = ratio_to(centre + finite);
  return {ratio, log_mean_exp(window, ratio, theta)};
}

__device__ __forceinline__ acc_t output_of(const Summary& of, const Theta& theta) {
  const acc_t shift = of.of_ratios.shift;
  if (!(shift < (acc_t)-0.5)) return fma(of.ratio.centre, expm1(shift), of.ratio.centre);
  return of.ratio.centre * power_of_two(LOG2_E * shift);
}

template <class Elements>
__device__ __forceinline__ acc_t sensitivity_of(
    const Elements& window, const Summary& of, const Theta& theta) {
  return output_of(of, theta) * derivative_by_theta(window, of.ratio, of.of_ratios, theta);
}

// g y (x / c)^(theta - 1) over c times the sum of the weights.
template <class Elements>
__device__ __forceinline__ Message message_of(
    const Elements& window, const Summary& of, const Theta& theta, acc_t grad) {
  const acc_t over_centre = power_of_two(LOG2_E * of.of_ratios.shift);  // y / c
  const acc_t sum = window.count() * of.of_ratios.total;
  return {of.ratio.centre, of.ratio.four_over_centre, grad * quotient(over_centre, sum)};
}

__device__ __forceinline__ acc_t received(acc_t x, const Message& message, const Theta& theta) {
  const Ratio ratio = {message.number[0], message.number[1]};
  const acc_t power = power_of_two((theta.scale - LOG2_E) * ratio(x));
  return (x < CONSTANT ? 0 : power) * message.number[2];
}

#endif
