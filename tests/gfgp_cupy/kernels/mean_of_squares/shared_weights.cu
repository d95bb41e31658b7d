// Where lam is positive. It does not hold of windows with a mean above 2.

#define SHARES 1

__device__ __forceinline__ bool may_share(acc_t lam) { return lam > 0; }

struct SharedFormula {
  acc_t lam;
};

template <class Element>
__device__ __forceinline__ SharedFormula shared_formula(
    acc_t lam, int begin, int end, const Element& element) {
  acc_t none = 0;
  for (int c = begin; c < end; ++c) none += element(c) - element(c);
  return {lam + none};
}

template <class Elements, bool PRODUCTS>
struct SharedRows : Elements {
  acc_t square[KERNEL_H][WIDTH], count[KERNEL_H][WIDTH];
};

template <class Elements, bool PRODUCTS, class Element>
__device__ __forceinline__ void prepare_row(
    SharedRows<Elements, PRODUCTS>& rows, int r, const Element& element, acc_t absent_row,
    const Columns& columns, const SharedFormula& formula) {
  for (int c = 0; c < WIDTH; ++c) {
    const bool absent = absent_row < 0 || (MAY_BE_ABSENT(c) && columns.absent[c] < 0);
    rows.x[r][c] = element(c);
    rows.square[r][c] = absent ? 0 : rows.x[r][c] * rows.x[r][c];
    rows.count[r][c] = !absent;
  }
}

template <class Elements, bool PRODUCTS>
__device__ __forceinline__ void move_rows_down(SharedRows<Elements, PRODUCTS>& rows) {
  for (int r = 0; r < KEPT; ++r) {
    for (int c = 0; c < WIDTH; ++c) {
      rows.square[r][c] = rows.square[STRIDE_H + r][c];
      rows.count[r][c] = rows.count[STRIDE_H + r][c];
    }
  }
}

struct Mean {
  acc_t mean, part;
};

template <class Elements, bool PRODUCTS>
__device__ __forceinline__ Mean mean_of(
    const SharedRows<Elements, PRODUCTS>& rows, int w, bool exists, bool& hold) {
  acc_t sum = 0, count = 0;
  for (int tap = 0; tap < TAPS; ++tap) {
    sum += rows.square[tap / KERNEL_W][w * STRIDE_W + tap % KERNEL_W];
    count += rows.count[tap / KERNEL_W][w * STRIDE_W + tap % KERNEL_W];
  }
  hold &= !exists || sum <= 2 * count;
  return {sum / count, 1 / count};
}

struct SharedOutput {
  acc_t output, sensitivity;
};

template <class Elements, bool PRODUCTS>
__device__ __forceinline__ SharedOutput pool_shared(
    const SharedRows<Elements, PRODUCTS>& rows, int w, const SharedFormula& formula, bool exists,
    bool& hold) {
  const acc_t mean = mean_of(rows, w, exists, hold).mean;
  return {formula.lam * mean, mean};
}

struct Shares {
  acc_t factor;
};

__device__ __forceinline__ Shares sum_of(const Shares& one, const Shares& other) {
  return {one.factor + other.factor};
}

template <class Elements, bool PRODUCTS, class Grad, class Exists, class Counts>
__device__ __forceinline__ Shares send_shared_back(
    const SharedRows<Elements, PRODUCTS>& rows, int w, const SharedFormula& formula,
    const Grad& grad, const Exists& exists, bool own, const Counts& counts, acc_t& lam_part,
    bool& hold) {
  const bool there = exists();
  const Mean of = mean_of(rows, w, there, hold);
  if (WRITE_GRAD_LAM && own && counts(there)) lam_part += grad() * of.mean;
  return {there ? 2 * formula.lam * of.part * grad() : 0};
}

template <class Elements, bool PRODUCTS>
__device__ __forceinline__ acc_t received(
    const SharedRows<Elements, PRODUCTS>& rows, int r, int c, const Shares& from, acc_t others) {
  return others + from.factor * rows.x[r][c];
}
