// Pooling of volumes that windows tile: stride = kernel, no padding, sizes divisible by the
// kernel. Each window lives in the registers of one thread.
//
// A thread owns a group of VECTOR windows: contiguous, neighbours of a row; channels_last, the same
// window of neighbouring channels. A row of a group's elements then lies in memory side by side, in
// PACKS accesses of PACK elements; channels_last, PACK is VECTOR. Groups are numbered in the
// output's memory order.
//
// A program holds one kernel: the backward pass's where a gradient is to be written. Macros:
// CHANNELS_LAST, VECTOR, PACK, KERNEL_D, KERNEL_H, KERNEL_W; LAM_PER_WINDOW, whether lam varies
// inside a volume; WRITE_SPREAD; WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD.

#undef NAME_OF_KERNEL
#define NAME_OF_KERNEL(pooling, pass) pooling##_pool3d_##pass

#if WRITE_GRAD_INPUT || WRITE_GRAD_LAM
// Left alone, the compiler spills a few registers of some functions.
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, 1)
#endif

#define ROWS (KERNEL_D * KERNEL_H * (CHANNELS_LAST ? KERNEL_W : 1))
#define PACKS (CHANNELS_LAST ? 1 : VECTOR * KERNEL_W / PACK)

#define THREE(name) long long name##_d, long long name##_h, long long name##_w
#define PARAMETERS                                                                                \
  long long groups, long long channels_, THREE(size), THREE(out), long long lam_n,                \
      long long lam_c, THREE(lam)

// A group's elements, as they lie in memory.
struct Group {
  Pack<PACK> rows[ROWS][PACKS];
};

// Of a group: its first window, where that lies in lam and mean_grad, and its first element.
struct Place {
  index_t n, c, d, h, w;
  index_t element;      // offset of the first
  index_t slice, line;  // elements from one slice, and one row, to the next
  index_t step;         // channels_last: from one element of a row to the next
};

__device__ __forceinline__ Place place_of(
    index_t group, index_t channels, index_t out_d, index_t out_h, index_t out_w) {
  Place place;
  if (CHANNELS_LAST) {
    const index_t vectors = channels / VECTOR;
    place.c = group % vectors * VECTOR;
    group /= vectors;
    place.w = group % out_w;
    group /= out_w;
  } else {
    const index_t groups_w = out_w / VECTOR;
    place.w = group % groups_w * VECTOR;
    group /= groups_w;
  }
  place.h = group % out_h;
  group /= out_h;
  place.d = group % out_d;
  group /= out_d;
  const index_t volume = group;
  place.n = CHANNELS_LAST ? volume : volume / channels;
  if (!CHANNELS_LAST) place.c = volume % channels;
  place.step = CHANNELS_LAST ? channels : 1;
  place.line = out_w * KERNEL_W * place.step;
  place.slice = out_h * KERNEL_H * place.line;
  place.element = (volume * out_d + place.d) * KERNEL_D * place.slice +
                  place.h * KERNEL_H * place.line + place.w * KERNEL_W * place.step +
                  (CHANNELS_LAST ? place.c : 0);
  return place;
}

#define PLACE_OF(group)                                                                           \
  place_of(group, (index_t)channels_, (index_t)out_d, (index_t)out_h, (index_t)out_w)

// Offset of a row of a group, which is one tap of a window in channels_last.
__device__ __forceinline__ index_t row_at(const Place& place, int row) {
  const int line = CHANNELS_LAST ? row / KERNEL_W : row;
  const index_t offset =
      place.element + line / KERNEL_H * place.slice + line % KERNEL_H * place.line;
  return CHANNELS_LAST ? offset + row % KERNEL_W * place.step : offset;
}

__device__ __forceinline__ Group load_group(const scalar_t* input, const Place& place) {
  Group group;
#pragma unroll
  for (int row = 0; row < ROWS; ++row) {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      group.rows[row][k] = load_pack<PACK>(input + row_at(place, row) + k * PACK);
    }
  }
  return group;
}

// Window v's tap: in which row, and which element of it.
#define ROW_OF(tap) (CHANNELS_LAST ? (tap) : (tap) / KERNEL_W)
#define COLUMN_OF(v, tap) (CHANNELS_LAST ? (v) : (v) * KERNEL_W + (tap) % KERNEL_W)

__device__ __forceinline__ void take_window(
    const Group& group, int v, unsigned flip, acc_t (&x)[TAPS]) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int column = COLUMN_OF(v, tap);
    x[tap] = widen_flipped(group.rows[ROW_OF(tap)][column / PACK], column % PACK, flip);
  }
}

__device__ __forceinline__ void put_window(Group& group, int v, const acc_t (&x)[TAPS]) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int column = COLUMN_OF(v, tap);
    group.rows[ROW_OF(tap)][column / PACK].element[column % PACK] = narrow(x[tap]);
  }
}

__device__ __forceinline__ void store_group(
    scalar_t* to, const Place& place, const Group& group) {
#pragma unroll
  for (int row = 0; row < ROWS; ++row) {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      store_pack(to + row_at(place, row) + k * PACK, group.rows[row][k]);
    }
  }
}

// What is kept of window v's lam; contiguous, one is loaded for all of a group if one lam has all.
#define LAM_OF(v)                                                                                 \
  kept_of(load(lam + place.n * lam_n + (place.c + (CHANNELS_LAST ? v : 0)) * lam_c +              \
               (LAM_PER_WINDOW ? place.d * lam_d + place.h * lam_h +                              \
                                     (place.w + (CHANNELS_LAST ? 0 : v)) * lam_w                  \
                               : 0)))
#define LOADS_LAM(v) (CHANNELS_LAST || LAM_PER_WINDOW || (v) == 0)

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(256) KERNEL(volume_tiles_forward)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, PARAMETERS) {
  const index_t index = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= groups) return;
  const Place place = PLACE_OF(index);
  const Group group = load_group(input, place);
  acc_t outputs[VECTOR];
  Pack<VECTOR> spreads;
  acc_t kept = 0;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    if (LOADS_LAM(v)) kept = LAM_OF(v);
    acc_t x[TAPS];
    take_window(group, v, flip_of(kept), x);
    const State state = state_of(x, kept);
    outputs[v] = output_of(x, state, kept);
    if (WRITE_SPREAD) spreads.element[v] = spread_of(sensitivity_of(state));
  }
  store_pack(output + index * VECTOR, narrow_pack(outputs));
  if (WRITE_SPREAD) store_pack(spread + index * VECTOR, spreads);
}

#else

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: lam's gradient of each window, O in acc_t.
// ADD_MEAN_GRAD: adds mean_grad[n, channel] to each element.
extern "C" __global__ void BOUNDS(256) KERNEL(volume_tiles_backward)(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, PARAMETERS) {
  const index_t index = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= groups) return;
  const Place place = PLACE_OF(index);
  Group group = load_group(input, place);
  const Pack<VECTOR> grads = load_pack<VECTOR>(grad_output + index * VECTOR);
  acc_t kept = 0, added = 0;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) {
    if (LOADS_LAM(v)) kept = LAM_OF(v);
    if (ADD_MEAN_GRAD && (CHANNELS_LAST || v == 0)) {
      added = load(mean_grad + place.n * (index_t)channels_ + place.c + v);
    }
    acc_t x[TAPS];
    take_window(group, v, flip_of(kept), x);
    const acc_t found = send_back(widen(grads.element[v]), kept, added, x);
    if (WRITE_GRAD_INPUT) put_window(group, v, x);
    if (WRITE_GRAD_LAM) store(grad_lam + index * VECTOR + v, found);
  }
  if (WRITE_GRAD_INPUT) store_group(grad_input, place, group);
}

#endif
