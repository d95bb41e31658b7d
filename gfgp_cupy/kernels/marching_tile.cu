// The march down planes that lie channels_last: threads share nothing, no memory and no barriers.
//
// A thread owns VECTOR neighbouring channels of a tile of the plane, TILE windows (OWN input
// columns) wide and a strip high, and marches down it, a row of windows at a time. Neighbouring
// threads own neighbouring channels of the same tile, so that a warp's accesses are dense. A thread
// holds the KERNEL_H input rows of a row of windows, with the columns that these reach into left
// and right, loads STRIDE_H rows more for the next one, and keeps the rest. What neighbouring tiles
// read, too, comes from the first-level cache. While the thread works on a row of windows, the rows
// of the next are on their way.
//
// The last tile of a row lies as far right as it is whole: over the one before it, whose windows
// and columns it works on again, but does not store.
//
// The backward pass also works on the windows of neighbouring tiles that reach into the thread's
// own columns and rows, and adds up in registers what each element receives.
//
// A program holds one kernel: the backward pass's where a gradient is to be written.
//
// Macros: KERNEL_*, STRIDE_*, PADDING_* (no stride exceeds its kernel); CHANNELS; VECTOR; TILE;
//         LANES, threads side by side along the channels;
//         LAST_COLUMNS, of the plane, from the last tile's first own one on; LAST_WINDOWS likewise;
//         OVERLAP, whether that tile lies over the one before it;
//         WRITE_SPREAD, WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD as in disjoint.cu.

#define BLOCK 128
// The columns of the windows, of which the first own one has LEFT before it.
#define WIDTH ((WINDOWS - 1) * STRIDE_W + KERNEL_W)

typedef Pack<VECTOR> Raw;  // channels as memory holds them: they are widened where they are used

// What a thread works on.
struct Tile {
  index_t n, channel;                     // sample, first channel
  index_t number;                         // of the plane's tiles
  index_t row_begin, row_end, input_end;  // of windows; the end as if they went on below the last
  index_t first;                          // own window of each row
  index_t again;                          // so many of its windows the tile before it owns
  index_t windows, elements;              // offsets of the first own ones of the plane's first row
};

#define PARAMETERS                                                                               \
  long long threads, long long tiles, long long tiles_inverse, long long last_tile,              \
      long long strips, long long strips_inverse, long long strip_rows, long long channels,      \
      long long height, long long width, long long out_h, long long out_w, long long lam_n,      \
      long long lam_c, long long lam_h, long long lam_w
#define PLANE {(index_t)height, (index_t)width, (index_t)out_h, (index_t)out_w}
#define TILE_OF(thread)                                                                          \
  tile_of(thread, plane, tiles, tiles_inverse, last_tile, strips, strips_inverse, strip_rows)

// Threads are numbered by samples, groups of LANES threads along the channels, strips, tiles, then
// lanes.
__device__ __forceinline__ Tile tile_of(
    index_t thread, const Plane& plane, long long tiles, long long tiles_inverse,
    long long last_tile, long long strips, long long strips_inverse, long long strip_rows) {
  constexpr index_t groups = CHANNELS / VECTOR / LANES;
  const index_t across = thread / LANES, lane = thread % LANES;
  const index_t down = divide(across, tiles, tiles_inverse);
  const index_t along = divide(down, strips, strips_inverse);
  const index_t column = across - down * (index_t)tiles;
  const index_t strip = down - along * (index_t)strips;
  Tile tile;
  tile.n = along / groups;
  tile.channel = (along % groups * LANES + lane) * VECTOR;
  tile.number = strip * (index_t)tiles + column;
  tile.row_begin = strip * (index_t)strip_rows;
  // At least as many as there are windows, since no window begins past the plane's end.
  const index_t rows = (plane.height + PADDING_H - 1) / STRIDE_H + 1;
  tile.input_end = min(tile.row_begin + (index_t)strip_rows, rows);
  tile.row_end = min(tile.input_end, plane.out_h);
  tile.first = min(column * TILE, (index_t)last_tile);
  tile.again = column * TILE - tile.first;
  tile.windows =
      (tile.n * plane.out_h * plane.out_w + tile.first) * CHANNELS + tile.channel;
  tile.elements = (tile.n * plane.height * plane.width + tile.first * STRIDE_W) * CHANNELS +
                  tile.channel;
  return tile;
}

// The thread's, read anew at each call: what is made of it need not wait in registers.
__device__ __forceinline__ index_t thread_number() {
#if GFGP_HOST
  const unsigned inside = threadIdx.x;
#else
  unsigned inside;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(inside));
#endif
  return (index_t)blockIdx.x * BLOCK + inside;
}

// Whether no tile has column `c` of its patch outside the plane, own column `c` outside, or misses
// window `w`, counted from the first own one.
constexpr bool surely_inside(int c) { return c >= LEFT && c < LEFT + LAST_COLUMNS; }
constexpr bool surely_own(int c) { return c < LAST_COLUMNS; }
constexpr bool surely_exists(int w) { return w >= 0 && w < LAST_WINDOWS; }

// Whether a window may reach column `c` where it is outside: right of the plane, not if even the
// nearest column there is only reached by windows that are missing.
constexpr bool may_be_absent(int c) {
  constexpr int nearest = LEFT + LAST_COLUMNS;
  constexpr int window = FIRST + (nearest < KERNEL_W ? 0 : (nearest - KERNEL_W) / STRIDE_W + 1);
  return !surely_inside(c) && (c < LEFT || window < LAST_WINDOWS);
}
#define MAY_BE_ABSENT(c) may_be_absent(c)

// Whether a tile stores its own window or group of columns `w`.
__device__ __forceinline__ bool stores(const Tile& tile, int w) {
  return !OVERLAP || w >= TILE - 1 || w >= tile.again;
}

__device__ __forceinline__ bool exists(const Tile& tile, const Plane& plane, int w) {
  return surely_exists(w) || (tile.first + w >= 0 && tile.first + w < plane.out_w);
}

// ---------------------------------------------------------------- rows of the input

// A tile's columns. Those outside the plane repeat the nearest one inside, which the windows that
// reach there hold, too, and weigh nothing.
struct Columns {
  index_t offset[WIDTH];  // from the first own column
  acc_t absent[WIDTH];    // 0, or minus infinity outside the plane
};

__device__ __forceinline__ Columns columns_of(const Tile& tile, const Plane& plane) {
  const index_t first = tile.first * STRIDE_W;
  Columns columns;
#pragma unroll
  for (int c = 0; c < WIDTH; ++c) {
    const index_t at = first + c - LEFT;
    const index_t inside =
        surely_inside(c) ? at : min(max(at, (index_t)0), plane.width - 1);
    columns.offset[c] = (inside - first) * CHANNELS;
    columns.absent[c] = inside == at ? 0 : -INFINITY_;
  }
  return columns;
}

// The KERNEL_H rows of a row of windows, and those that are on their way.
struct Patch {
  Raw x[KERNEL_H][WIDTH];
  acc_t absent[KERNEL_H];  // 0, or minus infinity for a row outside the plane
  Raw next[STRIDE_H][WIDTH];
  index_t row, last;  // the one to be loaded next, and the last that is wanted
  const scalar_t* input;
  index_t first;  // offset of the own columns of the plane's first row
};

// Loads row `row`; instead of one outside the plane, the nearest inside. Behind the last that is
// wanted it loads that one again, from cache, which costs less than to ask. `least` is a constant
// that no row is above.
__device__ __forceinline__ void load_row(
    Raw (&x)[WIDTH], const Patch& patch, index_t row, int least, const Plane& plane,
    const Columns& columns) {
  const index_t wanted = min(least < 0 ? max(row, (index_t)0) : row, patch.last);
  const scalar_t* from = patch.input + (patch.first + wanted * (plane.width * CHANNELS));
#pragma unroll
  for (int c = 0; c < WIDTH; ++c) x[c] = load_pack<VECTOR>(from + columns.offset[c]);
}

// Loads the rows of the patch of window row o, up to those that are on their way.
__device__ __forceinline__ Patch start_patch(
    const scalar_t* input, const Tile& tile, const Plane& plane, const Columns& columns,
    index_t o) {
  Patch patch;
  patch.row = o * STRIDE_H - PADDING_H;
  patch.last = min(plane.height, (tile.row_end - 1) * STRIDE_H - PADDING_H + KERNEL_H) - 1;
  patch.input = input;
  patch.first = tile.elements;
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
    load_row(patch.x[r], patch, patch.row + r, r - PADDING_H, plane, columns);
    patch.absent[r] = absent_row(patch.row + r, r - PADDING_H, plane);
  }
  patch.row += KEPT;
  load_ahead(patch, KEPT - PADDING_H, plane, columns);
  return patch;
}

// The rows on their way come to be the patch's last, and the next ones are asked for.
__device__ __forceinline__ void arrive(
    Patch& patch, const Plane& plane, const Columns& columns) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) {
#pragma unroll
    for (int c = 0; c < WIDTH; ++c) patch.x[KEPT + r][c] = patch.next[r][c];
    patch.absent[KEPT + r] =
        absent_row(patch.row - STRIDE_H + r, KEPT - PADDING_H + r, plane);
  }
  load_ahead(patch, KERNEL_H - PADDING_H, plane, columns);
}

// ---------------------------------------------------------------- rows of windows

// Runs do_row for each of the rows. Ends where do_row says no; returns the row. Rows that are on
// their way in one turn of the loop are there in the next: with two rows a turn, they need not
// change registers.
template <int ROWS_A_TURN, class DoRow>
__device__ __forceinline__ index_t for_each_row(index_t begin, index_t end, const DoRow& do_row) {
  index_t o = begin;
  while (o < end) {
    if (!do_row(o)) break;
    ++o;
    if (ROWS_A_TURN == 1) continue;
    if (o >= end || !do_row(o)) break;
    ++o;
  }
  return o;
}

// Of the first own window of row o.
__device__ __forceinline__ index_t window_offset(const Tile& tile, const Plane& plane, index_t o) {
  return tile.windows + o * (plane.out_w * CHANNELS);
}

__device__ __forceinline__ void store_windows(
    scalar_t* to, const Tile& tile, const Plane& plane, const Raw (&numbers)[TILE]) {
#pragma unroll
  for (int w = 0; w < TILE; ++w) {
    if (exists(tile, plane, w) && stores(tile, w)) store_pack(to + w * CHANNELS, numbers[w]);
  }
}

// Of row o of windows.
__device__ __forceinline__ void store_results(
    scalar_t* output, scalar_t* spread, const Tile& tile, const Plane& plane, index_t o,
    const acc_t (&y)[TILE][VECTOR], const acc_t (&sensitivity)[TILE][VECTOR]) {
  Raw outputs[TILE], spreads[TILE];
#pragma unroll
  for (int w = 0; w < TILE; ++w) {
    outputs[w] = narrow_pack(y[w]);
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (WRITE_SPREAD) spreads[w].element[v] = spread_of(sensitivity[w][v]);
    }
  }
  const index_t at = window_offset(tile, plane, o);
  store_windows(output + at, tile, plane, outputs);
  if (WRITE_SPREAD) store_windows(spread + at, tile, plane, spreads);
}

// What the backward pass reads and writes: of the windows that reach into own columns, their
// gradients; of the patch's rows, those of the own columns.
struct Gradients {
  const scalar_t* grad_output;
  Raw windows[WINDOWS];  // on their way
  scalar_t* grad_input;
  index_t first;         // own row
  acc_t added[VECTOR];   // to every gradient
};

// Of row o of windows, or the last one.
__device__ __forceinline__ void load_gradients(
    Gradients& gradients, const Tile& tile, const Plane& plane, index_t o) {
  const scalar_t* from =
      gradients.grad_output + window_offset(tile, plane, min(o, plane.out_h - 1));
#pragma unroll
  for (int w = 0; w < WINDOWS; ++w) {
    if (!surely_exists(FIRST + w)) gradients.windows[w] = Raw();
    if (!exists(tile, plane, FIRST + w)) continue;
    gradients.windows[w] = load_pack<VECTOR>(from + (FIRST + w) * CHANNELS);
  }
}

__device__ __forceinline__ Gradients start_gradients(
    const scalar_t* grad_output, scalar_t* grad_input, const acc_t (&added)[VECTOR],
    const Tile& tile, const Plane& plane, index_t begin) {
  Gradients gradients;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) gradients.added[v] = added[v];
  gradients.grad_output = grad_output;
  gradients.grad_input = grad_input;
  gradients.first = max(tile.row_begin * STRIDE_H - PADDING_H, (index_t)0);
  load_gradients(gradients, tile, plane, begin);
  return gradients;
}

// What own elements of the patch's rows have received.
typedef acc_t Received[KERNEL_H][OWN][VECTOR];

__device__ __forceinline__ void add_to_rows(
    Received& received, const Gradients& gradients, int begin, int end) {
#pragma unroll
  for (int r = begin; r < end; ++r) {
#pragma unroll
    for (int c = 0; c < OWN; ++c) {
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) received[r][c][v] = gradients.added[v];
    }
  }
}

// Stores the own rows that no window below row `o` reaches, if the numbers hold; the others move
// up.
__device__ __forceinline__ void give_rows(
    const Gradients& gradients, const Tile& tile, const Plane& plane, index_t o, bool hold,
    Received& received) {
#pragma unroll
  for (int r = 0; r < STRIDE_H; ++r) {
    const index_t row = o * STRIDE_H - PADDING_H + r;
    scalar_t* to = gradients.grad_input + (tile.elements + row * (plane.width * CHANNELS));
    if (hold && in_range(row - gradients.first, plane.height - gradients.first)) {
#pragma unroll
      for (int c = 0; c < OWN; ++c) {
        if (!surely_own(c) && tile.first * STRIDE_W + c >= plane.width) continue;
        if (!stores(tile, c / STRIDE_W)) continue;
        store_pack(to + c * CHANNELS, narrow_pack(received[r][c]));
      }
    }
  }
#pragma unroll
  for (int r = 0; r < KEPT; ++r) {
#pragma unroll
    for (int c = 0; c < OWN; ++c) {
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) received[r][c][v] = received[STRIDE_H + r][c][v];
    }
  }
}

// Stores the own rows from those of window row `o` on, which receive nothing more.
__device__ __forceinline__ void store_last_rows(
    const Gradients& gradients, const Tile& tile, const Plane& plane, index_t o,
    Received& received) {
#pragma unroll 1
  for (; WRITE_GRAD_INPUT && o < tile.input_end; ++o) {
    add_to_rows(received, gradients, KEPT, KERNEL_H);
    give_rows(gradients, tile, plane, o, true, received);
  }
}
