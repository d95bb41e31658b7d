// number / divisor for 0 <= number < 2^31, without a division: lanes.py makes `inverse`, of a
// multiplier below 2^32 and a shift. 64-bit numbers are divided.
template <class Number>
__device__ __forceinline__ Number divide(Number number, long long divisor, long long inverse) {
  if (sizeof(Number) > sizeof(int)) return number / divisor;
  const unsigned multiplier = (unsigned)inverse, above = (unsigned)number + 1;
#ifdef GFGP_HOST
  const unsigned high = (unsigned)((unsigned long long)above * multiplier >> 32);
#else
  const unsigned high = __umulhi(above, multiplier);
#endif
  return high >> (int)(inverse >> 32);
}
