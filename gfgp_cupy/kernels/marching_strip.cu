// The march: pooling of contiguous planes whose windows overlap. Threads share nothing: no shared
// memory, no barriers.
//
// A thread owns TILE windows side by side, OWN input columns, and marches down a strip of the
// plane, a row of windows at a time. It holds the KERNEL_H input rows of these windows, with the
// columns that they reach into left and right, loads STRIDE_H rows more for the next ones, and
// keeps the rest. What neighbours read, too, comes from the first-level cache. While it works on a
// row of windows, the rows of the next are on their way.
//
// The backward pass also works on the windows of the neighbours that reach into the thread's own
// columns and rows, and adds up in registers what each element receives.
//
// A program holds one kernel: the backward pass's where a gradient is to be written.
//
// Macros: KERNEL_*, STRIDE_*, PADDING_* (no stride exceeds its kernel);
//         TILE; PACK, elements an access of the own input columns; OUT_PACK, windows an access;
//         FIT, whether the plane's columns and windows are whole groups;
//         WRITE_SPREAD, WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD as in disjoint.cu.
// What follows from the plane's size are arguments: strip_rows, rows of windows a strip; groups of
// columns; plane_threads, of which the last may own nothing; lanes, threads that add up their parts
// of lam's gradient.

// The columns of the windows: so many left and right of the own ones.
#define END (LAST * STRIDE_W - PADDING_W + KERNEL_W)
#define RIGHT (END > OWN ? END - OWN : 0)
#define WIDTH (LEFT + OWN + RIGHT)

// Elements an access of these: of columns that lie inside the plane, or outside, together.
constexpr int pack_of(int count) { return count % PACK ? (count & -count) : PACK; }

#define LEFT_PACK pack_of(LEFT)
#define RIGHT_PACK pack_of(RIGHT)

// Which columns of a thread's patch lie outside the plane.
struct Columns {
  acc_t absent[WIDTH];  // 0, or minus infinity outside the plane
  bool outside[WIDTH];
};

// Whether column `c` of a patch may lie outside. As a function the compiler makes other code of it.
#define MAY_BE_ABSENT(c) (!FIT || (c) < LEFT || (c) >= LEFT + OWN)

__device__ __forceinline__ Columns columns_from(index_t first, const Plane& plane) {
  Columns columns;
#pragma unroll
  for (int c = 0; c < WIDTH; ++c) {
    const index_t at = first - LEFT + c;
    columns.outside[c] = (c < LEFT && at < 0) || ((!FIT || c >= LEFT + OWN) && at >= plane.width);
    columns.absent[c] = columns.outside[c] ? -INFINITY_ : 0;
  }
  return columns;
}

// A row of the patch as memory holds it: it is widened where it is used, so that nothing waits for
// it before.
struct RawRow {
  Pack<LEFT_PACK> left[LEFT / LEFT_PACK + 1];
  Pack<PACK> own[OWN / PACK];
  Pack<RIGHT_PACK> right[RIGHT / RIGHT_PACK + 1];
};

// COUNT elements from `from` on; those from column `c` of the patch on that lie outside are 0.
template <int COUNT, bool INSIDE, int N, int SIZE>
__device__ __forceinline__ void load_packs(
    Pack<N> (&packs)[SIZE], const scalar_t* from, const Columns& columns, int c) {
#pragma unroll
  for (int k = 0; k < COUNT / N; ++k) {
    if (!INSIDE) {
#pragma unroll
      for (int i = 0; i < N; ++i) packs[k].element[i] = 0;
      if (columns.outside[c + k * N]) continue;
    }
    packs[k] = load_pack<N>(from + k * N);
  }
}

// `own` is where the own columns of the row lie.
__device__ __forceinline__ void load_row(
    RawRow& raw, const scalar_t* own, const Columns& columns) {
  load_packs<LEFT, false>(raw.left, own - LEFT, columns, 0);
  load_packs<OWN, FIT>(raw.own, own, columns, LEFT);
  load_packs<RIGHT, false>(raw.right, own + OWN, columns, LEFT + OWN);
}

// Outside the plane: the nearest element inside, which windows that reach there hold, too.
__device__ __forceinline__ void widen_row(
    acc_t (&x)[WIDTH], const RawRow& raw, const Columns& columns) {
#pragma unroll
  for (int c = 0; c < WIDTH; ++c) {
    const int own = c - LEFT;
    const int past = own - OWN;
    x[c] = own < 0     ? widen_from(raw.left[c / LEFT_PACK], c % LEFT_PACK)
           : past >= 0 ? widen_from(raw.right[past / RIGHT_PACK], past % RIGHT_PACK)
                       : widen_from(raw.own[own / PACK], own % PACK);
    if (c > 0 && (!FIT || own >= OWN) && columns.outside[c]) x[c] = x[c - 1];
  }
#pragma unroll
  for (int c = LEFT - 1; c >= 0; --c) {
    if (columns.outside[c]) x[c] = x[c + 1];
  }
}

// The KERNEL_H rows of a row of windows, and those that are on their way.
struct Patch {
  acc_t x[KERNEL_H][WIDTH];
  acc_t absent[KERNEL_H];  // 0, or minus infinity for a row outside the plane
  RawRow next[STRIDE_H];
  index_t row, last;  // the one to be loaded next, and the last that is wanted
  const scalar_t* input;
  index_t first;  // offset of the own columns of the plane's first row
};

// Loads row `row`; instead of one outside the plane, the nearest inside. Behind the last that is
// wanted it loads that one again, from cache, which costs less than to ask. `least` is a constant
// that no row is above.
__device__ __forceinline__ void load_row(
    RawRow& raw, const Patch& patch, index_t row, int least, const Plane& plane,
    const Columns& columns) {
  const index_t wanted = min(least < 0 ? max(row, (index_t)0) : row, patch.last);
  load_row(raw, patch.input + (patch.first + wanted * plane.width), columns);
}

// Loads the rows of the patch of window row o, up to those that are on their way. `first` is the
// offset of the plane's own columns, `end` is past the last row of windows.
__device__ __forceinline__ void start_patch(
    Patch& patch, const scalar_t* input, index_t first, const Plane& plane,
    const Columns& columns, index_t o, index_t end) {
  patch.row = o * STRIDE_H - PADDING_H;
  patch.last = min(plane.height, (end - 1) * STRIDE_H - PADDING_H + KERNEL_H) - 1;
  patch.input = input;
  patch.first = first;
  RawRow raw[KEPT + 1];
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
    load_row(raw[r], patch, patch.row + r, r - PADDING_H, plane, columns);
    patch.absent[r] = absent_row(patch.row + r, r - PADDING_H, plane);
  }
  patch.row += KEPT;
  load_ahead(patch, KEPT - PADDING_H, plane, columns);
#pragma unroll
  for (int r = 0; r < KEPT; ++r) widen_row(patch.x[r], raw[r], columns);
}

// The rows on their way come to be the patch's last.
__device__ __forceinline__ void arrive(
    Patch& patch, const Plane& plane, const Columns& columns) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) {
    widen_row(patch.x[KEPT + r], patch.next[r], columns);
    patch.absent[KEPT + r] =
        absent_row(patch.row - STRIDE_H + r, KEPT + r - PADDING_H, plane);
  }
}

// What a thread owns.
struct Part {
  int plane, strip, group;
  index_t row_begin, row_end;  // of windows
  index_t input_end;           // in the last strip as if windows went on, for rows that have none
};

__device__ __forceinline__ Part own_part(
    const Plane& plane, int number, long long strip_rows, long long plane_threads,
    long long by_plane_threads, long long groups, long long by_groups) {
  Part part;
  part.plane = divide(number, plane_threads, by_plane_threads);
  const int inside = number - part.plane * (int)plane_threads;
  part.strip = divide(inside, groups, by_groups);
  part.group = inside - part.strip * (int)groups;
  part.row_begin = part.strip * (index_t)strip_rows;
  part.row_end = part.row_begin + (index_t)strip_rows;
  part.input_end = part.row_end;
  if (part.row_end >= plane.out_h) {
    part.row_end = plane.out_h;
    part.input_end = (plane.height + PADDING_H - 1) / STRIDE_H + 1;
  }
  return part;
}

#define PARAMETERS                                                                               \
  long long channels, long long height, long long width, long long out_h, long long out_w,       \
      long long lam_n, long long lam_c, long long lam_h, long long lam_w, long long planes,      \
      long long strip_rows, long long lanes, long long plane_threads,                            \
      long long by_plane_threads, long long groups, long long by_groups, long long by_channels
#define OWN_PART                                                                                 \
  own_part(plane, number, strip_rows, plane_threads, by_plane_threads, groups, by_groups)

__device__ __forceinline__ long long lam_offset(
    int plane, long long channels, long long by_channels, long long lam_n, long long lam_c) {
  const int n = divide(plane, channels, by_channels);
  return n * lam_n + (plane - n * (int)channels) * lam_c;
}

#define LAM_OFFSET(plane) lam_offset(plane, channels, by_channels, lam_n, lam_c)

// What a thread works on.
struct Strip {
  Plane plane;
  Part part;
  Columns columns;
  index_t first;  // own window of each row
  const scalar_t* input;
  index_t offset;  // of the own columns of the plane's first row
};

__device__ __forceinline__ Strip strip_of(
    const Plane& plane, const Part& part, const scalar_t* input) {
  const index_t column = part.group * (index_t)OWN;
  return {plane, part, columns_from(column, plane), part.group * (index_t)TILE, input,
          part.plane * (plane.height * plane.width) + column};
}

// Of the own windows of row `o`.
__device__ __forceinline__ index_t window_offset(const Strip& strip, index_t o) {
  return (strip.part.plane * strip.plane.out_h + o) * strip.plane.out_w + strip.first;
}

// Runs do_row for each of the rows, and at_end; or ends where do_row says no. Returns that row.
template <class DoRow, class AtEnd>
__device__ __forceinline__ index_t for_each_row(
    index_t begin, index_t end, const DoRow& do_row, const AtEnd& at_end) {
  for (index_t o = begin; o < end; ++o) {
    if (!do_row(o)) return o;
  }
  at_end();
  return end;
}

// The own windows' numbers, side by side; those past the plane's edge are left out.
__device__ __forceinline__ void store_windows(
    scalar_t* to, const Strip& strip, const Pack<OUT_PACK> (&packs)[TILE / OUT_PACK]) {
#pragma unroll
  for (int k = 0; k < TILE / OUT_PACK; ++k) {
    if (!FIT && strip.first + k * OUT_PACK >= strip.plane.out_w) continue;
    store_pack(to + k * OUT_PACK, packs[k]);
  }
}

__device__ __forceinline__ void store_outputs(
    scalar_t* to, const Strip& strip, const acc_t (&y)[TILE]) {
  Pack<OUT_PACK> packs[TILE / OUT_PACK];
#pragma unroll
  for (int k = 0; k < TILE / OUT_PACK; ++k) {
    acc_t values[OUT_PACK];
#pragma unroll
    for (int w = 0; w < OUT_PACK; ++w) values[w] = y[k * OUT_PACK + w];
    packs[k] = narrow_pack(values);
  }
  store_windows(to, strip, packs);
}

__device__ __forceinline__ void store_spreads(
    scalar_t* to, const Strip& strip, const acc_t (&sensitivity)[TILE]) {
  Pack<OUT_PACK> packs[TILE / OUT_PACK];
#pragma unroll
  for (int w = 0; w < TILE; ++w) {
    packs[w / OUT_PACK].element[w % OUT_PACK] = spread_of(sensitivity[w]);
  }
  store_windows(to, strip, packs);
}

// Of the row of windows `o`.
__device__ __forceinline__ void store_results(
    scalar_t* output, scalar_t* spread, const Strip& strip, index_t o,
    const acc_t (&y)[TILE], const acc_t (&sensitivity)[TILE]) {
  store_outputs(output + window_offset(strip, o), strip, y);
  if (WRITE_SPREAD) store_spreads(spread + window_offset(strip, o), strip, sensitivity);
}

// The numbers of the windows that reach into own columns; 0 for one that does not exist.
struct RawWindows {
  Pack<OUT_PACK> own[TILE / OUT_PACK];
  scalar_t others[WINDOWS - TILE + 1];
};

// Whether it is one of those that this thread owns.
__device__ __forceinline__ bool is_own(int w) { return FIRST + w >= 0 && FIRST + w < TILE; }

__device__ __forceinline__ bool window_exists(const Strip& strip, int w) {
  const int own = FIRST + w;
  return (own >= 0 || strip.first + own >= 0) &&
         ((FIT && own < TILE) || strip.first + own < strip.plane.out_w);
}

// `from` is where those of the own ones lie.
__device__ __forceinline__ void load_windows(
    RawWindows& raw, const scalar_t* from, const Strip& strip) {
#pragma unroll
  for (int k = 0; k < TILE / OUT_PACK; ++k) {
#pragma unroll
    for (int w = 0; w < OUT_PACK; ++w) raw.own[k].element[w] = 0;
    if (!FIT && strip.first + k * OUT_PACK >= strip.plane.out_w) continue;
    raw.own[k] = load_pack<OUT_PACK>(from + k * OUT_PACK);
  }
#pragma unroll
  for (int w = 0; w < WINDOWS; ++w) {
    const int own = FIRST + w, other = own < 0 ? w : w - TILE;
    if (own >= 0 && own < TILE) continue;
    raw.others[other] = 0;
    if (window_exists(strip, w)) raw.others[other] = load(from + own);
  }
}

__device__ __forceinline__ acc_t window_number(const RawWindows& raw, int w) {
  const int own = FIRST + w;
  if (own >= 0 && own < TILE) return widen_from(raw.own[own / OUT_PACK], own % OUT_PACK);
  return widen(raw.others[own < 0 ? w : w - TILE]);
}

// The gradients of an own row; columns past the plane's edge are left out.
__device__ __forceinline__ void store_gradients(
    scalar_t* to, const Strip& strip, const acc_t (&gradient)[OWN]) {
#pragma unroll
  for (int k = 0; k < OWN / PACK; ++k) {
    if (!FIT && strip.columns.outside[LEFT + k * PACK]) continue;
    acc_t values[PACK];
#pragma unroll
    for (int c = 0; c < PACK; ++c) values[c] = gradient[k * PACK + c];
    store_pack(to + k * PACK, narrow_pack(values));
  }
}
