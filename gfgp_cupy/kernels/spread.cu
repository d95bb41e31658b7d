// A window's sensitivity, the derivative of its output by lam, as a forward pass keeps it for lam's
// gradient. Macros: one of SPREAD_ROOT, which keeps the root of it (of Max-Ent pooling the standard
// deviation, which has the range of the input, so that it fits into as many bits where the variance
// might not); SPREAD_POSITIVE, which keeps it, never negative, as it is; SPREAD_SIGNED, which keeps
// it in the input's type.

// A number that is never negative, in the input's type or, for half types, in 16 bits of its own
// that hold more digits. gfgp_cupy/spread.py tells how and says the same of the two numbers.
#if defined(DTYPE_FLOAT32) || defined(DTYPE_FLOAT64)

__device__ __forceinline__ scalar_t pack_spread(acc_t deviation) { return deviation; }
__device__ __forceinline__ acc_t unpack_spread(scalar_t spread) { return spread; }

#else

#if defined(DTYPE_BFLOAT16)
#define SPREAD_EXPONENT -62
#define SPREAD_SHIFT 14
#else
#define SPREAD_EXPONENT -15
#define SPREAD_SHIFT 12
#endif
#define SPREAD_CONSTANT ((SPREAD_EXPONENT + 126) << 23)
#define POWER_OF_TWO(exponent) __int_as_float(((exponent) + 127) << 23)

__device__ __forceinline__ scalar_t pack_spread(acc_t deviation) {
  // Rounded to units by what it is added to.
  const acc_t large = POWER_OF_TWO(SPREAD_EXPONENT + SPREAD_SHIFT);
  const int units = __float_as_int(deviation + large) - __float_as_int(large);
  const int bits = __float_as_int(deviation) - SPREAD_CONSTANT;
  const int half = (1 << (SPREAD_SHIFT - 1)) - 1;
  const int digits = min((bits + half + (bits >> SPREAD_SHIFT & 1)) >> SPREAD_SHIFT, 0xfffe);
  // Chosen from, not branched to: neighbouring windows are of both kinds.
  const int code = deviation < POWER_OF_TWO(SPREAD_EXPONENT) ? units : digits;
  return (scalar_t)(deviation != deviation ? 0xffff : code);
}

__device__ __forceinline__ acc_t unpack_spread(scalar_t code) {
  const int digits = 23 - SPREAD_SHIFT;
  if (code < 1 << digits) return code * POWER_OF_TWO(SPREAD_EXPONENT - digits);
  const int bits = ((int)code << SPREAD_SHIFT) + SPREAD_CONSTANT;
  return __int_as_float(code == 0xffff ? 0x7fffffff : bits);
}

#endif

__device__ __forceinline__ scalar_t spread_of(acc_t sensitivity) {
#if defined(SPREAD_SIGNED)
  return narrow(sensitivity);
#elif defined(SPREAD_POSITIVE)
  return pack_spread(sensitivity);
#else
  return pack_spread(root(sensitivity));
#endif
}

// The window's part of lam's gradient, from the gradient of its output.
__device__ __forceinline__ acc_t lam_part_of(
    const scalar_t& spread, const scalar_t& grad) {
#if defined(SPREAD_SIGNED)
  return widen(grad) * widen(spread);
#elif defined(SPREAD_POSITIVE)
  return widen(grad) * unpack_spread(spread);
#else
  const acc_t deviation = unpack_spread(spread);
  return widen(grad) * deviation * deviation;
#endif
}
