// The softmax of windows that share their elements' weights, and when it holds.
//
// An element's weight e = 2^(scale d + exponent) is relative to what all the windows of a strip
// have in common, so there is one exponential an element. Its gradient is e (d sum A + sum C) over
// its windows.
//
// Macros: KERNEL_*, STRIDE_*; WRITE_*; KEPT, WINDOWS and WIDTH of the march.

#define SHARES 1

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

__device__ __forceinline__ bool may_share(acc_t lam) { return fabs(lam) <= MOST_SHARED_LAM; }

struct SharedFormula {
  acc_t lam, scale;  // scale = lam log2(e)
  acc_t origin;      // d = x - origin
  acc_t exponent;
};

// element(c), for begin <= c < end, is one of some elements of the strip. For derivatives, d is
// taken relative to the largest of them, the smallest where lam < 0. y needs no such origin; and
// where all elements lie near 0, no other exponent, so that a window's y does not depend on its
// neighbours.
template <class Element>
__device__ __forceinline__ SharedFormula shared_formula(
    acc_t lam, int begin, int end, const Element& element) {
  acc_t least = element(begin), most = least;
#pragma unroll
  for (int c = begin + 1; c < end; ++c) {
    least = min(least, element(c));
    most = max(most, element(c));
  }
  const acc_t extreme = lam < 0 ? least : most;
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

// What a thread knows of its rows of elements, which are Elements::x: when they are weighed, d
// takes their place. With PRODUCTS, e d is not made anew for each row of windows.
template <class Elements, bool PRODUCTS>
struct SharedRows : Elements {
  acc_t weight[KERNEL_H][WIDTH];                                // e
  acc_t total[KERNEL_H][WINDOWS], weighted[KERNEL_H][WINDOWS];  // sums over a window's columns
};

// A type of its own: a member too many, if only unused, and the compiler makes other code.
template <class Elements>
struct SharedRows<Elements, true> : Elements {
  acc_t weight[KERNEL_H][WIDTH], product[KERNEL_H][WIDTH];
  acc_t total[KERNEL_H][WINDOWS], weighted[KERNEL_H][WINDOWS];
};

template <class Elements, bool PRODUCTS>
__device__ __forceinline__ acc_t product_of(
    const SharedRows<Elements, PRODUCTS>& rows, int r, int c) {
  if constexpr (PRODUCTS) {
    return rows.product[r][c];
  } else {
    return rows.weight[r][c] * rows.x[r][c];
  }
}

// Makes of row r what is kept of it; element(c) is its column c, `absent_row` 0 or minus infinity.
template <class Elements, bool PRODUCTS, class Element>
__device__ __forceinline__ void prepare_row(
    SharedRows<Elements, PRODUCTS>& rows, int r, const Element& element, acc_t absent_row,
    const Columns& columns, const SharedFormula& formula) {
  const acc_t exponent = absent_row + formula.exponent;
#pragma unroll
  for (int c = 0; c < WIDTH; ++c) {
    rows.x[r][c] = element(c) - formula.origin;
    rows.weight[r][c] = power_of_two(
        fma(formula.scale, rows.x[r][c],
            MAY_BE_ABSENT(c) ? exponent + columns.absent[c] : exponent));
    if constexpr (PRODUCTS) rows.product[r][c] = rows.weight[r][c] * rows.x[r][c];
  }
#pragma unroll
  for (int w = 0; w < WINDOWS; ++w) {
    acc_t total = 0, weighted = 0;
#pragma unroll
    for (int k = 0; k < KERNEL_W; ++k) {
      const int c = w * STRIDE_W + k;
      total = k ? total + rows.weight[r][c] : rows.weight[r][c];
      // Not a sum of products, which the compiler may round as this or otherwise.
      weighted = PRODUCTS && !k ? product_of(rows, r, c)
                                : fma(rows.weight[r][c], rows.x[r][c], weighted);
    }
    rows.total[r][w] = total;
    rows.weighted[r][w] = weighted;
  }
}

template <class Elements, bool PRODUCTS>
__device__ __forceinline__ void move_rows_down(SharedRows<Elements, PRODUCTS>& rows) {
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < WIDTH; ++c) {
      rows.weight[r][c] = rows.weight[STRIDE_H + r][c];
      if constexpr (PRODUCTS) rows.product[r][c] = rows.product[STRIDE_H + r][c];
    }
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      rows.total[r][w] = rows.total[STRIDE_H + r][w];
      rows.weighted[r][w] = rows.weighted[STRIDE_H + r][w];
    }
  }
}

// Sums over the rows of window `w`.
__device__ __forceinline__ acc_t over_rows(const acc_t (&sums)[KERNEL_H][WINDOWS], int w) {
  acc_t sum = sums[0][w];
#pragma unroll
  for (int r = 1; r < KERNEL_H; ++r) sum += sums[r][w];
  return sum;
}

// The sum of weight (d - shift)^2.
template <class Elements, bool PRODUCTS>
__device__ __forceinline__ acc_t squares_of(
    const SharedRows<Elements, PRODUCTS>& rows, int w, acc_t shift) {
  acc_t sum = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W;
    const acc_t deviation = rows.x[r][c] - shift;
    sum = fma(rows.weight[r][c] * deviation, deviation, sum);
  }
  return sum;
}

struct SharedOutput {
  acc_t output, sensitivity;
};

// Of window `w`, which may not exist. `hold` becomes false where the shared weights do not hold.
template <class Elements, bool PRODUCTS>
__device__ __forceinline__ SharedOutput pool_shared(
    const SharedRows<Elements, PRODUCTS>& rows, int w, const SharedFormula&, bool exists,
    bool& hold) {
  const acc_t total = over_rows(rows.total, w), sum = over_rows(rows.weighted, w);
  // Sums of float16 numbers do not overflow.
  hold &= total_holds(total, exists) & (IS_FLOAT16 || sum_holds(sum));
  const acc_t inverse_total = reciprocal(total), y = sum * inverse_total;
  return {y, WRITE_SPREAD ? squares_of(rows, w, y) * inverse_total : 0};
}

// What windows send back to an element: times its weight, slope d + level.
struct Shares {
  acc_t slope, level;
};

__device__ __forceinline__ Shares sum_of(const Shares& one, const Shares& other) {
  return {one.slope + other.slope, one.level + other.level};
}

// What one window sends: `part` is the output's gradient over the weights' total, `shift` the mean
// of d. Where the slope or the shift is not finite, the level is not.
__device__ __forceinline__ Shares shares(const SharedFormula& of, acc_t part, acc_t shift) {
  const acc_t slope = of.lam * part;
  return {slope, fma(-slope, shift, part)};
}

// What window `w` sends back: nothing unless it exists(). grad() is the gradient of its output.
// Adds its part of lam's gradient to `lam_part` if it is an own one, a constant, and
// counts(exists()). `hold` as above. The three are asked for where they are needed: registers are
// scarce.
template <class Elements, bool PRODUCTS, class Grad, class Exists, class Counts>
__device__ __forceinline__ Shares send_shared_back(
    const SharedRows<Elements, PRODUCTS>& rows, int w, const SharedFormula& formula,
    const Grad& grad, const Exists& exists, bool own, const Counts& counts, acc_t& lam_part,
    bool& hold) {
  const acc_t total = over_rows(rows.total, w), sum = over_rows(rows.weighted, w);
  const bool there = exists();
  hold &= total_holds(total, there);
  const acc_t inverse_total = reciprocal(total);
  const acc_t shift = fma(sum, inverse_total, (acc_t)0);
  const acc_t part = grad() * inverse_total;
  if (WRITE_GRAD_LAM && own) {
    const acc_t squares = squares_of(rows, w, shift);
    lam_part = counts(there) ? fma(part, squares, lam_part) : lam_part;
  }
  const Shares sent = shares(formula, part, shift);
  hold &= sum_holds(there ? sent.level : sum);
  return {there ? sent.slope : 0, there ? sent.level : 0};
}

// What the element in column `c` of row `r` has received, with what it receives of `from`.
template <class Elements, bool PRODUCTS>
__device__ __forceinline__ acc_t received(
    const SharedRows<Elements, PRODUCTS>& rows, int r, int c, const Shares& from, acc_t others) {
  const acc_t weight = rows.weight[r][c];
  const acc_t product = product_of(rows, r, c);
  return fma(from.slope, product, fma(from.level, weight, others));
}
