// Pooling of windows that overlap, or that padding or the plane's edge cuts.
//
// A team of threads marches down a strip of the plane, `step` rows of windows at a time. Shared
// memory holds a ring of input rows: while the team works on one step's rows, those of the next
// arrive. So each input element is read once, but for the columns (and, where a strip begins inside
// the plane, the rows) that neighbouring strips share. Contiguous: a strip is as wide as the plane.
// Channels_last: a strip is `tile_w` windows wide and CHANNELS channels deep.
//
// A block is one team; or, where planes are small, several, each with a plane (channels_last:
// CHANNELS of a sample) and a slice of shared memory of its own. The strips of a block's teams lie
// at the same place of their planes, so that all teams reach every barrier together.
//
// Large windows, of more than 25 elements, are those of programs with large_window.cu.
//
// A program holds one kernel: the backward pass's where a gradient is to be written.
//
// Macros: CHANNELS_LAST; KERNEL_*, STRIDE_*, PADDING_*; CHANNELS (1 if contiguous); PACK, elements
//         an access of input-sized tensors; TEAMS, whether blocks have several; LAM_PER_WINDOW;
//         WRITE_SPREAD, WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD as in disjoint.cu.
// What follows from the plane's size are arguments, so that one program serves all sizes whose rows
// take equally wide accesses: team_log2, log2 of a team's threads; team_bytes, a team's slice of
// shared memory, and ring_bytes, the input rows' part of it; ring_rows; strip_rows, step, tile_w.
//
// Rows and columns are counted from the padded plane's corner ("padded rows"), so that window o
// begins at o * STRIDE, and row q belongs to the windows q / STRIDE - HALO ... q / STRIDE.

#define HALO_H ((KERNEL_H - 1) / STRIDE_H)
#define HALO_W ((KERNEL_W - 1) / STRIDE_W)
// Columns that a pack of elements is in, and the most windows of a row that reach into these.
#define PACK_COLUMNS (CHANNELS_LAST ? 1 : PACK)
#define PACK_WINDOWS ((KERNEL_W + PACK_COLUMNS - 2) / STRIDE_W + 1)
#define RING_LEAD (KERNEL_H > STRIDE_H ? KERNEL_H - STRIDE_H : 0)
#define MAX_BLOCK 256

// Of lam, and what else a team keeps for each channel.
#define LAM_BYTES ((CHANNELS * (int)sizeof(acc_t) + 15) / 16 * 16)

struct Team {
  int number, lane, threads;
};

__device__ __forceinline__ Team own_team(int team_log2) {
  // The compiler does not see by itself that a block's only team is number 0.
  if (!TEAMS) return {0, (int)threadIdx.x, (int)blockDim.x};
  const int threads = 1 << team_log2;
  return {(int)threadIdx.x >> team_log2, (int)threadIdx.x & (threads - 1), threads};
}

// Rows of a buffer that holds `count` of them at a time: row q lies at origin + q, or where that is
// past the end, at its beginning.
struct Ring {
  index_t origin, count;
  __device__ __forceinline__ index_t at(index_t row) const {
    const index_t place = origin + row;
    return place >= count ? place - count : place;
  }
  // `first` is the first row still needed. at() serves the `count` rows that begin with it.
  __device__ __forceinline__ void move_to(index_t first) {
    if (origin + first >= count) origin -= count;
  }
};

struct Plane {
  index_t channels, height, width, out_h, out_w;
};

// The strip that a team owns: windows [row_begin, row_end) x [column_begin, column_end) of sample
// n and CHANNELS channels from `channel` on; and the padded rows and columns of the input whose
// gradient it writes, which begin with the first window and end where the next strip begins.
struct Strip {
  index_t n, channel, number;
  index_t row_begin, row_end, column_begin, column_end;
  index_t padded_row_end, padded_column_end;
  index_t padded_input_end;       // the padded row where the last that the team reads ends
  index_t tile_left, tile_width;  // input columns held in shared memory
};

// Blocks are numbered by samples and channels, which their teams share out, then by the strips'
// position, which is `number`.
__device__ __forceinline__ Strip team_strip(
    const Plane& plane, const Team& team, index_t strip_rows, index_t tile_columns) {
  // At least as many as there are windows, since no window begins past the plane's end.
  const index_t all_rows = (plane.height + PADDING_H - 1) / STRIDE_H + 1;
  const index_t all_columns = (plane.width + PADDING_W - 1) / STRIDE_W + 1;
  const index_t tile_w = CHANNELS_LAST ? tile_columns : all_columns;
  const index_t down = (all_rows + strip_rows - 1) / strip_rows;
  const index_t across = CHANNELS_LAST ? (all_columns + tile_w - 1) / tile_w : 1;
  const index_t block = blockIdx.x;
  const index_t teams = TEAMS ? blockDim.x / team.threads : 1;
  const index_t group = block / (down * across) * teams + team.number;
  Strip strip;
  strip.number = block % (down * across);
  strip.channel = group % (plane.channels / CHANNELS) * CHANNELS;
  strip.n = group / (plane.channels / CHANNELS);
  strip.row_begin = strip.number / across * strip_rows;
  strip.column_begin = strip.number % across * tile_w;
  strip.padded_row_end =
      min((strip.row_begin + strip_rows) * STRIDE_H, plane.height + PADDING_H);
  strip.padded_column_end =
      min((strip.column_begin + tile_w) * STRIDE_W, plane.width + PADDING_W);
  strip.row_end = min(strip.row_begin + strip_rows, plane.out_h);
  strip.column_end = min(strip.column_begin + tile_w, plane.out_w);
  strip.padded_input_end =
      max((strip.row_end - 1) * STRIDE_H + KERNEL_H, strip.padded_row_end);
  return strip;
}

// The columns of windows [first_column, column_end) and of the padded input up to
// padded_column_end are what the team will read.
__device__ __forceinline__ void set_tile(Strip& strip, const Plane& plane, index_t first_column) {
  const index_t left = first_column * STRIDE_W - PADDING_W;
  const index_t right = max((strip.column_end - 1) * STRIDE_W + KERNEL_W, strip.padded_column_end);
  strip.tile_left = CHANNELS_LAST && left > 0 ? left : 0;
  strip.tile_width = min(right - PADDING_W, plane.width) - strip.tile_left;
  if (!CHANNELS_LAST) strip.tile_width = plane.width;
}

// Starts copying PACK elements to shared memory; arrive() waits for all that this thread started.
__device__ __forceinline__ void start_copy(scalar_t* to, const scalar_t* from) {
#if !defined(GFGP_HOST) && __CUDA_ARCH__ >= 800
  const int bytes = PACK * sizeof(scalar_t);
  if (bytes >= 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::
                     "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from),
                     "n"(bytes < 4 ? 4 : bytes));
    return;
  }
#endif
  *reinterpret_cast<Pack<PACK>*>(to) = load_pack<PACK>(from);
}

__device__ __forceinline__ void arrive() {
#if !defined(GFGP_HOST) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
  __syncthreads();
}

// Starts copying the padded rows [begin, end) into the ring; rows outside the plane are left out.
__device__ __forceinline__ void start_rows(
    scalar_t* rows, const Ring& ring, const scalar_t* input, const Plane& plane, const Team& team,
    const Strip& strip, index_t begin, index_t end) {
  begin = max(begin, (index_t)PADDING_H);
  end = min(min(end, strip.padded_input_end), plane.height + PADDING_H);
  const index_t packs = strip.tile_width * CHANNELS / PACK;
  for (index_t item = team.lane; item < (end - begin) * packs; item += team.threads) {
    const index_t row = begin + item / packs, element = item % packs * PACK;
    const index_t h = row - PADDING_H;
    const index_t from =
        CHANNELS_LAST
            ? ((strip.n * plane.height + h) * plane.width + strip.tile_left + element / CHANNELS) *
                      plane.channels + strip.channel + element % CHANNELS
            : ((strip.n * plane.channels + strip.channel) * plane.height + h) * plane.width +
                  element;
    start_copy(rows + ring.at(row) * (strip.tile_width * CHANNELS) + element, input + from);
  }
}

// Reads window (row, column)'s elements from the ring; the result has a bit for each that is
// inside the plane. The others repeat one that is.
#ifndef LARGE_WINDOW

typedef unsigned Inside;

__device__ __forceinline__ Inside window_elements(
    const scalar_t* rows, const Ring& ring, const Plane& plane, const Strip& strip, index_t row,
    index_t column, int channel, acc_t (&x)[TAPS]) {
  const index_t pitch = strip.tile_width * CHANNELS;
  const index_t top = row * STRIDE_H, left = column * STRIDE_W - PADDING_W;
  Inside inside = 0;
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
    const index_t h = top + i - PADDING_H;
    const scalar_t* from = rows + ring.at(top + i) * pitch + channel;
#pragma unroll
    for (int j = 0; j < KERNEL_W; ++j) {
      const index_t w = left + j;
      x[i * KERNEL_W + j] = 0;
      if (h >= 0 && h < plane.height && w >= 0 && w < plane.width) {
        x[i * KERNEL_W + j] = widen(from[(w - strip.tile_left) * CHANNELS]);
        inside |= 1u << (i * KERNEL_W + j);
      }
    }
  }
  return inside;
}

#else

// The lowest `end` bits without the lowest `begin`.
__device__ __forceinline__ unsigned bits(int begin, int end) {
  return (0xffffffffu << begin) & (0xffffffffu >> (32 - end));
}

// Which of them are inside, and where. The others repeat the nearest inside.
__device__ __forceinline__ Inside window_elements(
    const scalar_t* rows, const Ring& ring, const Plane& plane, const Strip& strip, index_t row,
    index_t column, int channel, acc_t (&x)[TAPS]) {
  const index_t pitch = strip.tile_width * CHANNELS;
  const index_t top = row * STRIDE_H - PADDING_H, left = column * STRIDE_W - PADDING_W;
  const int above = max(-top, (index_t)0), before = max(-left, (index_t)0);
  const int below = min(plane.height - top, (index_t)KERNEL_H);
  const int behind = min(plane.width - left, (index_t)KERNEL_W);
  const scalar_t* tile = rows + channel - strip.tile_left * CHANNELS;
  if (above == 0 && before == 0 && below == KERNEL_H && behind == KERNEL_W) {
#pragma unroll
    for (int i = 0; i < KERNEL_H; ++i) {
      const scalar_t* from = tile + ring.at(top + i + PADDING_H) * pitch + left * CHANNELS;
#pragma unroll
      for (int j = 0; j < KERNEL_W; ++j) x[i * KERNEL_W + j] = widen(from[j * CHANNELS]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < KERNEL_H; ++i) {
      const index_t h = top + min(max(i, above), below - 1);
      const scalar_t* from = tile + ring.at(h + PADDING_H) * pitch;
#pragma unroll
      for (int j = 0; j < KERNEL_W; ++j) {
        const index_t w = left + min(max(j, before), behind - 1);
        x[i * KERNEL_W + j] = widen(from[w * CHANNELS]);
      }
    }
  }
  Inside inside;
  inside.rows = bits(above, below);
  inside.columns = bits(before, behind);
  inside.height = below - above;
  inside.width = behind - before;
  inside.begin = tile + ring.at(top + above + PADDING_H) * pitch + (left + before) * CHANNELS;
  inside.end = rows + ring.count * pitch;
  inside.pitch = pitch;
  inside.ring = ring.count * pitch;
  return inside;
}

#endif

__device__ __forceinline__ index_t output_offset(
    const Plane& plane, const Strip& strip, index_t row, index_t column, int channel) {
  return CHANNELS_LAST
             ? ((strip.n * plane.out_h + row) * plane.out_w + column) * plane.channels +
                   strip.channel + channel
             : ((strip.n * plane.channels + strip.channel) * plane.out_h + row) * plane.out_w +
                   column;
}

// A strip's lam: one number a channel, or where it varies inside a plane one a window.
struct Lams {
  const acc_t* sample;  // where the strip's sample and first channel begin
  const acc_t* strip;   // of each channel, in shared memory
  long long c, h, w;    // steps from channel to channel, row to row and column to column of windows
  __device__ __forceinline__ acc_t at(index_t row, index_t column, int channel) const {
    return LAM_PER_WINDOW ? load(sample + channel * c + row * h + column * w) : strip[channel];
  }
};

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// One thread of a team owns one window of a channel at a time. Reads X and lam, writes O (2 O with
// WRITE_SPREAD).
extern "C" __global__ void BOUNDS(MAX_BLOCK) KERNEL(overlapping_forward)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, long long team_log2,
    long long team_bytes, long long ring_rows, long long strip_rows, long long step_,
    long long tile_w, long long channels, long long height, long long width, long long out_h,
    long long out_w, long long lam_n, long long lam_c, long long lam_h, long long lam_w) {
  extern __shared__ __align__(16) unsigned char smem[];
  const Team team = own_team((int)team_log2);
  const index_t step = step_;
  unsigned char* slice = smem + team.number * (int)team_bytes;
  acc_t* strip_lam = reinterpret_cast<acc_t*>(slice);  // [CHANNELS], padded to 16 bytes
  scalar_t* rows = reinterpret_cast<scalar_t*>(slice + LAM_BYTES);
  const Plane plane = {(index_t)channels, (index_t)height, (index_t)width, (index_t)out_h,
                       (index_t)out_w};
  Strip strip = team_strip(plane, team, (index_t)strip_rows, (index_t)tile_w);
  if (strip.row_begin >= plane.out_h || strip.column_begin >= plane.out_w) return;
  // No gradients: the tile ends with the last window.
  strip.padded_column_end = 0;
  strip.padded_input_end = (strip.row_end - 1) * STRIDE_H + KERNEL_H;
  set_tile(strip, plane, strip.column_begin);
  const Lams lams = {lam + strip.n * lam_n + strip.channel * lam_c, strip_lam, lam_c, lam_h, lam_w};
  if (team.lane < CHANNELS) strip_lam[team.lane] = load(lams.sample + team.lane * lam_c);

  const index_t columns = strip.column_end - strip.column_begin;
  const index_t top = strip.row_begin * STRIDE_H;
  index_t needed = (strip.row_begin + step - 1) * STRIDE_H + KERNEL_H;
  Ring ring = {-max(top, (index_t)PADDING_H), (index_t)ring_rows};
  start_rows(rows, ring, input, plane, team, strip, top, needed);
  for (index_t first = strip.row_begin; first < strip.row_end; first += step) {
    ring.move_to(first * STRIDE_H);
    arrive();
    start_rows(rows, ring, input, plane, team, strip, needed, needed + step * STRIDE_H);
    needed += step * STRIDE_H;
    const index_t windows = min(step, strip.row_end - first) * columns * CHANNELS;
    for (index_t item = team.lane; item < windows; item += team.threads) {
      const int channel = item % CHANNELS;
      const index_t row = first + item / CHANNELS / columns;
      const index_t column = strip.column_begin + item / CHANNELS % columns;
      acc_t x[TAPS];
      const Inside inside = window_elements(rows, ring, plane, strip, row, column, channel, x);
      const acc_t lambda = lams.at(row, column, channel);
      const State of = state_of(x, lambda, inside);
      const index_t at = output_offset(plane, strip, row, column, channel);
      store(output + at, narrow(output_of(x, of)));
      if (WRITE_SPREAD) store(spread + at, spread_of(sensitivity_of(of)));
    }
  }
}

#else

// First, one thread of a team owns one window of a channel at a time and leaves its statistics in
// the team's shared memory; then, one thread owns PACK neighbouring input elements at a time and
// adds up what their windows send back. Reads X, O and lam, writes X. WRITE_GRAD_LAM: the strip's
// part of lam's gradient, which the team adds up, in grad_lam[n, strip, channel], or where lam
// varies inside a plane that of each window.
extern "C" __global__ void BOUNDS(MAX_BLOCK) KERNEL(overlapping_backward)(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, long long team_log2,
    long long team_bytes, long long ring_bytes, long long ring_rows, long long strip_rows,
    long long step_, long long tile_w, long long strips, long long channels, long long height,
    long long width, long long out_h, long long out_w, long long lam_n, long long lam_c,
    long long lam_h, long long lam_w) {
  extern __shared__ __align__(16) unsigned char smem[];
  const Team team = own_team((int)team_log2);
  const index_t step = step_;
  const Plane plane = {(index_t)channels, (index_t)height, (index_t)width, (index_t)out_h,
                       (index_t)out_w};
  Strip strip = team_strip(plane, team, (index_t)strip_rows, (index_t)tile_w);
  const index_t first_row = max(strip.row_begin - HALO_H, (index_t)0);
  const index_t first_column = max(strip.column_begin - HALO_W, (index_t)0);
  const index_t columns = max(strip.column_end - first_column, (index_t)0);
  set_tile(strip, plane, first_column);

  unsigned char* slice = smem + team.number * (int)team_bytes;
  acc_t* strip_lam = reinterpret_cast<acc_t*>(slice);  // [CHANNELS], padded to 16 bytes
  acc_t* added = reinterpret_cast<acc_t*>(slice + LAM_BYTES);  // likewise
  scalar_t* rows = reinterpret_cast<scalar_t*>(slice + 2 * LAM_BYTES);
  // [HALO_H + step][columns][CHANNELS][NUMBERS]
  acc_t* statistics = reinterpret_cast<acc_t*>(slice + 2 * LAM_BYTES + (int)ring_bytes);
  // Only where lam varies inside a plane: [HALO_H + step][columns][CHANNELS].
  acc_t* window_lam = statistics + (HALO_H + step) * columns * CHANNELS * NUMBERS;

  const Lams lams = {lam + strip.n * lam_n + strip.channel * lam_c, strip_lam, lam_c, lam_h, lam_w};
  if (team.lane < CHANNELS) {
    strip_lam[team.lane] = load(lams.sample + team.lane * lam_c);
    added[team.lane] = ADD_MEAN_GRAD ? load(mean_grad + strip.n * plane.channels + strip.channel +
                                            team.lane)
                                     : 0;
  }
  acc_t part = 0;
  const index_t left = max(strip.column_begin * STRIDE_W - PADDING_W, (index_t)0);
  const index_t row_packs =
      max((strip.padded_column_end - PADDING_W - left) * CHANNELS / PACK, (index_t)0);

  const index_t top = first_row * STRIDE_H;
  index_t needed = top + step * STRIDE_H + RING_LEAD;
  Ring ring = {-max(top, (index_t)PADDING_H), (index_t)ring_rows};
  Ring statistics_ring = {HALO_H - first_row, HALO_H + step};
  start_rows(rows, ring, input, plane, team, strip, top, needed);
  for (index_t first = first_row; first * STRIDE_H < strip.padded_row_end || first < strip.row_end;
       first += step) {
    ring.move_to(first * STRIDE_H);
    statistics_ring.move_to(first - HALO_H);
    arrive();
    start_rows(rows, ring, input, plane, team, strip, needed, needed + step * STRIDE_H);
    needed += step * STRIDE_H;

    const index_t windows = max(min(step, strip.row_end - first), (index_t)0) * columns * CHANNELS;
    for (index_t item = team.lane; item < windows; item += team.threads) {
      const int channel = item % CHANNELS;
      const index_t row = first + item / CHANNELS / columns;
      const index_t column = first_column + item / CHANNELS % columns;
      acc_t x[TAPS];
      const Inside inside = window_elements(rows, ring, plane, strip, row, column, channel, x);
      const acc_t lambda = lams.at(row, column, channel);
      const State of = state_of(x, lambda, inside);
      const index_t at = output_offset(plane, strip, row, column, channel);
      const acc_t window_grad = widen(load(grad_output + at));
      const index_t slot =
          (statistics_ring.at(row) * columns + column - first_column) * CHANNELS + channel;
#pragma unroll
      for (int k = 0; k < NUMBERS; ++k) {
        statistics[slot * NUMBERS + k] = statistic_of(of, window_grad, k);
      }
      if (LAM_PER_WINDOW) window_lam[slot] = lambda;
      if (WRITE_GRAD_LAM && row >= strip.row_begin && column >= strip.column_begin) {
        const acc_t found = window_grad * sensitivity_of(of);
        if (LAM_PER_WINDOW) {
          store(grad_lam + at, found);
        } else {
          part += found;
        }
      }
    }
    __syncthreads();

    if (WRITE_GRAD_INPUT) {
      const index_t row_start = max(max(first, strip.row_begin) * STRIDE_H, (index_t)PADDING_H);
      const index_t row_stop = min((first + step) * STRIDE_H, strip.padded_row_end);
      for (index_t item = team.lane; item < (row_stop - row_start) * row_packs;
           item += team.threads) {
        const index_t row = row_start + item / row_packs;
        const index_t element = item % row_packs * PACK;  // from the strip's first, in memory order
        const index_t w = left + element / CHANNELS;
        const int channel = element % CHANNELS;
        const Pack<PACK> elements = *reinterpret_cast<const Pack<PACK>*>(
            rows + (ring.at(row) * strip.tile_width + w - strip.tile_left) * CHANNELS + channel);
        const index_t at =
            CHANNELS_LAST
                ? ((strip.n * plane.height + row - PADDING_H) * plane.width + w) * plane.channels +
                      strip.channel + channel
                : ((strip.n * plane.channels + strip.channel) * plane.height + row - PADDING_H) *
                          plane.width + w;
        acc_t sum[PACK];
#pragma unroll
        for (int k = 0; k < PACK; ++k) sum[k] = added[CHANNELS_LAST ? channel + k : 0];
#pragma unroll
        for (int up = 0; up <= HALO_H; ++up) {
          const index_t window_row = row / STRIDE_H - up;
          if (row % STRIDE_H + up * STRIDE_H >= KERNEL_H) continue;
          if (window_row < 0 || window_row >= plane.out_h) continue;
          const index_t row_slot = statistics_ring.at(window_row) * columns - first_column;
          // The last window that has one of the elements, then those before it.
          const index_t last_column = w + PADDING_W + PACK_COLUMNS - 1;
          const index_t last = sizeof(index_t) > sizeof(int) ? last_column / STRIDE_W
                                                             : (unsigned)last_column / STRIDE_W;
#pragma unroll
          for (int back = 0; back < PACK_WINDOWS; ++back) {
            const index_t window_column = last - back;
            if (window_column < 0 || window_column >= strip.column_end) continue;
            // Where in the window the first of the elements is.
            const int tap = (int)(w + PADDING_W - window_column * STRIDE_W);
            if (CHANNELS_LAST && tap >= KERNEL_W) continue;
            const index_t slot = (row_slot + window_column) * CHANNELS + channel;
            acc_t message[NUMBERS];
            acc_t lambda;
#pragma unroll
            for (int k = 0; k < PACK; ++k) {
              if (CHANNELS_LAST || k == 0) {
                const index_t own = slot + (CHANNELS_LAST ? k : 0);
#pragma unroll
                for (int n = 0; n < NUMBERS; ++n) message[n] = statistics[own * NUMBERS + n];
                lambda = LAM_PER_WINDOW ? window_lam[own]
                                        : strip_lam[CHANNELS_LAST ? channel + k : 0];
              }
              if (!CHANNELS_LAST && (unsigned)(tap + k) >= KERNEL_W) continue;
              sum[k] += received(widen(elements.element[k]), lambda,
                                 [&](int number) { return message[number]; });
            }
          }
        }
        Pack<PACK> result;
#pragma unroll
        for (int k = 0; k < PACK; ++k) result.element[k] = narrow(sum[k]);
        store_pack(grad_input + at, result);
      }
    }
  }

  if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) {
    arrive();  // nobody reads the ring any more, nothing is on its way into it
    acc_t* partial = statistics;
    partial[team.lane] = part;
    for (int half = team.threads / 2; half >= CHANNELS; half /= 2) {
      __syncthreads();
      if (team.lane < half) partial[team.lane] += partial[team.lane + half];
    }
    if (team.lane < CHANNELS) {
      store(grad_lam + (strip.n * strips + strip.number) * plane.channels + strip.channel +
                team.lane,
            partial[team.lane]);
    }
  }
}

#endif
