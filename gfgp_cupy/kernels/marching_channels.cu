// Max-Ent pooling of windows that overlap, or that padding or the plane's edge cuts, channels_last.
//
// A thread owns VECTOR neighbouring channels of a tile of the plane, TILE windows wide and
// strip_rows high, and marches down it, a row of windows at a time. Neighbouring threads own
// neighbouring channels of the same tile, so that a warp's accesses are dense. A row of the input
// is read while the thread works on the rows above it. No shared memory, no barriers: the columns
// and rows that neighbouring tiles share are read by each of them, from the first-level cache where
// a block holds both.
//
// An element's exponential is computed once, relative to a reference that all the thread's windows
// of a channel share, and so are each row's sums of e and of e d over the columns of a window.
// Where a window lies too far from the reference for that, it is computed by itself, as window.cu
// does, from memory: see `LEAST_TOTAL`.
//
// A program holds one kernel: the backward pass's where a gradient is to be written.
//
// Macros: KERNEL_*, STRIDE_* (no larger than KERNEL_*), PADDING_*; VECTOR; TILE; WRITE_SPREAD,
//         WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD as in disjoint.cu.
//
// Rows and columns are counted from the padded plane's corner ("padded rows"), so that window o
// begins at o * STRIDE, and row q belongs to the windows q / STRIDE - HALO ... q / STRIDE.

#define BLOCK 128
#define BACKWARD (WRITE_GRAD_INPUT || WRITE_GRAD_LAM)

// Blocks that a multiprocessor is to hold. Left alone, the compiler spills registers to make room
// for more; the most common windows have the room for these without that.
constexpr int wanted_blocks() {
  if (sizeof(index_t) > 4 || KERNEL_H * KERNEL_W > 9 || STRIDE_H < 2 || STRIDE_W < 2) return 1;
  if (BACKWARD) return VECTOR == 2 ? 3 : WRITE_GRAD_LAM || ADD_MEAN_GRAD ? 4 : 5;
  return !WRITE_SPREAD ? 6 : VECTOR == 2 ? 4 : 5;
}
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, wanted_blocks())

// Windows above a strip and left of a tile that reach its elements, whose gradients need them.
#define HALO_H (BACKWARD ? (KERNEL_H - 1) / STRIDE_H : 0)
#define HALO_W (BACKWARD ? (KERNEL_W - 1) / STRIDE_W : 0)
#define WINDOWS (TILE + HALO_W)                         // of a row, that the thread sums up
#define COLUMNS ((WINDOWS - 1) * STRIDE_W + KERNEL_W)  // of a row, that it reads
#define OWN_COLUMNS (TILE * STRIDE_W)                  // whose gradients it writes
#define SHARED_ROWS (KERNEL_H - STRIDE_H)              // of a window and the next one below

// The total of a window's weights for which the sums hold: in it, no weight that was flushed to 0
// matters, and no exponent was so large that its rounding shows.
#define LEAST_TOTAL 2.3283064e-10f  // 2^-32
#define MOST_TOTAL 4.2949673e9f     // 2^32
#define MOST_RESULT 1e37f           // beyond which sums may have overflowed on the way

// ---------------------------------------------------------------- the formula
// Max-Ent pooling in the form that the march wants: e and d of an element; y, and the a and c with
// which a window's output sends e (a d + c) times its gradient back to an element.

// A product that is rounded before it is added, in every program alike: the compiler would contract
// it in some and not in others.
__device__ __forceinline__ acc_t product(acc_t a, acc_t b) {
#if defined(GFGP_HOST)
  return a * b;
#else
  return __fmul_rn(a, b);
#endif
}

// What a thread's windows of one channel share.
struct Formula {
  acc_t lambda, scale;  // scale = lam log2(e)
  acc_t origin;         // d = x - origin
  acc_t shift;          // e = 2^(scale d + shift)
};

// `extreme` is an element of the tile: the largest of some, or the smallest where lam < 0.
// The forward pass has no origin: rounding takes nothing from d, and where all windows lie near
// 0 (shift = 0) a window's result is the same in any tile. For derivatives d has to be small.
__device__ __forceinline__ Formula formula_of(acc_t lambda, acc_t extreme) {
  const acc_t scale = LOG2_E * lambda;
  const bool finite = extreme - extreme == 0;
  if (BACKWARD) return {lambda, scale, finite ? extreme : 0, 0};
  const acc_t quantum = 32;
  const acc_t shift = -quantum * floor(fma(scale * extreme, 1 / quantum, (acc_t)0.5));
  return {lambda, scale, 0, shift - shift == 0 ? shift : 0};
}

__device__ __forceinline__ acc_t deviation_of(acc_t x, const Formula& formula) {
  return BACKWARD ? x - formula.origin : x;
}

__device__ __forceinline__ acc_t weight_of(acc_t deviation, const Formula& formula) {
  return power_of_two(fma(deviation, formula.scale, formula.shift));
}

struct Slope {
  acc_t a, c;
};

// Of a window whose weights' inverse total and whose mean of d are known.
__device__ __forceinline__ Slope slope_of(
    acc_t grad, acc_t inverse_total, acc_t mean, const Formula& formula) {
  const acc_t sent = product(grad, inverse_total), a = product(formula.lambda, sent);
  return {a, fma(-mean, a, sent)};
}

// ---------------------------------------------------------------- memory

// VECTOR channels as memory holds them. Half types are widened where they are used: the registers
// that wait for memory hold two of them each.
#if VECTOR == 2 && (defined(DTYPE_FLOAT16) || defined(DTYPE_BFLOAT16))

typedef unsigned Raw;

__device__ __forceinline__ acc_t widen(Raw raw, int v) {
  return widen((scalar_t)(v == 0 ? raw & 0xffffu : raw >> 16));
}

__device__ __forceinline__ Raw raw_of(const scalar_t (&element)[VECTOR]) {
  return element[0] | (unsigned)element[1] << 16;
}

__device__ __forceinline__ Raw narrow(const acc_t (&value)[VECTOR]) {
#if !defined(GFGP_HOST) && defined(DTYPE_BFLOAT16) && __CUDA_ARCH__ >= 800
  Raw raw;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(raw) : "f"(value[1]), "f"(value[0]));
  return raw;
#elif !defined(GFGP_HOST) && defined(DTYPE_FLOAT16) && __CUDA_ARCH__ >= 800
  Raw raw;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(raw) : "f"(value[1]), "f"(value[0]));
  return raw;
#else
  const scalar_t element[VECTOR] = {narrow(value[0]), narrow(value[1])};
  return raw_of(element);
#endif
}

#else

typedef Pack<VECTOR> Raw;

__device__ __forceinline__ acc_t widen(const Raw& raw, int v) { return widen(raw.element[v]); }

__device__ __forceinline__ Raw raw_of(const scalar_t (&element)[VECTOR]) {
  Raw raw;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) raw.element[v] = element[v];
  return raw;
}

__device__ __forceinline__ Raw narrow(const acc_t (&value)[VECTOR]) {
  Raw raw;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) raw.element[v] = narrow(value[v]);
  return raw;
}

#endif

__device__ __forceinline__ Raw load_raw(const scalar_t* address) {
  return load(reinterpret_cast<const Raw*>(address));
}

__device__ __forceinline__ void store_raw(scalar_t* address, const Raw& raw) {
  store(reinterpret_cast<Raw*>(address), raw);
}

// ---------------------------------------------------------------- places

// How threads are numbered: by samples, groups of `lanes` threads along the channels, strips,
// tiles, then lanes.
struct Deal {
  index_t lanes, tiles, strips, strip_rows;
};

struct Plane {
  index_t channels, height, width, out_h, out_w;
};

struct Tile {
  index_t n, channel, number;  // sample, first channel, which of the plane's tiles
  index_t row, row_end;        // own rows of windows, those that do not exist included
  index_t column;              // first own column of windows
};

// Of a number that is not negative: takes off the last digit, in a system with `base` digits.
__device__ __forceinline__ index_t next_digit(index_t& number, index_t base) {
  // Unsigned, where that is shorter.
  const index_t others =
      sizeof(index_t) == 4 ? (index_t)((unsigned)number / (unsigned)base) : number / base;
  const index_t digit = number - others * base;
  number = others;
  return digit;
}

__device__ __forceinline__ Tile tile_of(const Deal& deal, const Plane& plane, index_t thread) {
  index_t rest = thread, row, column;
  Tile tile;
  const index_t lane = next_digit(rest, deal.lanes);
  column = next_digit(rest, deal.tiles);
  row = next_digit(rest, deal.strips);
  const index_t group = next_digit(rest, plane.channels / VECTOR / deal.lanes);
  tile.n = rest;
  tile.channel = (group * deal.lanes + lane) * VECTOR;
  tile.number = row * deal.tiles + column;
  tile.row = row * deal.strip_rows;
  // At least as many as there are windows, since no window begins past the plane's end.
  const index_t rows = BACKWARD ? (plane.height + PADDING_H - 1) / STRIDE_H + 1 : plane.out_h;
  tile.row_end = min(tile.row + deal.strip_rows, rows);
  tile.column = column * TILE;
  return tile;
}

// ---------------------------------------------------------------- rows

struct Row {
  acc_t deviation[COLUMNS][VECTOR], weight[COLUMNS][VECTOR];
  acc_t total[WINDOWS][VECTOR], weighted[WINDOWS][VECTOR];  // sums over the columns of a window
};

// A thread's columns. Where the plane's edge cuts the tile, those outside repeat the nearest one
// and weigh nothing.
struct Columns {
  index_t first;    // of the input's columns, may be outside
  unsigned inside;  // a bit for each that is inside
  bool cut;         // whether one is not
};

__device__ __forceinline__ Columns columns_from(const Plane& plane, index_t first) {
  Columns columns = {first, 0, first < 0 || first + COLUMNS > plane.width};
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    if (first + c >= 0 && first + c < plane.width) columns.inside |= 1u << c;
  }
  return columns;
}

// Of the channels whose first element is input[sample]. A padded row outside the plane: the nearest
// one.
__device__ __forceinline__ void load_row(
    const scalar_t* input, index_t sample, const Plane& plane, const Columns& columns,
    index_t padded_row, Raw (&raw)[COLUMNS]) {
  const index_t row = min(max(padded_row - PADDING_H, (index_t)0), plane.height - 1);
  const index_t first = sample + row * (plane.width * plane.channels);
  if (columns.cut) {
    const scalar_t* from = input + first;
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const index_t column = min(max(columns.first + c, (index_t)0), plane.width - 1);
      raw[c] = load_raw(from + column * plane.channels);
    }
  } else {
    const scalar_t* from = input + (first + columns.first * plane.channels);
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c, from += plane.channels) raw[c] = load_raw(from);
  }
}

__device__ __forceinline__ void weigh_row(
    const Raw (&raw)[COLUMNS], const Plane& plane, index_t padded_row,
    const Formula (&formula)[VECTOR], const Columns& columns, Row& row) {
  const bool inside = padded_row >= PADDING_H && padded_row < plane.height + PADDING_H;
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      row.deviation[c][v] = deviation_of(widen(raw[c], v), formula[v]);
    }
  }
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      row.weight[c][v] = weight_of(row.deviation[c][v], formula[v]);
    }
  }
  if (columns.cut || !inside) {
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        if (!inside || !(columns.inside >> c & 1)) row.weight[c][v] = 0;
      }
    }
  }
#pragma unroll
  for (int w = 0; w < WINDOWS; ++w) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      acc_t total = row.weight[w * STRIDE_W][v];
      acc_t weighted = product(total, row.deviation[w * STRIDE_W][v]);
#pragma unroll
      for (int j = 1; j < KERNEL_W; ++j) {
        const acc_t weight = row.weight[w * STRIDE_W + j][v];
        total += weight;
        weighted = fma(weight, row.deviation[w * STRIDE_W + j][v], weighted);
      }
      row.total[w][v] = total;
      row.weighted[w][v] = weighted;
    }
  }
}

// The last rows of a row of windows become the first ones of the next.
__device__ __forceinline__ void move_down(Row (&rows)[KERNEL_H]) {
#pragma unroll
  for (int i = 0; i < SHARED_ROWS; ++i) rows[i] = rows[i + STRIDE_H];
}

struct Sums {
  acc_t total, weighted;
};

__device__ __forceinline__ Sums sums_of(const Row (&rows)[KERNEL_H], int w, int v) {
  Sums sums = {rows[0].total[w][v], rows[0].weighted[w][v]};
#pragma unroll
  for (int i = 1; i < KERNEL_H; ++i) {
    sums.total += rows[i].total[w][v];
    sums.weighted += rows[i].weighted[w][v];
  }
  return sums;
}

// Of window w's elements, the sum of weight (d - mean)^2.
__device__ __forceinline__ acc_t squares_of(
    const Row (&rows)[KERNEL_H], int w, int v, acc_t mean) {
  acc_t sum = 0;
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
#pragma unroll
    for (int j = 0; j < KERNEL_W; ++j) {
      const acc_t deviation = rows[i].deviation[w * STRIDE_W + j][v] - mean;
      // In this order: a weight of 0 must not meet an infinite square.
      sum = fma(rows[i].weight[w * STRIDE_W + j][v] * deviation, deviation, sum);
    }
  }
  return sum;
}

// A thread's march: what it works on, and the rows that memory is asked for meanwhile.
struct March {
  Formula formula[VECTOR];
  Row rows[KERNEL_H];         // of the present row of windows, from the top
  Raw arriving[STRIDE_H][COLUMNS];  // the last of them before they are weighed
};

// Reads the upper rows of the row of windows `row` and asks for the others.
__device__ __forceinline__ void start_march(
    March& march, const scalar_t* input, index_t sample, const Plane& plane,
    const Columns& columns, index_t row, const acc_t (&lambda)[VECTOR]) {
  Raw raw[SHARED_ROWS + 1][COLUMNS];
#pragma unroll
  for (int i = 0; i < SHARED_ROWS; ++i) {
    load_row(input, sample, plane, columns, row * STRIDE_H + i, raw[i]);
  }
#pragma unroll
  for (int i = 0; i < STRIDE_H; ++i) {
    load_row(input, sample, plane, columns, row * STRIDE_H + SHARED_ROWS + i, march.arriving[i]);
  }
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    acc_t extreme = widen(march.arriving[0][0], v);
#pragma unroll
    for (int c = 1; c < COLUMNS; ++c) {
      const acc_t x = widen(march.arriving[0][c], v);
      extreme = lambda[v] < 0 ? min(extreme, x) : max(extreme, x);
    }
    march.formula[v] = formula_of(lambda[v], extreme);
  }
#pragma unroll
  for (int i = 0; i < SHARED_ROWS; ++i) {
    weigh_row(raw[i], plane, row * STRIDE_H + i, march.formula, columns, march.rows[i]);
  }
}

// Weighs the rows that have arrived for the row of windows `row`.
__device__ __forceinline__ void weigh_arrived(
    March& march, const Plane& plane, const Columns& columns, index_t row) {
#pragma unroll
  for (int i = SHARED_ROWS; i < KERNEL_H; ++i) {
    weigh_row(
        march.arriving[i - SHARED_ROWS], plane, row * STRIDE_H + i, march.formula, columns,
        march.rows[i]);
  }
}

__device__ __forceinline__ void ask_for_rows(
    March& march, const scalar_t* input, index_t sample, const Plane& plane,
    const Columns& columns, index_t row) {
#pragma unroll
  for (int i = 0; i < STRIDE_H; ++i) {
    load_row(input, sample, plane, columns, row * STRIDE_H + SHARED_ROWS + i, march.arriving[i]);
  }
}

// ---------------------------------------------------------------- single windows

constexpr int power_of_two_from(int count) {
  return count < 2 ? 1 : 2 * power_of_two_from((count + 1) / 2);
}

__device__ __forceinline__ Planes planes_of(const Plane& plane) {
  constexpr acc_t taps = power_of_two_from(KERNEL_H * KERNEL_W);
  return {plane.channels, plane.height, plane.width, plane.out_h, plane.out_w,
          KERNEL_H,       KERNEL_W,     STRIDE_H,    STRIDE_W,    PADDING_H,
          PADDING_W,      taps,         1 / taps};
}

// Window (row, column) of the channel whose first element is `first`.
__device__ __forceinline__ Window single_window(
    const scalar_t* first, const Plane& plane, index_t row, index_t column) {
  const index_t top = row * STRIDE_H - PADDING_H, left = column * STRIDE_W - PADDING_W;
  Window window;
  window.plane = first;
  window.h_begin = max(top, (index_t)0);
  window.w_begin = max(left, (index_t)0);
  window.h_end = min(top + KERNEL_H, plane.height);
  window.w_end = min(left + KERNEL_W, plane.width);
  return window;
}

__device__ __forceinline__ bool holds(acc_t total) {
  return total >= LEAST_TOTAL && total <= MOST_TOTAL;
}

__device__ __forceinline__ bool in_range(acc_t result) { return fabs(result) <= MOST_RESULT; }

// ---------------------------------------------------------------- kernels

#define SIZES                                                                                     \
  long long threads, long long lanes, long long tiles, long long strips, long long strip_rows,    \
      long long channels, long long height, long long width, long long out_h, long long out_w,    \
      long long lam_n, long long lam_c, long long lam_h, long long lam_w
#define DEAL {(index_t)lanes, (index_t)tiles, (index_t)strips, (index_t)strip_rows}
#define PLANE                                                                                     \
  {(index_t)channels, (index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w}

#if !BACKWARD

// y: in float32 in the two parts that softmax.cu tells of.
__device__ __forceinline__ acc_t mean_of(
    const Row (&rows)[KERNEL_H], int w, int v, acc_t weighted, acc_t inverse_total) {
  const acc_t first = product(weighted, inverse_total);
  if (sizeof(scalar_t) == 2) return first;
  acc_t rest = 0;
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
#pragma unroll
    for (int j = 0; j < KERNEL_W; ++j) {
      const int c = w * STRIDE_W + j;
      rest = fma(rows[i].weight[c][v], rows[i].deviation[c][v] - first, rest);
    }
  }
  return fma(rest, inverse_total, first);
}

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_marching_channels_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, SIZES) {
  const index_t thread = (index_t)blockIdx.x * BLOCK + threadIdx.x;
  if (thread >= threads) return;
  const Plane plane = PLANE;
  const Deal deal = DEAL;
  const Tile tile = tile_of(deal, plane, thread);
  const index_t sample = tile.n * (plane.height * plane.width * plane.channels) + tile.channel;
  const index_t out_row = plane.out_w * plane.channels;
  index_t at = (tile.n * plane.out_h + tile.row) * out_row + tile.column * plane.channels +
               tile.channel;
  acc_t lambda[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    lambda[v] = load(lam + tile.n * lam_n + (tile.channel + v) * lam_c);
  }
  const Columns columns = columns_from(plane, tile.column * STRIDE_W - PADDING_W);
  March march;
  start_march(march, input, sample, plane, columns, tile.row, lambda);
  unsigned doubtful[TILE][VECTOR];  // a bit for each row of windows from the first one down
#pragma unroll
  for (int w = 0; w < TILE; ++w) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) doubtful[w][v] = 0;
  }
  unsigned own_row = 1;
  for (index_t row = tile.row; row < tile.row_end; ++row, at += out_row) {
    weigh_arrived(march, plane, columns, row);
    if (row + 1 < tile.row_end) ask_for_rows(march, input, sample, plane, columns, row + 1);
#pragma unroll
    for (int w = 0; w < TILE; ++w) {
      acc_t y[VECTOR];
      scalar_t deviation[VECTOR];
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        const Sums sums = sums_of(march.rows, w, v);
        const acc_t inverse_total = reciprocal(sums.total);
        y[v] = mean_of(march.rows, w, v, sums.weighted, inverse_total);
        bool sure = holds(sums.total) && in_range(y[v]);
        if (WRITE_SPREAD) {
          const acc_t variance = 
              product(squares_of(march.rows, w, v, y[v]), inverse_total);
          sure = sure && in_range(variance);
          deviation[v] = pack_spread(root(variance));
        }
        if (!sure) doubtful[w][v] |= own_row;
      }
      if (tile.column + w < plane.out_w) {
        store_raw(output + at + w * plane.channels, narrow(y));
        if (WRITE_SPREAD) store_raw(spread + at + w * plane.channels, raw_of(deviation));
      }
    }
    move_down(march.rows);
    own_row <<= 1;
  }

#pragma unroll
  for (int w = 0; w < TILE; ++w) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (tile.column + w >= plane.out_w) continue;
#pragma unroll 1
      for (index_t again = tile.row; doubtful[w][v]; ++again, doubtful[w][v] >>= 1) {
        if (!(doubtful[w][v] & 1)) continue;
        const Planes planes = planes_of(plane);
        const Window window = single_window(input + sample + v, plane, again, tile.column + w);
        const Softmax of = softmax(window, planes, lambda[v]);
        const index_t to = ((tile.n * plane.out_h + again) * plane.out_w + tile.column + w) *
                               plane.channels + tile.channel + v;
        store(output + to, narrow(mean(window, planes, of)));
        if (WRITE_SPREAD) store(spread + to, pack_spread(root(variance(window, planes, of))));
      }
    }
  }
}

#else

// The gradient of an element from its windows, one by one.
__device__ __forceinline__ acc_t single_gradient(
    const scalar_t* first, const scalar_t* first_grad, const Plane& plane, index_t padded_row,
    index_t padded_column, acc_t lambda) {
  const Planes planes = planes_of(plane);
  const index_t element =
      (padded_row - PADDING_H) * plane.width + padded_column - PADDING_W;
  const acc_t x = widen(load(first + element * plane.channels));
  acc_t sum = 0;
#pragma unroll 1
  for (index_t row = max(padded_row - KERNEL_H + STRIDE_H, (index_t)0) / STRIDE_H;
       row < plane.out_h && row * STRIDE_H <= padded_row; ++row) {
#pragma unroll 1
    for (index_t column = max(padded_column - KERNEL_W + STRIDE_W, (index_t)0) / STRIDE_W;
         column < plane.out_w && column * STRIDE_W <= padded_column; ++column) {
      const Softmax of = softmax(single_window(first, plane, row, column), planes, lambda);
      const acc_t grad =
          widen(load(first_grad + (row * plane.out_w + column) * plane.channels));
      const acc_t deviation = x - of.reference;
      const acc_t weight = power_of_two(of.scale * deviation);
      sum += slope(grad * of.inverse_total * weight, lambda, deviation - of.shift);
    }
  }
  return sum;
}

// Of a row of windows. Of those that do not exist: of the nearest ones.
__device__ __forceinline__ void load_grads(
    const scalar_t* grad_output, index_t sample, const Plane& plane, index_t row, index_t column,
    bool columns_exist, Raw (&raw)[WINDOWS]) {
  const index_t first = sample + min(max(row, (index_t)0), plane.out_h - 1) *
                                     (plane.out_w * plane.channels);
  if (columns_exist) {
    const scalar_t* from = grad_output + (first + column * plane.channels);
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w, from += plane.channels) raw[w] = load_raw(from);
  } else {
    const scalar_t* from = grad_output + first;
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
      const index_t nearest = min(max(column + w, (index_t)0), plane.out_w - 1);
      raw[w] = load_raw(from + nearest * plane.channels);
    }
  }
}

// Of the row that begins at grad_input[row]: the tile's own columns.
__device__ __forceinline__ void store_row(
    scalar_t* grad_input, index_t row, const Plane& plane, const Columns& columns,
    const Raw (&raw)[OWN_COLUMNS]) {
  constexpr int left = HALO_W * STRIDE_W;
  scalar_t* to = grad_input + (row + (columns.first + left) * plane.channels);
  if (columns.cut) {
#pragma unroll
    for (int own = 0; own < OWN_COLUMNS; ++own) {
      if (columns.inside >> (left + own) & 1) store_raw(to + own * plane.channels, raw[own]);
    }
  } else {
#pragma unroll
    for (int own = 0; own < OWN_COLUMNS; ++own, to += plane.channels) store_raw(to, raw[own]);
  }
}

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the tile's part of lam's gradient, in
// grad_lam[n, tile, channel]. ADD_MEAN_GRAD: adds mean_grad[n, channel] to each element.
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_marching_channels_backward(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, SIZES) {
  const index_t thread = (index_t)blockIdx.x * BLOCK + threadIdx.x;
  if (thread >= threads) return;
  const Plane plane = PLANE;
  const Deal deal = DEAL;
  const Tile tile = tile_of(deal, plane, thread);
  const index_t sample = tile.n * (plane.height * plane.width * plane.channels) + tile.channel;
  const index_t out_sample =
      tile.n * (plane.out_h * plane.out_w * plane.channels) + tile.channel;
  acc_t lambda[VECTOR], added[VECTOR], part[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    lambda[v] = load(lam + tile.n * lam_n + (tile.channel + v) * lam_c);
    added[v] = ADD_MEAN_GRAD ? load(mean_grad + tile.n * plane.channels + tile.channel + v) : 0;
    part[v] = 0;
  }
  const index_t first_column = tile.column - HALO_W;
  const bool columns_exist = first_column >= 0 && first_column + WINDOWS <= plane.out_w;
  const Columns columns = columns_from(plane, first_column * STRIDE_W - PADDING_W);
  index_t row = tile.row - HALO_H;
  March march;
  start_march(march, input, sample, plane, columns, row, lambda);
  Raw arriving_grads[WINDOWS];
  load_grads(
      grad_output, out_sample, plane, row, first_column, columns_exist, arriving_grads);
  Slope slopes[HALO_H + 1][WINDOWS][VECTOR];  // of the rows of windows from the present one up
#pragma unroll
  for (int up = 0; up <= HALO_H; ++up) {
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) slopes[up][w][v] = {0, 0};
    }
  }
  unsigned doubtful = 0, own_row = 1;  // a bit for each row of windows from the first one down

  for (; row < tile.row_end; ++row) {
    weigh_arrived(march, plane, columns, row);
    acc_t grad[WINDOWS][VECTOR];
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) grad[w][v] = widen(arriving_grads[w], v);
    }
    if (row + 1 < tile.row_end) {
      ask_for_rows(march, input, sample, plane, columns, row + 1);
      load_grads(
          grad_output, out_sample, plane, row + 1, first_column, columns_exist, arriving_grads);
    }
    const bool row_exists = row >= 0 && row < plane.out_h;
    bool sure = true;
    acc_t found[VECTOR];
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) found[v] = 0;
    Sums sums[WINDOWS][VECTOR];
#pragma unroll
    for (int w = 0; w < WINDOWS; ++w) {
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        sums[w][v] = sums_of(march.rows, w, v);
        const acc_t inverse_total = reciprocal(sums[w][v].total);
        const acc_t mean = product(sums[w][v].weighted, inverse_total);
        slopes[0][w][v] = slope_of(grad[w][v], inverse_total, mean, march.formula[v]);
        sure = sure && in_range(slopes[0][w][v].c) && holds(sums[w][v].total);
        if (WRITE_GRAD_LAM && w >= HALO_W && row_exists && first_column + w < plane.out_w) {
          const acc_t variance =
              product(squares_of(march.rows, w, v, mean), inverse_total);
          sure = sure && in_range(variance);
          found[v] = fma(grad[w][v], variance, found[v]);
        }
      }
    }
    if (!row_exists || !columns_exist) {
      // What was found of windows that do not exist counts only where it would become NaN.
      sure = true;
#pragma unroll
      for (int w = 0; w < WINDOWS; ++w) {
        const index_t column = first_column + w;
        const bool exists = row_exists && column >= 0 && column < plane.out_w;
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
          sure = sure && in_range(sums[w][v].weighted) && sums[w][v].total <= MOST_TOTAL;
          if (exists) {
            sure = sure && in_range(slopes[0][w][v].c) && holds(sums[w][v].total);
            if (WRITE_GRAD_LAM) sure = sure && in_range(found[v]);
          } else {
            slopes[0][w][v] = {0, 0};
          }
        }
      }
    }
    if (!sure) doubtful |= own_row;
    own_row <<= 1;
    if (WRITE_GRAD_LAM && sure && row >= tile.row) {
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) part[v] += found[v];
    }

    if (WRITE_GRAD_INPUT) {
      if (row >= tile.row) {
#pragma unroll
        for (int i = 0; i < STRIDE_H; ++i) {
          const index_t h = row * STRIDE_H + i - PADDING_H;
          if (h < 0 || h >= plane.height) continue;
          Slope of_row[WINDOWS][VECTOR];  // the sum of all windows, above each other, that hold it
#pragma unroll
          for (int w = 0; w < WINDOWS; ++w) {
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
              of_row[w][v] = slopes[0][w][v];
#pragma unroll
              for (int up = 1; i + up * STRIDE_H < KERNEL_H; ++up) {
                of_row[w][v].a += slopes[up][w][v].a;
                of_row[w][v].c += slopes[up][w][v].c;
              }
            }
          }
          Raw result[OWN_COLUMNS];
#pragma unroll
          for (int own = 0; own < OWN_COLUMNS; ++own) {
            const int c = HALO_W * STRIDE_W + own;
            acc_t value[VECTOR];
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
              Slope sum = of_row[c / STRIDE_W][v];
#pragma unroll
              for (int back = 1; c % STRIDE_W + back * STRIDE_W < KERNEL_W; ++back) {
                sum.a += of_row[c / STRIDE_W - back][v].a;
                sum.c += of_row[c / STRIDE_W - back][v].c;
              }
              // In this order: a weight of 0 must not meet an infinite product.
              const acc_t weight = march.rows[i].weight[c][v];
              value[v] = fma(product(weight, march.rows[i].deviation[c][v]), sum.a,
                             fma(weight, sum.c, added[v]));
            }
            result[own] = narrow(value);
          }
          store_row(
              grad_input, sample + h * (plane.width * plane.channels), plane, columns, result);
        }
      }
#pragma unroll
      for (int up = HALO_H; up > 0; --up) {
#pragma unroll
        for (int w = 0; w < WINDOWS; ++w) {
#pragma unroll
          for (int v = 0; v < VECTOR; ++v) slopes[up][w][v] = slopes[up - 1][w][v];
        }
      }
    }
    move_down(march.rows);
  }

#pragma unroll 1
  for (row = tile.row - HALO_H; doubtful; ++row, doubtful >>= 1) {
    if (!(doubtful & 1)) continue;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (WRITE_GRAD_INPUT) {
        // All elements of the doubtful windows, and their neighbours in the same rows.
#pragma unroll 1
        for (int k = 0; k < KERNEL_H * OWN_COLUMNS; ++k) {
          const index_t padded_row = row * STRIDE_H + k / OWN_COLUMNS;
          const index_t padded_column = tile.column * STRIDE_W + k % OWN_COLUMNS;
          const index_t h = padded_row - PADDING_H, w = padded_column - PADDING_W;
          if (padded_row < tile.row * STRIDE_H || padded_row >= tile.row_end * STRIDE_H) continue;
          if (h < 0 || h >= plane.height || w < 0 || w >= plane.width) continue;
          const acc_t sum = single_gradient(
              input + sample + v, grad_output + out_sample + v, plane, padded_row, padded_column,
              lambda[v]);
          store(grad_input + sample + (h * plane.width + w) * plane.channels + v,
                narrow(sum + added[v]));
        }
      }
      if (WRITE_GRAD_LAM && row >= tile.row && row < plane.out_h) {
#pragma unroll 1
        for (index_t column = tile.column; column < min(tile.column + TILE, plane.out_w);
             ++column) {
          const Planes planes = planes_of(plane);
          const Window window = single_window(input + sample + v, plane, row, column);
          const acc_t of_window = variance(window, planes, softmax(window, planes, lambda[v]));
          const index_t at = out_sample + (row * plane.out_w + column) * plane.channels + v;
          part[v] = fma(widen(load(grad_output + at)), of_window, part[v]);
        }
      }
    }
  }
  if (WRITE_GRAD_LAM) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      store(grad_lam + (tile.n * deal.strips * deal.tiles + tile.number) * plane.channels +
                tile.channel + v,
            part[v]);
    }
  }
}

#endif
