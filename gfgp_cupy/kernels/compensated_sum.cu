// A sum that keeps what rounding loses, for the next term: a window may have 50,000.
struct CompensatedSum {
  acc_t total = 0, lost = 0;
  __device__ __forceinline__ void add(acc_t term) {
    const acc_t owed = term - lost, next = total + owed;
    lost = next - next == 0 ? (next - total) - owed : 0;  // nothing is lost of an infinite sum
    total = next;
  }
};
