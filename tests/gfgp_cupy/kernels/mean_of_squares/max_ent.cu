#define NUMBERS 3
// Another formula: y = lam times the mean of x^2. A file here stands for that of the same name.

template <class Statistic>
__device__ __forceinline__ acc_t received(acc_t x, acc_t lam, const Statistic& statistic) {
  return 2 * lam * x * statistic(0) * statistic(1) + statistic(2);
}
