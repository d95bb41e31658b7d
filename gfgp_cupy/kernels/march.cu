// What the marches of marching_strip.cu and marching_tile.cu have in common.
//
// Macros: KERNEL_*, STRIDE_*, PADDING_* (no stride exceeds its kernel); TILE, windows side by side
//         that a thread owns; WRITE_GRAD_INPUT.
//
// Rows are counted from the padded plane's top: row q of the padded plane belongs to the windows
// q / STRIDE_H - HALO_H ... q / STRIDE_H. So the rows that no window below needs, once the windows
// of row o are done, are o STRIDE_H ... o STRIDE_H + STRIDE_H - 1.

#define OWN (TILE * STRIDE_W)
#define HALO_H (WRITE_GRAD_INPUT ? (KERNEL_H - 1) / STRIDE_H : 0)
#define KEPT (KERNEL_H - STRIDE_H)

// The windows that reach into own columns, counted from the first own window.
#define FIRST (WRITE_GRAD_INPUT ? -((KERNEL_W - 1 - PADDING_W) / STRIDE_W) : 0)
#define LAST (WRITE_GRAD_INPUT ? (OWN - 1 + PADDING_W) / STRIDE_W : TILE - 1)
#define WINDOWS (LAST - FIRST + 1)

// So many of their columns lie left of the own ones.
#define LEFT (PADDING_W - FIRST * STRIDE_W)

#define INFINITY_ ((acc_t)__int_as_float(0x7f800000))

struct Plane {
  index_t height, width, out_h, out_w;
};

// Whether 0 <= number < end, in one comparison.
__device__ __forceinline__ bool in_range(index_t number, index_t end) {
  if (sizeof(index_t) > sizeof(int)) return (unsigned long long)number < (unsigned long long)end;
  return (unsigned)number < (unsigned)end;
}

// `least` is a constant that the row is not above.
__device__ __forceinline__ acc_t absent_row(index_t row, int least, const Plane& plane) {
  const bool inside = least < 0 ? in_range(row, plane.height) : row < plane.height;
  return inside ? 0 : -INFINITY_;
}

// Loads what the next row of windows wants.
template <class Patch, class Columns>
__device__ __forceinline__ void load_ahead(
    Patch& patch, int least, const Plane& plane, const Columns& columns) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) {
    load_row(patch.next[r], patch, patch.row + r, least + r, plane, columns);
  }
  patch.row += STRIDE_H;
}

// Adds what window `w` sends to what own columns get of the row's windows before it.
template <class Shares>
__device__ __forceinline__ void add_shares(Shares (&shares)[OWN], int w, const Shares& sent) {
#pragma unroll
  for (int k = 0; k < KERNEL_W; ++k) {
    const int c = w * STRIDE_W + k - LEFT;
    if (c < 0 || c >= OWN) continue;
    // Window w is the first that holds the column, or the one before has set the sums.
    const bool first = w == 0 || k + STRIDE_W >= KERNEL_W;
    shares[c] = first ? sent : sum_of(shares[c], sent);
  }
}

// The rows that the next row of windows wants, too, move up in the patch.
template <class Patch>
__device__ __forceinline__ void move_down(Patch& patch) {
  constexpr int width = sizeof(patch.x[0]) / sizeof(patch.x[0][0]);
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < width; ++c) patch.x[r][c] = patch.x[STRIDE_H + r][c];
    patch.absent[r] = patch.absent[STRIDE_H + r];
  }
}
