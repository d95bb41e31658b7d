// Max-Ent pooling of windows that share their elements' weights: the formula, and when it holds.
//
// An element's weight e = 2^(scale d + exponent) is relative to what all the windows of a strip
// have in common, so there is one exponential an element. Its gradient is e (d sum A + sum C) over
// its windows.

// Beyond this |lam|, totals of windows side by side differ so much that a warp seldom has none that
// does not hold: of standard normal numbers, at 5 one strip of 32 in 1000, at 7 every sixth, at 10
// all. Then nothing is tried.
#define MOST_SHARED_LAM 7

// The total of a window's weights within which the sums hold: no weight that was flushed to 0
// matters, and no exponent was so large that its rounding shows in 16 bits.
#define LEAST_TOTAL 2.3283064e-10f  // 2^-32
#define MOST_TOTAL 4.2949673e9f     // 2^32
#define MOST_SUM 1e37f              // beyond which sums may have overflowed on the way
#define SMALL_EXPONENT 16
#if defined(DTYPE_FLOAT16)
#define IS_FLOAT16 1  // whose sums do not overflow
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

// Whether the total of a window holds; not where it is NaN. The elements of one that does not exist
// are multiplied by 0: their weights have to be finite.
__device__ __forceinline__ bool total_holds(acc_t total, bool exists) {
  return ((total >= LEAST_TOTAL) | !exists) & (total <= MOST_TOTAL);
}

// Likewise of the sum of products, or of what follows from it.
__device__ __forceinline__ bool sum_holds(acc_t sum) { return fabs(sum) <= MOST_SUM; }

// What a window sends back to its elements: times their weights, slope d + level.
struct Shares {
  acc_t slope, level;
};

// `part` is the output's gradient over the weights' total, `shift` the mean of d. Where the slope
// or the shift is not finite, the level is not.
__device__ __forceinline__ Shares shares(const SharedFormula& of, acc_t part, acc_t shift) {
  const acc_t slope = of.lam * part;
  return {slope, fma(-slope, shift, part)};
}
