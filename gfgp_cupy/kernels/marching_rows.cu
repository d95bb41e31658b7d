// Max-Ent pooling of contiguous planes whose windows overlap, or that padding or the plane's edge
// cuts. Threads share nothing: no shared memory, no barriers.
//
// A thread owns COLUMNS windows side by side, OWN input columns, and marches down a strip of the
// plane, a row of windows at a time. It holds the KERNEL_H input rows of these windows, with the
// columns that they reach into left and right, loads STRIDE_H rows more for the next ones, and keeps
// the rest. What neighbours read, too, comes from the first-level cache. While it works on a row of
// windows, the rows of the next are on their way.
//
// The backward pass also works on the windows of the neighbours that reach into the thread's own
// columns and rows, and adds up in registers what each element receives.
//
// A program holds one kernel: the backward pass's where a gradient is to be written.
//
// Macros: KERNEL_*, STRIDE_*, PADDING_* (no stride exceeds its kernel);
//         COLUMNS; PACK, elements an access of the own input columns; OUT_PACK, windows an access;
//         FIT, whether the plane's columns and windows are whole groups;
//         WRITE_SPREAD, WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD as in disjoint.cu.
// What follows from the plane's size are arguments: strip_rows, rows of windows a strip; groups of
// columns; plane_threads, of which the last may own nothing; lanes, see below.
//
// Rows are counted from the padded plane's top: row q of the padded plane belongs to the windows
// q / STRIDE_H - HALO_H ... q / STRIDE_H. So the rows that no window below needs, once the windows
// of row o are done, are o STRIDE_H ... o STRIDE_H + STRIDE_H - 1.

#define OWN (COLUMNS * STRIDE_W)
#define HALO_H (WRITE_GRAD_INPUT ? (KERNEL_H - 1) / STRIDE_H : 0)
#define KEPT (KERNEL_H - STRIDE_H)

// The windows that reach into own columns, counted from the first own window.
#define FIRST (WRITE_GRAD_INPUT ? -((KERNEL_W - 1 - PADDING_W) / STRIDE_W) : 0)
#define LAST (WRITE_GRAD_INPUT ? (OWN - 1 + PADDING_W) / STRIDE_W : COLUMNS - 1)
#define WINDOWS (LAST - FIRST + 1)

// The columns of these windows: so many left and right of the own ones.
#define LEFT (PADDING_W - FIRST * STRIDE_W)
#define END (LAST * STRIDE_W - PADDING_W + KERNEL_W)
#define RIGHT (END > OWN ? END - OWN : 0)
#define WIDTH (LEFT + OWN + RIGHT)

// Elements an access of these: of columns that lie inside the plane, or outside, together.
constexpr int pack_of(int count) { return count % PACK ? (count & -count) : PACK; }

#define LEFT_PACK pack_of(LEFT)
#define RIGHT_PACK pack_of(RIGHT)

#define INFINITY_ ((acc_t)__int_as_float(0x7f800000))

struct Plane {
  index_t height, width, out_h, out_w;
};

// n / divisor for n < 2^31, by what marching_rows.py made of the divisor.
__device__ __forceinline__ int divided(int n, long long magic, long long shift) {
  const unsigned product = (unsigned)(((unsigned long long)(unsigned)n * (unsigned)magic) >> 32);
  return (int)((product + (unsigned)n) >> (int)shift);
}

// Which columns of a thread's patch lie outside the plane.
struct Columns {
  acc_t absent[WIDTH];  // 0, or minus infinity outside the plane
  bool outside[WIDTH];
};

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
    x[c] = widen(own < 0     ? raw.left[c / LEFT_PACK].element[c % LEFT_PACK]
                 : past >= 0 ? raw.right[past / RIGHT_PACK].element[past % RIGHT_PACK]
                             : raw.own[own / PACK].element[own % PACK]);
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
  RawRow raw[STRIDE_H];
  acc_t raw_absent[STRIDE_H];
  index_t row;            // the one to be loaded next
  const scalar_t* place;  // where its own columns lie
};

// Loads the next row; instead of one outside the plane, the nearest inside.
__device__ __forceinline__ void load_next(
    RawRow& raw, acc_t& absent, Patch& patch, const Plane& plane, const Columns& columns) {
  load_row(raw, patch.place, columns);
  absent = patch.row < 0 || patch.row >= plane.height ? -INFINITY_ : 0;
  ++patch.row;
  if (patch.row > 0 && patch.row < plane.height) patch.place += plane.width;
}

__device__ __forceinline__ void load_ahead(
    Patch& patch, const Plane& plane, const Columns& columns) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) {
    load_next(patch.raw[r], patch.raw_absent[r], patch, plane, columns);
  }
}

// Loads the rows of the patch of window row o, up to those that are on their way. `input` is where
// the own columns of the plane begin.
__device__ __forceinline__ void start_patch(
    Patch& patch, const scalar_t* input, const Plane& plane, const Columns& columns, index_t o) {
  patch.row = o * STRIDE_H - PADDING_H;
  patch.place = input + min(max(patch.row, (index_t)0), plane.height - 1) * plane.width;
  RawRow raw[KEPT + 1];
#pragma unroll
  for (int r = 0; r < KEPT; ++r) load_next(raw[r], patch.absent[r], patch, plane, columns);
  load_ahead(patch, plane, columns);
#pragma unroll
  for (int r = 0; r < KEPT; ++r) widen_row(patch.x[r], raw[r], columns);
}

// The rows on their way come to be the patch's last.
__device__ __forceinline__ void arrive(Patch& patch, const Columns& columns) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) {
    widen_row(patch.x[KEPT + r], patch.raw[r], columns);
    patch.absent[KEPT + r] = patch.raw_absent[r];
  }
}

__device__ __forceinline__ void move_down(Patch& patch) {
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < WIDTH; ++c) patch.x[r][c] = patch.x[STRIDE_H + r][c];
    patch.absent[r] = patch.absent[STRIDE_H + r];
  }
}

// The elements of window `w` of the patch, counted from the first that reaches into it.
__device__ __forceinline__ void take_window(acc_t (&x)[TAPS], const Patch& patch, int w) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    x[tap] = patch.x[tap / KERNEL_W][w * STRIDE_W + tap % KERNEL_W];
  }
}

// Their windows' references. Branches hold a loop each, since the compiler would find both the least
// and the largest.
__device__ __forceinline__ void find_references(
    acc_t (&reference)[WINDOWS], const Patch& patch, const Parameter& of) {
  if (of.lam < 0) {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      acc_t x[TAPS];
      take_window(x, patch, w);
      reference[w] = chosen(x, [](acc_t a, acc_t b) { return min(a, b); });
    }
  } else {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      acc_t x[TAPS];
      take_window(x, patch, w);
      reference[w] = chosen(x, [](acc_t a, acc_t b) { return max(a, b); });
    }
  }
}

__device__ __forceinline__ Window own_window(
    const Patch& patch, const Columns& columns, int w, acc_t reference, const Parameter& of) {
  acc_t x[TAPS], absent[TAPS];
  take_window(x, patch, w);
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int c = w * STRIDE_W + tap % KERNEL_W;
    const bool edge = !FIT || c < LEFT || c >= LEFT + OWN;
    const acc_t row = patch.absent[tap / KERNEL_W];
    absent[tap] = edge ? row + columns.absent[c] : row;
  }
  return window_of(x, absent, reference, of);
}

// What a thread owns.
struct Part {
  int plane, strip, group;
  index_t row_begin, row_end;  // of windows; one more where the last rows of input have none
};

__device__ __forceinline__ Part own_part(
    const Plane& plane, int number, long long strip_rows, long long plane_threads,
    long long plane_magic, long long plane_shift, long long groups, long long groups_magic,
    long long groups_shift) {
  Part part;
  part.plane = divided(number, plane_magic, plane_shift);
  const int inside = number - part.plane * (int)plane_threads;
  part.strip = divided(inside, groups_magic, groups_shift);
  part.group = inside - part.strip * (int)groups;
  part.row_begin = part.strip * (index_t)strip_rows;
  const index_t rows = (plane.height + PADDING_H - 1) / STRIDE_H + 1;
  part.row_end = min(
      part.row_begin + (index_t)strip_rows, WRITE_GRAD_INPUT ? rows : plane.out_h);
  return part;
}

#define PARAMETERS                                                                               \
  long long channels, long long height, long long width, long long out_h, long long out_w,       \
      long long lam_n, long long lam_c, long long lam_h, long long lam_w, long long planes,      \
      long long strip_rows, long long lanes, long long plane_threads, long long plane_magic,     \
      long long plane_shift, long long groups, long long groups_magic, long long groups_shift,   \
      long long channels_magic, long long channels_shift
#define OWN_PART                                                                                 \
  own_part(plane, number, strip_rows, plane_threads, plane_magic, plane_shift, groups,           \
           groups_magic, groups_shift)

__device__ __forceinline__ index_t lam_offset(
    int plane, long long channels, long long lam_n, long long lam_c, long long channels_magic,
    long long channels_shift) {
  const int n = divided(plane, channels_magic, channels_shift);
  return n * (index_t)lam_n + (plane - n * (int)channels) * (index_t)lam_c;
}

#define LAM_OFFSET(plane)                                                                        \
  lam_offset(plane, channels, lam_n, lam_c, channels_magic, channels_shift)

// The own windows' numbers, side by side; those past the plane's edge are left out.
__device__ __forceinline__ void store_windows(
    scalar_t* to, index_t first, const Plane& plane, const scalar_t (&value)[COLUMNS]) {
#pragma unroll
  for (int k = 0; k < COLUMNS / OUT_PACK; ++k) {
    if (!FIT && first + k * OUT_PACK >= plane.out_w) continue;
    Pack<OUT_PACK> pack;
#pragma unroll
    for (int w = 0; w < OUT_PACK; ++w) pack.element[w] = value[k * OUT_PACK + w];
    store_pack(to + k * OUT_PACK, pack);
  }
}

// Two at a time: the registers of what arrives are those of what is kept every other time.
#define FOR_EACH_ROW(begin, end, do_row)       \
  for (index_t o = begin; o < (end); o += 2) { \
    do_row(o);                                 \
    if (o + 1 == (end)) break;                 \
    do_row(o + 1);                             \
  }

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads the strip's part of the input, once but for what it shares with neighbours, and lam; writes
// one output element, and where WRITE_SPREAD the standard deviation, of each own window. Traffic:
// X + O; with the spread X + 2 O.
extern "C" __global__ void __launch_bounds__(128, sizeof(scalar_t) == 2 ? 5 : 6) max_ent_pool2d_rows_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, PARAMETERS) {
  const Plane plane = {(index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w};
  const int number = blockIdx.x * 128 + threadIdx.x;
  const Part part = OWN_PART;
  if (part.plane >= planes) return;
  const scalar_t* from = input + part.plane * (plane.height * plane.width) + part.group * OWN;
  const Columns columns = columns_from(part.group * OWN, plane);
  const index_t first = part.group * COLUMNS;
  const index_t to = (part.plane * plane.out_h + part.row_begin) * plane.out_w + first;
  output += to;
  if (WRITE_SPREAD) spread += to;
  Patch patch;
  const Parameter of = parameter(load(lam + LAM_OFFSET(part.plane)));
  start_patch(patch, from, plane, columns, part.row_begin);
  const auto do_row = [&](index_t o) {
    arrive(patch, columns);
    if (o + 1 < part.row_end) load_ahead(patch, plane, columns);
    scalar_t y[COLUMNS], deviation[COLUMNS];
    acc_t reference[WINDOWS];
    find_references(reference, patch, of);
#pragma unroll
    for (int w = 0; w < COLUMNS; ++w) {
      const Window window = own_window(patch, columns, w, reference[w], of);
      acc_t x[TAPS];
      take_window(x, patch, w);
      y[w] = narrow(mean(x, window));
      if (WRITE_SPREAD) deviation[w] = pack_spread(square_root(variance(window)));
    }
    store_windows(output, first, plane, y);
    output += plane.out_w;
    if (WRITE_SPREAD) {
      store_windows(spread, first, plane, deviation);
      spread += plane.out_w;
    }
    move_down(patch);
  };
  FOR_EACH_ROW(part.row_begin, part.row_end, do_row)
}

#else

// The numbers of the windows that reach into own columns; 0 for one that does not exist.
struct RawWindows {
  Pack<OUT_PACK> own[COLUMNS / OUT_PACK];
  scalar_t others[WINDOWS - COLUMNS + 1];
};

__device__ __forceinline__ bool window_exists(const Plane& plane, index_t first, int w) {
  const int own = FIRST + w;
  return (own >= 0 || first + own >= 0) &&
         ((FIT && own < COLUMNS) || first + own < plane.out_w);
}

// `from` is where those of the own ones lie.
__device__ __forceinline__ void load_windows(
    RawWindows& raw, const scalar_t* from, const Plane& plane, index_t first) {
#pragma unroll
  for (int k = 0; k < COLUMNS / OUT_PACK; ++k) {
#pragma unroll
    for (int w = 0; w < OUT_PACK; ++w) raw.own[k].element[w] = 0;
    if (!FIT && first + k * OUT_PACK >= plane.out_w) continue;
    raw.own[k] = load_pack<OUT_PACK>(from + k * OUT_PACK);
  }
#pragma unroll
  for (int w = 0; w < WINDOWS; ++w) {
    const int own = FIRST + w, other = own < 0 ? w : w - COLUMNS;
    if (own >= 0 && own < COLUMNS) continue;
    raw.others[other] = 0;
    if (window_exists(plane, first, w)) raw.others[other] = load(from + own);
  }
}

// Reads the strip's part of the input and of grad_output, with the neighbours' windows that reach
// into it, and lam; writes each own element's gradient, and where WRITE_GRAD_LAM, for `lanes`
// threads of a plane together, their part of lam's gradient. Traffic: 2 X + O.
extern "C" __global__ void __launch_bounds__(128, 4) max_ent_pool2d_rows_backward(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, PARAMETERS) {
  const Plane plane = {(index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w};
  const int number = blockIdx.x * 128 + threadIdx.x;
  const Part part = OWN_PART;
  if (!WRITE_GRAD_LAM && part.plane >= planes) return;
  acc_t lam_part = 0;
  if (!WRITE_GRAD_LAM || (part.plane < planes && part.row_begin < part.row_end)) {
    const index_t plane_offset = part.plane * (plane.height * plane.width);
    const scalar_t* from = input + plane_offset + part.group * OWN;
    const Columns columns = columns_from(part.group * OWN, plane);
    const index_t first = part.group * COLUMNS;
    const index_t begin = max(part.row_begin - HALO_H, (index_t)0);
    Patch patch;
    RawWindows raw_grads;
    const scalar_t* grads =
        grad_output + (part.plane * plane.out_h + min(begin, plane.out_h - 1)) * plane.out_w +
        first;
    load_windows(raw_grads, grads, plane, first);
    const Parameter of = parameter(load(lam + LAM_OFFSET(part.plane)));
    const acc_t added = ADD_MEAN_GRAD ? load(mean_grad + part.plane) : 0;
    start_patch(patch, from, plane, columns, begin);
    scalar_t* to = grad_input + plane_offset + part.group * OWN +
                   (begin * STRIDE_H - PADDING_H) * plane.width;
    acc_t gradient[KERNEL_H][OWN];
#pragma unroll
    for (int r = 0; r < KEPT; ++r) {
#pragma unroll
      for (int c = 0; c < OWN; ++c) gradient[r][c] = added;
    }
    const auto do_row = [&](index_t o) {
      arrive(patch, columns);
      const RawWindows arrived = raw_grads;
      if (o + 1 < part.row_end) {
        load_ahead(patch, plane, columns);
        if (o + 1 < plane.out_h) grads += plane.out_w;
        load_windows(raw_grads, grads, plane, first);
      }
#pragma unroll
      for (int r = KEPT; r < KERNEL_H; ++r) {
#pragma unroll
        for (int c = 0; c < OWN; ++c) gradient[r][c] = added;
      }
      if (o < plane.out_h) {
        acc_t reference[WINDOWS];
        find_references(reference, patch, of);
#pragma unroll
        for (int w = 0; w < WINDOWS; ++w) {
          const int own = FIRST + w;
          const bool mine = own >= 0 && own < COLUMNS;
          const bool exists = window_exists(plane, first, w);
          const acc_t grad = widen(mine      ? arrived.own[own / OUT_PACK].element[own % OUT_PACK]
                                   : own < 0 ? arrived.others[w]
                                             : arrived.others[w - COLUMNS]);
          const Window window = own_window(patch, columns, w, reference[w], of);
          if (WRITE_GRAD_LAM && mine && o >= part.row_begin && exists) {
            lam_part = fma(grad, variance(window), lam_part);
          }
          if (WRITE_GRAD_INPUT) {
            const Sent back = sent(window, of, grad);
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
              const int r = tap / KERNEL_W, c = w * STRIDE_W + tap % KERNEL_W - LEFT;
              if (c < 0 || c >= OWN) continue;
              const acc_t sum = received(window, back, tap, gradient[r][c]);
              gradient[r][c] = exists ? sum : gradient[r][c];
            }
          }
        }
      }
      if (WRITE_GRAD_INPUT) {
#pragma unroll
        for (int r = 0; r < STRIDE_H; ++r) {
          const index_t row = o * STRIDE_H - PADDING_H + r;
          const bool wanted = o >= part.row_begin && row >= 0 && row < plane.height;
#pragma unroll
          for (int k = 0; k < OWN / PACK; ++k) {
            if (!wanted || (!FIT && columns.outside[LEFT + k * PACK])) continue;
            Pack<PACK> result;
#pragma unroll
            for (int c = 0; c < PACK; ++c) {
              result.element[c] = narrow(gradient[r][k * PACK + c]);
            }
            store_pack(to + k * PACK, result);
          }
          to += plane.width;
        }
#pragma unroll
        for (int r = 0; r < KEPT; ++r) {
#pragma unroll
          for (int c = 0; c < OWN; ++c) gradient[r][c] = gradient[STRIDE_H + r][c];
        }
      }
      move_down(patch);
    };
    FOR_EACH_ROW(begin, part.row_end, do_row)
  }
  if (WRITE_GRAD_LAM) {
    for (int half = (int)lanes / 2; half; half /= 2) {
      lam_part += __shfl_down_sync(0xffffffffu, lam_part, half, 32);
    }
    if (part.plane < planes && threadIdx.x % (int)lanes == 0) {
      const int n = divided(part.plane, channels_magic, channels_shift);
      const int chunks = (int)plane_threads / (int)lanes;
      const int chunk = (number - part.plane * (int)plane_threads) / (int)lanes;
      store(grad_lam + (n * chunks + chunk) * (index_t)channels + part.plane -
                n * (int)channels,
            lam_part);
    }
  }
}

#endif
