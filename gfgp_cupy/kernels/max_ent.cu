// Max-Ent pooling, the formula, and what the kernels ask of one.
//
// The kernels' files walk planes, load, store, and move data between threads; they know nothing of
// what becomes of a window. This file and spread.cu, softmax.cu, large_softmax.cu,
// tiling_softmax.cu, streamed_softmax.cu, weighted_window.cu and shared_weights.cu hold the
// formula. In their place any other pooling, of one parameter lam a window, has its own file and
// one for each kind of kernels, which all poolings share: window_function.cu.
//
// Below, "sensitivity" is the derivative of a window's output by lam, `grad` the gradient of its
// output. Results that are not wanted (WRITE_*) need not be computed.
//
// How a forward pass keeps a sensitivity for lam's gradient (spread.cu):
//   spread_of(sensitivity)          -> the number, in the input's type or 16 bits
//   lam_part_of(spread, grad)       -> grad times sensitivity
//
// A window by itself, held in registers (softmax.cu, of more than 25 elements large_softmax.cu, for
// overlapping.cu) or of any size (streamed_softmax.cu, for general.cu, where x is
// `window, planes`):
//   State                           what is known of the window
//   state_of(x, lam, inside)        `inside` has a bit for each element that takes part (of a large
//                                   window it is what large_window.cu has)
//   output_of(x, state), sensitivity_of(state)
//   statistic_of(state, grad, k)    k < NUMBERS: the numbers from which
//   received(x, lam, statistic)     -> what an element x gets of the window; statistic(k) reads one
//   Message, message_of(x, state, grad), received(x, lam, message)    general.cu: all of them
//
// A window of a plane that windows tile (tiling_softmax.cu, for disjoint.cu):
//   kept_of(lam)                    what is kept of lam, in shared memory
//   flip_of(kept)                   SIGN_BIT: of half types, -x are wanted instead of x; or 0
//   state_of(x, kept), output_of(x, state, kept), sensitivity_of(state)
//   send_back(grad, kept, added, x) makes of each x its gradient plus `added`; -> lam's gradient
//
// Windows beside each other, each by itself (weighted_window.cu, for marching_rows.cu and
// marching_channels.cu):
//   Parameter, parameter(lam)       what windows of a plane have in common
//   find_references, reference_of   a number for each window, which is sought before the others
//   State, state_about(reference, x, absent, parameter)
//   output_of(state), sensitivity_of(state)
//   Sent, sent(state, parameter, grad)
//   received(state, sent, k, others) -> `others` and what element k of the window gets
//
// Half types: windows that share what is made of an element (shared_weights.cu, for these two):
//   may_share(lam)                  whether that is tried
//   SharedFormula, shared_formula(lam, begin, end, element)
//   SharedRows, prepare_row, move_rows_down    what a thread keeps of its rows of elements
//   SharedOutput, pool_shared       -> output, sensitivity
//   Shares, sum_of, send_shared_back           what windows of a row send back, to be added up
//   received(rows, r, c, shares, others)       -> `others` and what the element gets of them
// pool_shared and send_shared_back say where the numbers do not hold. The row is then not stored,
// and the windows from it on are computed each by itself.
//
// What a kernel promises: elements are in acc_t. At least one element of a window takes part; one
// that does not has no bit in `inside`, or repeats another of the window, and `absent` is minus
// infinity instead of 0. Numbers of taps, rows, columns and windows are constants when loops are
// unrolled, so that arrays of them stay in registers. What elements receive and lam's gradient are
// added up in an order that is always the same.
//
// Launch bounds, here (softmax.cu) and in the kernels' files, fit the registers of both together.

#define NUMBERS 3  // of a window's statistics
#define LOG2_E ((acc_t)1.4426950408889634074)

// g p (1 + lam (x - y)), what a window sends back to an element; `sent` is g p. In this order:
// where p is 0, lam times the deviation may be infinite. `deviation` is (x - r) - (y - r): from the
// rounded y it would be off by what y was rounded by.
__device__ __forceinline__ acc_t slope(acc_t sent, acc_t lam, acc_t deviation) {
  return fma(lam, sent * deviation, sent);  // alike in every program, whatever else it computes
}

// What a window sends back to its element x; statistic(k) reads number k of its statistics: r, the
// mean of x - r, and what the window sends to an element of weight 1, that is r.
template <class Statistic>
__device__ __forceinline__ acc_t received(acc_t x, acc_t lam, const Statistic& statistic) {
  const acc_t deviation = x - statistic(0);
  const acc_t weight = power_of_two(LOG2_E * lam * deviation);
  return slope(weight * statistic(2), lam, deviation - statistic(1));
}
