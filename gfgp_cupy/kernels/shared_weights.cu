// Max-Ent pooling of windows that share their elements' weights: the formula, and when it holds.
//
// An element's weight e = 2^(scale d + exponent) is relative to what all the windows of a strip
// have in common, so there is one exponential an element. Its gradient is e (d sum A + sum C) over
// its windows.

// The total of a window's weights within which the sums hold: no weight that was flushed to 0
// matters, and no exponent was so large that its rounding shows in 16 bits.
#define LEAST_TOTAL 2.3283064e-10f  // 2^-32
#define MOST_TOTAL 4.2949673e9f     // 2^32
#define MOST_SUM 1e37f              // beyond which sums may have overflowed on the way
#define SMALL_EXPONENT 16
#if defined(DTYPE_FLOAT16)
#define IS_FLOAT16 1
#else
#define IS_FLOAT16 0
#endif

struct SharedFormula {
  acc_t lam, scale;  // scale = lam log2(e)
  acc_t origin;      // d = x - origin
  acc_t exponent;
};

// `extreme` is the largest of some elements of the strip, the smallest where lam < 0. For
// derivatives, d is taken relative to it. y needs no such origin; and where all elements lie near
// 0, no other exponent, so that a window's y does not depend on its neighbours.
__device__ __forceinline__ SharedFormula shared_formula(acc_t lam, acc_t extreme) {
  const acc_t scale = LOG2_E * lam;
#if WRITE_GRAD_INPUT || WRITE_GRAD_LAM
  return {lam, scale, extreme - extreme == 0 ? extreme : 0, 0};
#else
  const acc_t height = scale * extreme;
  const bool wanted = height - height == 0 && max(height, -height) > SMALL_EXPONENT;
  return {lam, scale, 0, wanted ? -height : 0};
#endif
}

// Whether all weights and products of a window are: also one that does not exist, whose elements
// get them times 0.
__device__ __forceinline__ bool are_finite(acc_t total, acc_t weighted) {
  return (total <= MOST_TOTAL) & (fabs(weighted) <= MOST_SUM);
}

// Whether the sums of a window hold; not where one is NaN.
__device__ __forceinline__ bool holds(acc_t total, acc_t weighted) {
  // Sums of float16 numbers do not overflow.
  const bool finite = IS_FLOAT16 || fabs(weighted) <= MOST_SUM;
  return (total >= LEAST_TOTAL) & (total <= MOST_TOTAL) & finite;
}
