// (1/theta) log mean e^(theta d) of a window, by theta's limits and to the last digits, for window
// functions that are made of it; d is how far an element is from some centre near the result.
//
// With e = (e^(theta d) - 1) / theta, which is d where theta is 0, and m = mean e, it is
// log(1 + theta m) / theta, which is m there. Its derivatives: by d the weight e^(theta d) over the
// sum of weights; by theta, mean of d^2 chi(theta d), where d is the distance from the result and
// chi(z) = (1 + (z - 1) e^z) / z^2, which is never negative: nothing cancels.

#define LOG2_E ((acc_t)1.4426950408889634074)
#define LN_2 ((acc_t)0.69314718055994530942)
#if defined(DTYPE_FLOAT64)
#define FEW ((acc_t)0.0001220703125)  // whose fourth power, over 100, is less than a rounding
#elif defined(DTYPE_FLOAT32)
#define FEW ((acc_t)0.015625)
#else
#define FEW ((acc_t)0.0625)  // of results that have 11 bits
#endif

struct Exponent {
  acc_t theta, scale, inverse;  // theta, theta log2(e), 1 / theta
};

__device__ __forceinline__ Exponent exponent_of(acc_t theta) {
  return {theta, LOG2_E * theta, quotient(1, theta)};
}

// Whether deviations from the mean of elements between which they differ by `range` serve: weights
// are then neither small nor large, if the mean, which is rounded, is between the elements.
// Elsewhere deviations are from the extreme that has the largest weight.
__device__ __forceinline__ bool may_be_from_mean(acc_t range, const Exponent& by) {
  return fabs(by.theta) * range <= 4;
}

__device__ __forceinline__ acc_t weight_of(acc_t deviation, const Exponent& by) {
  return power_of_two(by.scale * deviation);
}

// e^(theta d) and (e^(theta d) - 1) / theta, which share most of what they are made of.
struct Growth {
  acc_t weight, excess;
};

#if defined(DTYPE_FLOAT32)

// With theta d = n log(2) + r it is (2^n (e^r - 1) + 2^n - 1) / theta, and d (e^r - 1) / r where n
// is 0. (e^r - 1) / r for |r| <= log(2) / 2 to 1.7e-8 of it. n is at least -126, and, for
// may_be_from_mean, never so large that 2^n overflows.
__device__ __forceinline__ Growth growth_of(acc_t deviation, const Exponent& by) {
  constexpr acc_t coefficients[] = {
      0.0013882522471249104f, 0.008366514928638935f, 0.04166720062494278f, 0.1666654348373413f,
      0.4999999701976776f, 1.0f};
  const acc_t to_whole = (acc_t)12582912;  // 1.5 * 2^23: what is added to it is rounded
  const acc_t exponent = by.theta * deviation;
  const acc_t z = exponent < -87 ? -87 : exponent;  // e^z is nothing, beside 1, below that
  const acc_t shifted = fma(z, LOG2_E, to_whole), n = shifted - to_whole;
  const acc_t r = fma(n, -LN_2, z);
  acc_t over_r = coefficients[0];
#pragma unroll
  for (int k = 1; k < 6; ++k) over_r = fma(over_r, r, coefficients[k]);
  const unsigned whole = __float_as_int(shifted);  // its last bits are n
  const acc_t power = __uint_as_float((whole << 23) + 0x3f800000u);
  const acc_t grown = r * over_r;
  return {
      fma(power, grown, power),
      n == 0 ? deviation * over_r : fma(power, grown, power - 1) * by.inverse};
}

#else

__device__ __forceinline__ Growth growth_of(acc_t deviation, const Exponent& by) {
  const acc_t z = by.theta * deviation, weight = weight_of(deviation, by);
#if defined(DTYPE_FLOAT64)
  const acc_t excess = expm1(z);
#else
  const acc_t excess = weight - 1;
#endif
  const acc_t series = fma(fma(fma(z, (acc_t)(1.0 / 24), (acc_t)(1.0 / 6)), z, (acc_t)0.5), z, 1);
  return {weight, fabs(z) < FEW ? deviation * series : excess * by.inverse};
}

#endif

__device__ __forceinline__ acc_t between(acc_t x, acc_t least, acc_t most) {
  return min(max(x, least), most);
}

struct LogMeanExp {
  acc_t shift;  // the result, from the centre
  acc_t total;  // the mean of the weights
};

// deviation(x) is how far x is from the centre.
template <class Elements, class Deviation>
__device__ __forceinline__ LogMeanExp log_mean_exp(
    const Elements& window, const Deviation& deviation, const Exponent& by) {
  const acc_t mean = window.mean([&](acc_t x) { return growth_of(deviation(x), by).excess; });
  const acc_t q = by.theta * mean;
  // Most weights are near 0, and 1 + q would lose what they are.
  const bool are_small = q < (acc_t)-0.5;
  if (Elements::IN_REGISTERS || window.any(are_small)) {
    const acc_t sum = window.sum([&](acc_t x) { return growth_of(deviation(x), by).weight; });
    const acc_t total = sum * reciprocal(window.count());
    if (are_small) return {LN_2 * logarithm(total) * by.inverse, total};
  }
  const acc_t series = fma(fma(fma(q, (acc_t)-0.25, (acc_t)(1.0 / 3)), q, (acc_t)-0.5), q, 1);
#if defined(DTYPE_FLOAT32) || defined(DTYPE_FLOAT64)
  const acc_t log_of_total = log1p(q);
#else
  const acc_t log_of_total = LN_2 * logarithm(1 + q);
#endif
  return {fabs(q) < FEW ? mean * series : log_of_total * by.inverse, 1 + q};
}

#if defined(DTYPE_FLOAT32) || defined(DTYPE_FLOAT64)

// chi(z) for |z| <= 1: the polynomial with the least largest relative error, found by Remez's
// exchange algorithm: 1.9e-9, and 1.6e-19 in float64.
__device__ __forceinline__ acc_t chi(acc_t z) {
#if defined(DTYPE_FLOAT64)
  constexpr acc_t coefficients[] = {
      4.476529747185126e-14,  7.27473400619901e-13,   1.0708093352601896e-11,
      1.491027743081845e-10,  1.9270815607774665e-09, 2.296444675587549e-08,
      2.505210868959118e-07,  2.480158723703767e-06,  2.2045855377898063e-05,
      0.00017361111111271124, 0.0011904761904764664,  0.006944444444444251,
      0.033333333333333305,   0.125,                  0.3333333333333333,
      0.5};
#else
  constexpr acc_t coefficients[] = {
      2.4599027209427448e-06f, 2.260330182365894e-05f, 0.0001737152375778797f,
      0.0011900691986342937f,  0.006944367042502902f,  0.033333441731092f,
      0.12500001646150555f,    0.33333332572880997f,   0.4999999994794287f};
#endif
  acc_t result = coefficients[0];
#pragma unroll
  for (int k = 1; k < (int)(sizeof(coefficients) / sizeof(acc_t)); ++k) {
    result = fma(result, z, coefficients[k]);
  }
  return result;
}

// The derivative of log_mean_exp by theta.
template <class Elements, class Deviation>
__device__ __forceinline__ acc_t derivative_by_theta(
    const Elements& window, const Deviation& deviation, const LogMeanExp& of, const Exponent& by) {
  const acc_t inverse_total = quotient(1, of.total);
  return window.mean([&](acc_t x) {
    const acc_t whole = deviation(x), d = whole - of.shift, z = by.theta * d;
    const acc_t weight = weight_of(whole, by) * inverse_total;
    const acc_t far = weight > 0 ? fma(z - 1, weight, 1) : weight + 1;  // not -inf times 0
    return fabs(z) <= 1 ? d * d * chi(z) : far * by.inverse * by.inverse;
  });
}

#else

// Half types: whether weights or powers need not be relative to some centre, by what gradients are
// multiplied with or divided by: of gradients from 2^-60 to 2^60 none is lost or becomes infinite.
__device__ __forceinline__ bool is_moderate(acc_t factor) {
  return factor > (acc_t)0x1p-60 && factor < (acc_t)0x1p60;
}

// The same with what few digits half types have: near 0 by the series of chi.
template <class Elements, class Deviation>
__device__ __forceinline__ acc_t derivative_by_theta(
    const Elements& window, const Deviation& deviation, const LogMeanExp& of, const Exponent& by) {
  const acc_t inverse_square = by.inverse * by.inverse;
  return window.mean([&](acc_t x) {
    const acc_t d = deviation(x) - of.shift, weight = weight_of(d, by);
    const acc_t z = max(by.theta * d, (acc_t)-1e4);  // not -inf, which is to be multiplied by 0
    const acc_t series =
        fma(fma(fma(z, (acc_t)(1.0 / 30), (acc_t)0.125), z, (acc_t)(1.0 / 3)), z, (acc_t)0.5);
    return fabs(z) < (acc_t)0.125 ? d * d * series : fma(z - 1, weight, 1) * inverse_square;
  });
}

#endif
