// A window of more elements than overlapping_function.cu takes, by itself, of any window function:
// window_function.cu's for overlapping.cu. Its elements are read from shared memory for each sum,
// row by row, so that any function has enough registers.
//
// Macros: KERNEL_*, CHANNELS.

// Sums of TAPS numbers times this do not overflow where the numbers do not.
#define ROOM ((acc_t)(1 << log2_ceil(TAPS)))

struct SharedWindow {
  static constexpr bool IN_REGISTERS = false;
  const Inside& inside;

  __device__ __forceinline__ acc_t count() const { return inside.height * inside.width; }

  // Calls visit(x) for each element of a row, then next(), for each row.
  template <class Visit, class Next>
  __device__ __forceinline__ void for_each(const Visit& visit, const Next& next) const {
    const scalar_t* row = inside.begin;
#pragma unroll 1
    for (int i = 0; i < inside.height; ++i) {
      if (inside.width == KERNEL_W) {
#pragma unroll
        for (int j = 0; j < KERNEL_W; ++j) visit(widen(row[j * CHANNELS]));
      } else {
#pragma unroll 1
        for (int j = 0; j < inside.width; ++j) visit(widen(row[j * CHANNELS]));
      }
      next();
      row += inside.pitch;
      if (row >= inside.end) row -= inside.ring;
    }
  }

  // A term is rounded as often as there are rows and columns, not as elements.
  template <class Term>
  __device__ __forceinline__ acc_t sum(const Term& term) const {
    acc_t total = 0, of_row = 0;
    for_each([&](acc_t x) { of_row += term(x); }, [&]() {
      total += of_row;
      of_row = 0;
    });
    return total;
  }

  template <class Term>
  __device__ __forceinline__ acc_t mean(const Term& term) const {
    return sum([&](acc_t x) { return term(x) * (1 / ROOM); }) * (ROOM * reciprocal(count()));
  }

  __device__ __forceinline__ bool any(bool condition) const { return condition; }

  __device__ __forceinline__ acc_t largest() const {
    acc_t result = -(acc_t)__int_as_float(0x7f800000);
    for_each([&](acc_t x) { result = max(result, x); }, []() {});
    return result;
  }

  __device__ __forceinline__ acc_t smallest() const {
    acc_t result = (acc_t)__int_as_float(0x7f800000);
    for_each([&](acc_t x) { result = min(result, x); }, []() {});
    return result;
  }
};

struct State {
  Inside inside;
  Theta theta;
  Summary summary;
};

__device__ __forceinline__ State state_of(
    const acc_t (&)[TAPS], acc_t lam, const Inside& inside) {
  const Theta theta = theta_of(lam);
  return {inside, theta, summary_of(SharedWindow{inside}, theta)};
}

__device__ __forceinline__ acc_t output_of(const acc_t (&)[TAPS], const State& of) {
  return output_of(of.summary, of.theta);
}

__device__ __forceinline__ acc_t sensitivity_of(const State& of) {
  return sensitivity_of(SharedWindow{of.inside}, of.summary, of.theta);
}

// Number `number`, a constant, of what the window sends to its elements.
__device__ __forceinline__ acc_t statistic_of(const State& of, acc_t grad, int number) {
  return message_of(SharedWindow{of.inside}, of.summary, of.theta, grad).number[number];
}

template <class Statistic>
__device__ __forceinline__ acc_t received(acc_t x, acc_t lam, const Statistic& statistic) {
  Message message;
#pragma unroll
  for (int k = 0; k < NUMBERS; ++k) message.number[k] = statistic(k);
  return received(x, message, theta_of(lam));
}
