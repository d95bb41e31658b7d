// The softmax of windows beside each other, each by itself, in registers.
//
// An element's gradient has the form weight (slope deviation + level), summed over its windows;
// `slope` and `level` are the window's. Where a deviation is so large that slope times it would
// overflow its weight is 0, so it is the product of both that is kept.
//
// Macros: KERNEL_*.

// A power of two not below TAPS. Deviations are kept divided by it: then sums of TAPS of them do
// not overflow where the elements' differences do not.
#define ROOM ((acc_t)(1 << log2_ceil(TAPS)))
#define MOST ((acc_t)3.402823466e38f)  // of float32

// What the windows of a plane have in common.
struct Parameter {
  acc_t lam;
  acc_t slope;  // ROOM lam: the exponent's by a deviation as it is kept, but for log2(e)
  acc_t scale;  // ROOM lam log2(e)
};

__device__ __forceinline__ acc_t within_range(acc_t x) { return min(max(x, -MOST), MOST); }

__device__ __forceinline__ Parameter parameter(acc_t lam) {
  const acc_t scale = LOG2_E * lam;
  // Plus 0, or NaN where lam is not finite: the limits would hide that.
  return {lam, ROOM * lam, within_range(ROOM * scale) + (scale - scale)};
}

// Relative to a reference element r, the window's maximum (minimum where lam < 0): no weight
// exceeds 1, and differences from r have one sign.
struct State {
  acc_t deviation[TAPS];  // (x - r) / ROOM
  acc_t weight[TAPS];     // 2^(lam log2(e) (x - r)); 0 outside the plane
  acc_t product[TAPS];    // of both
  acc_t reference;        // r
  acc_t inverse_total;    // of the weights
  acc_t shift;            // the mean of the deviations
};

// Columns first: windows side by side share them. `least` is a constant.
__device__ __forceinline__ acc_t extreme_of(const acc_t (&x)[TAPS], bool least) {
  acc_t result = 0;
#pragma unroll
  for (int k = 0; k < KERNEL_W; ++k) {
    acc_t column = x[k];
#pragma unroll
    for (int r = 1; r < KERNEL_H; ++r) {
      column = least ? min(column, x[r * KERNEL_W + k]) : max(column, x[r * KERNEL_W + k]);
    }
    result = !k ? column : least ? min(result, column) : max(result, column);
  }
  return result;
}

__device__ __forceinline__ acc_t reference_of(const acc_t (&x)[TAPS], acc_t lam) {
  return lam < 0 ? extreme_of(x, true) : extreme_of(x, false);
}

// Of several windows; take_window(x, w) takes the elements of window w. Branches hold a loop each,
// since the compiler would find both the least and the largest.
template <int COUNT, class TakeWindow>
__device__ __forceinline__ void find_references(
    acc_t (&reference)[COUNT], acc_t lam, const TakeWindow& take_window) {
  if (lam < 0) {
#pragma unroll
    for (int w = 0; w < COUNT; ++w) {
      acc_t x[TAPS];
      take_window(x, w);
      reference[w] = extreme_of(x, true);
    }
  } else {
#pragma unroll
    for (int w = 0; w < COUNT; ++w) {
      acc_t x[TAPS];
      take_window(x, w);
      reference[w] = extreme_of(x, false);
    }
  }
}

// `absent` is 0 for an element of the plane and minus infinity for one outside, which repeats
// another of the window.
__device__ __forceinline__ State state_about(
    acc_t reference, const acc_t (&x)[TAPS], const acc_t (&absent)[TAPS], const Parameter& of) {
  State state;
  const acc_t origin = -reference / ROOM;
  acc_t weighted = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const acc_t deviation = fma(x[tap], 1 / ROOM, origin);
    state.deviation[tap] = deviation;
    state.weight[tap] = power_of_two(fma(of.scale, deviation, absent[tap]));
    state.product[tap] = state.weight[tap] * deviation;
    weighted = fma(state.weight[tap], deviation, weighted);
  }
  state.reference = reference;
  state.inverse_total = reciprocal(sum_of(state.weight));
  state.shift = fma(weighted, state.inverse_total, (acc_t)0);
  return state;
}

// y: r + shift, what rounding took from that, and the mean of what the deviations deviate from
// shift. These two are small, so their own rounding does not show, nor what the sums behind shift
// lost; and they do not lead out of the window's range.
__device__ __forceinline__ acc_t output_of(const State& of) {
  const acc_t first = fma(of.shift, ROOM, of.reference);
  if (sizeof(scalar_t) == 2) return first;  // far closer than the 16 bits that it is rounded to
  const acc_t lost = fma(of.shift, ROOM, of.reference - first);
  acc_t weighted = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    weighted = fma(of.weight[tap], of.deviation[tap] - of.shift, weighted);
  }
  return first + fma(weighted * of.inverse_total, ROOM, lost);
}

// The variance.
__device__ __forceinline__ acc_t sensitivity_of(const State& of) {
  acc_t sum = 0;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const acc_t deviation = of.deviation[tap] - of.shift;
    // In this order: a weight of 0 must not meet an infinite square.
    sum = fma(of.weight[tap] * deviation, deviation, sum);
  }
  return sum * of.inverse_total * (ROOM * ROOM);
}

// What a window sends back: to an element, weight (slope deviation + level).
struct Sent {
  acc_t slope, level;
};

__device__ __forceinline__ Sent sent(const State& of, const Parameter& parameter, acc_t grad) {
  const acc_t part = grad * of.inverse_total;
  const acc_t slope = within_range(parameter.slope * part);  // an infinite one times 0 were NaN
  return {slope, fma(-slope, of.shift, part)};
}

__device__ __forceinline__ acc_t received(
    const State& of, const Sent& sent, int tap, acc_t others) {
  return fma(sent.slope, of.product[tap], fma(sent.level, of.weight[tap], others));
}
