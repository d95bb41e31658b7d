// A window held in registers, as window_function.cu has it.
//
// Macros: KERNEL_*.

// Sums of TAPS numbers times this do not overflow where the numbers do not. Those of float16 are
// far from it.
#if defined(DTYPE_FLOAT16)
#define ROOM ((acc_t)1)
#else
#define ROOM ((acc_t)(1 << log2_ceil(TAPS)))
#endif

// inside(tap) tells whether an element takes part; at least one does. `elements` do, which is
// TAPS where that is known: the mean then takes no reciprocal. What is made of each element is in
// registers as well where there are enough of them: of windows of up to ROOMY_TAPS elements.
template <class Inside, int ROOMY_TAPS = 9>
struct HeldWindow {
  static constexpr bool IN_REGISTERS = TAPS <= ROOMY_TAPS && sizeof(acc_t) == 4;
  const acc_t (&x)[TAPS];
  const Inside& inside;
  acc_t elements;

  __device__ __forceinline__ acc_t count() const { return elements; }

  __device__ __forceinline__ bool any(bool condition) const { return condition; }

  template <class Term>
  __device__ __forceinline__ acc_t sum(const Term& term) const {
    acc_t terms[TAPS];
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap) {
      if constexpr (IN_REGISTERS) {
        const acc_t of_tap = term(x[tap]);  // of one outside, too: a branch each takes longer
        terms[tap] = inside(tap) ? of_tap : 0;
      } else {
        terms[tap] = inside(tap) ? term(x[tap]) : 0;
      }
    }
    return sum_of(terms);
  }

  template <class Term>
  __device__ __forceinline__ acc_t mean(const Term& term) const {
    return sum([&](acc_t x) { return term(x) * (1 / ROOM); }) * (ROOM * reciprocal(elements));
  }

  __device__ __forceinline__ acc_t largest() const {
    acc_t result = inside(0) ? x[0] : -(acc_t)__int_as_float(0x7f800000);
#pragma unroll
    for (int tap = 1; tap < TAPS; ++tap) {
      if (inside(tap)) result = max(result, x[tap]);
    }
    return result;
  }

  __device__ __forceinline__ acc_t smallest() const {
    acc_t result = inside(0) ? x[0] : (acc_t)__int_as_float(0x7f800000);
#pragma unroll
    for (int tap = 1; tap < TAPS; ++tap) {
      if (inside(tap)) result = min(result, x[tap]);
    }
    return result;
  }
};
