// Window functions: what a pooling has to supply, once, for all kernels (Max-Ent pooling has files
// of its own, which max_ent.cu tells of), and what it can be made of beside element.cu.
//
// A file with these, each __device__ __forceinline__; theta is the window's parameter, the constant
// of all windows, where there is one, the macro CONSTANT:
//
//   #define NUMBERS 3                              of a message: as few as do
//   struct Theta, theta_of(parameter)              what is made of theta once
//   struct Summary, summary_of(window, theta)      what stands for a window
//   output_of(summary, theta)
//   sensitivity_of(window, summary, theta)         the derivative of the output by theta; as
//                                                  spread.cu has it, never negative or of any sign
//   struct Message { acc_t number[NUMBERS]; }
//   message_of(window, summary, theta, grad)       what the window sends back to its elements,
//                                                  where `grad` is the gradient of its output
//   received(x, message, theta)                    what its element x gets of it
//   #define MANY_REGISTERS                         if the compiler, left alone, spills some of
//                                                  them; gradients of large windows that share
//                                                  columns are then overlapping.cu's, where it
//                                                  serves
//
// All numbers are acc_t. A `window` is of a family's own type (a template's parameter) and has
//
//   count()                  its elements inside the plane, at least one
//   sum(f), mean(f)          of f(x) over these; to a few roundings, and the mean does not overflow
//                            where f(x) does not
//   largest(), smallest()    of these; NaN is passed over
//   any(condition)           whether it holds for this thread or one that waits for it
//   IN_REGISTERS             a constant: whether what a sum makes of an element is at hand for the
//                            next one
//
// Of a window with NaN or an infinite element all is to be NaN, what is sent back included.
// Comparisons and min, max lose a NaN: x < y ? y : x keeps that of x, number - number is 0 or NaN.
// Results that are not wanted are not computed, since nothing is left of unused numbers.
//
// Threads may share a window, and wait for each other where it adds up, beside threads whose theta
// is another: call what a window has whatever theta and its numbers are, and choose from results;
// or where any(condition) holds.
//
// A file that goes with this one gives it a family's windows: tiling_function.cu (disjoint.cu),
// marching_function.cu (marching_rows.cu, marching_channels.cu), overlapping_function.cu,
// large_function.cu (overlapping.cu), streamed_function.cu (general.cu); whole_planes.cu has them
// itself.

// Normal number.
#if defined(DTYPE_FLOAT64)
#define SMALLEST 2.2250738585072014e-308
#else
#define SMALLEST 1.17549435e-38f
#endif

// a / b, in float32 to 2 units in the last place without the subroutine of a division.
__device__ __forceinline__ acc_t quotient(acc_t a, acc_t b) {
#if defined(GFGP_HOST) || defined(DTYPE_FLOAT64)
  return a / b;
#else
  float result;
  asm("div.full.ftz.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#endif
}

// The logarithm to base 2, to 1 unit in the last place; of half types to 2.4e-7, which is absolute
// from 1/2 to 2, relative elsewhere. A power is power_of_two(exponent * logarithm(x)).
__device__ __forceinline__ acc_t logarithm(acc_t x) {
#if defined(GFGP_HOST) || defined(DTYPE_FLOAT64) || defined(DTYPE_FLOAT32)
  return log2(x);
#else
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}
