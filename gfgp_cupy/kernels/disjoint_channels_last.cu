// Windows that tile the planes of channels_last tensors. Threads share them out as lanes.cu tells,
// VECTOR channels of a window at a time.

#define SIZES                                                                                     \
  long long channels_, long long windows_, DEAL, long long out_w_, long long by_out_w,            \
      long long lam_n, long long lam_c, long long lam_h, long long lam_w
#define OWN_SHARE                                                                                 \
  block_share(channels, windows, most, chunks, by_chunks, channel_blocks, by_channel_blocks)

// Left alone, the compiler spills two registers to make room for a fourth block; where channels are
// few or indices wide, one for a third.
#if TAPS == 4 && VECTOR > 4 && WRITE_GRAD_LAM && !defined(MANY_REGISTERS)
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, LANES > 2 && sizeof(index_t) == 4 ? 3 : 1)
#endif

// 16 float64 leave no registers for offsets that must be widened, one by one, to be added.
#if defined(DTYPE_FLOAT64)
typedef long long offset_t;
#else
typedef index_t offset_t;
#endif

// From a window's first element to another.
__device__ __forceinline__ offset_t tap_offset(int tap, offset_t width, offset_t channels) {
  return (tap / KERNEL_W * width + tap % KERNEL_W) * channels;
}

// A window's elements of VECTOR channels, as they lie in memory. They are widened where they are
// used: until then they take half the registers in half types.
struct Window {
  Pack<VECTOR> taps[TAPS];
};

__device__ __forceinline__ Window load_window(
    const scalar_t* first, index_t channels, index_t width) {
  Window window;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    window.taps[tap] = load_pack<VECTOR>(first + tap_offset(tap, width, channels));
  }
  return window;
}

__device__ __forceinline__ void take_channel(
    const Window& window, int v, unsigned flip, acc_t (&x)[TAPS]) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) x[tap] = widen_flipped(window.taps[tap], v, flip);
}

// Channels are worked on in pairs, the halves of a register in half types.
#define PAIR (VECTOR > 1 ? 2 : 1)

__device__ __forceinline__ void put_pair(const acc_t (&x)[PAIR], int v, Pack<VECTOR>& pack) {
  if constexpr (PAIR == 2) {
    narrow_pair(x[0], x[PAIR - 1], pack, v);
  } else {
    pack.element[v] = narrow(x[0]);
  }
}

// Where a window's first element lies. Rows of windows follow each other from sample to sample,
// each of KERNEL_H rows of pixels.
__device__ __forceinline__ index_t first_element(
    const Share& share, index_t window, index_t row, index_t windows, index_t width,
    index_t channels) {
  const index_t before = share.n * windows * TAPS;
  return (before + window * KERNEL_W + row * ((KERNEL_H - 1) * width)) * channels + share.channel;
}

// Shared memory: of each channel of the block, what is kept of lam, and what is added to each
// element's gradient; then what store_sum takes.
extern __shared__ __align__(16) unsigned char smem[];

// Fills the shared memory's first half. Threads must meet before they read it. To be called when
// the first windows have been asked for: what is waited for here then arrives with them.
template <class Kept>
__device__ __forceinline__ void load_table(
    const Share& share, index_t channels, const acc_t* from, index_t step, const Kept& kept,
    acc_t* table) {
#pragma unroll 1
  for (int column = threadIdx.x; column < COLUMNS; column += BLOCK) {
    const index_t channel = share.block_channel + column;
    if (channel < channels) table[column] = kept(load(from + channel * step));
  }
}

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(BLOCK) KERNEL(disjoint_forward)(FORWARD_TENSORS, SIZES) {
  const index_t channels = channels_, windows = windows_, out_w = out_w_;
  const index_t width = out_w * KERNEL_W;
  const Share share = OWN_SHARE;
  const acc_t* sample_lam = lam + share.n * lam_n;
  acc_t* lams = reinterpret_cast<acc_t*>(smem);
  for (index_t round = share.begin; round < share.end; round += ROWS_OF_LANES) {
    const index_t window = round + threadIdx.x / LANES;
    const bool has_window = share.active && window < share.end;
    const index_t row = divide(window, out_w, by_out_w);
    Window elements;
    if (has_window) {
      elements = load_window(
          input + first_element(share, window, row, windows, width, channels), channels, width);
    }
    if (!LAM_PER_WINDOW && round == share.begin) {
      load_table(share, channels, sample_lam, lam_c, kept_of, lams);
      __syncthreads();
    }
    if (!has_window) continue;
    Pack<VECTOR> pooled, spreads;
#pragma unroll
    for (int pair = 0; pair < VECTOR; pair += PAIR) {
      acc_t outputs[PAIR];
#pragma unroll
      for (int v = pair; v < pair + PAIR; ++v) {
        acc_t x[TAPS];
        const acc_t kept =
            LAM_PER_WINDOW
                ? kept_of(load(
                      sample_lam + (share.channel + v) * lam_c + row * lam_h +
                      (window - row * out_w) * lam_w))
                : lams[threadIdx.x % LANES * VECTOR + v];
        take_channel(elements, v, flip_of(kept), x);
        const State of = state_of(x, kept);
        outputs[v - pair] = output_of(x, of, kept);
        if (WRITE_SPREAD) spreads.element[v] = spread_of(sensitivity_of(of));
      }
      put_pair(outputs, pair, pooled);
    }
    const index_t at = (share.n * windows + window) * channels + share.channel;
    store_pack(output + at, pooled);
    if (WRITE_SPREAD) store_pack(spread + at, spreads);
  }
}

#else

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the part of lam's gradient that one block finds,
// in grad_lam[n, chunk, channel], or where lam varies inside a plane that of each window.
// ADD_MEAN_GRAD: adds mean_grad[n, channel] to each element.
extern "C" __global__ void BOUNDS(BLOCK) KERNEL(disjoint_backward)(
    BACKWARD_TENSORS, SIZES) {
  const index_t channels = channels_, windows = windows_, out_w = out_w_;
  const index_t width = out_w * KERNEL_W;
  const Share share = OWN_SHARE;
  const acc_t* sample_lam = lam + share.n * lam_n;
  acc_t* lams = reinterpret_cast<acc_t*>(smem);
  acc_t* all_added = lams + COLUMNS;
  acc_t part[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) part[v] = 0;
  for (index_t round = share.begin; round < share.end; round += ROWS_OF_LANES) {
    const index_t window = round + threadIdx.x / LANES;
    const bool has_window = share.active && window < share.end;
    const index_t row = divide(window, out_w, by_out_w);
    const index_t first = first_element(share, window, row, windows, width, channels);
    const index_t at = (share.n * windows + window) * channels + share.channel;
    Window elements;
    Pack<VECTOR> grads;
    if (has_window) {
      elements = load_window(input + first, channels, width);
      grads = load_pack<VECTOR>(grad_output + at);
    }
    if ((!LAM_PER_WINDOW || ADD_MEAN_GRAD) && round == share.begin) {
      if (!LAM_PER_WINDOW) load_table(share, channels, sample_lam, lam_c, kept_of, lams);
      if (ADD_MEAN_GRAD) {
        load_table(
            share, channels, mean_grad + share.n * channels, 1, [](acc_t grad) { return grad; },
            all_added);
      }
      __syncthreads();
    }
    if (!has_window) continue;
#pragma unroll
    for (int pair = 0; pair < VECTOR; pair += PAIR) {
      acc_t x[PAIR][TAPS];
#pragma unroll
      for (int v = pair; v < pair + PAIR; ++v) {
        const int column = threadIdx.x % LANES * VECTOR + v;
        const acc_t kept =
            LAM_PER_WINDOW
                ? kept_of(load(
                      sample_lam + (share.channel + v) * lam_c + row * lam_h +
                      (window - row * out_w) * lam_w))
                : lams[column];
        const acc_t added = ADD_MEAN_GRAD ? all_added[column] : 0;
        take_channel(elements, v, flip_of(kept), x[v - pair]);
        const acc_t found = send_back(widen_from(grads, v), kept, added, x[v - pair]);
        if (WRITE_GRAD_LAM && LAM_PER_WINDOW) store(grad_lam + at + v, found);
        if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) part[v] += found;
      }
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        acc_t sent[PAIR];
#pragma unroll
        for (int v = 0; v < PAIR; ++v) sent[v] = x[v][tap];
        put_pair(sent, pair, elements.taps[tap]);
      }
    }
    if (WRITE_GRAD_INPUT) {
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        store_pack(grad_input + first + tap_offset(tap, width, channels), elements.taps[tap]);
      }
    }
  }
  if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) {
    store_sum(part, share, channels, all_added + COLUMNS, grad_lam);
  }
}

#endif
