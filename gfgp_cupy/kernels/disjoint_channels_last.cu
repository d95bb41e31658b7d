// Windows that tile the planes of channels_last tensors. Threads share them out as lanes.cu tells,
// VECTOR channels of a window at a time.

#define SIZES                                                                                     \
  long long out_h_, long long out_w_, long long lam_n, long long lam_c, long long lam_h,          \
      long long lam_w

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

__device__ __forceinline__ void load_windows(
    const scalar_t* first, index_t channels, index_t width, acc_t (&x)[VECTOR][TAPS]) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const Pack<VECTOR> pack = load_pack<VECTOR>(first + tap_offset(tap, width, channels));
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) x[v][tap] = widen_from(pack, v);
  }
}

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_disjoint_forward(
    FORWARD_TENSORS, long long channels_, SIZES) {
  const index_t channels = channels_, out_h = out_h_, out_w = out_w_, windows = out_h * out_w;
  const index_t width = out_w * KERNEL_W;
  const Share share = block_share(channels, windows);
  if (!share.active) return;
  const acc_t* sample_lam = lam + share.n * lam_n + share.channel * lam_c;
  acc_t scale[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) scale[v] = LOG2_E * load(sample_lam + v * lam_c);
  for (index_t window = share.begin; window < share.end; window += ROWS_OF_LANES) {
    const index_t row = window / out_w, column = window % out_w;
    const index_t first =
        ((share.n * out_h + row) * KERNEL_H * width + column * KERNEL_W) * channels +
        share.channel;
    acc_t x[VECTOR][TAPS];
    load_windows(input + first, channels, width, x);
    acc_t pooled[VECTOR];
    Pack<VECTOR> spread_pack;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (LAM_PER_WINDOW) {
        scale[v] = LOG2_E * load(sample_lam + v * lam_c + row * lam_h + column * lam_w);
      }
      const Softmax of = softmax(x[v], scale[v]);
      pooled[v] = mean(x[v], of);
      if (WRITE_SPREAD) spread_pack.element[v] = pack_spread(sqrt(variance(of)));
    }
    const index_t at = (share.n * windows + window) * channels + share.channel;
    store_pack(output + at, narrow_pack(pooled));
    if (WRITE_SPREAD) store_pack(spread + at, spread_pack);
  }
}

#else

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the part of lam's gradient that one block finds,
// in grad_lam[n, chunk, channel], or where lam varies inside a plane that of each window.
// ADD_MEAN_GRAD: adds mean_grad[n, channel] to each element.
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_disjoint_backward(
    BACKWARD_TENSORS, long long channels_, SIZES) {
  const index_t channels = channels_, out_h = out_h_, out_w = out_w_, windows = out_h * out_w;
  const index_t width = out_w * KERNEL_W;
  const Share share = block_share(channels, windows);
  acc_t lambda[VECTOR], added[VECTOR], part[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) part[v] = lambda[v] = added[v] = 0;
  const acc_t* sample_lam = lam + share.n * lam_n + share.channel * lam_c;
  if (share.active) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      lambda[v] = load(sample_lam + v * lam_c);
      if (ADD_MEAN_GRAD) added[v] = load(mean_grad + share.n * channels + share.channel + v);
    }
    for (index_t window = share.begin; window < share.end; window += ROWS_OF_LANES) {
      const index_t row = window / out_w, column = window % out_w;
      const index_t first =
          ((share.n * out_h + row) * KERNEL_H * width + column * KERNEL_W) * channels +
          share.channel;
      const index_t at = (share.n * windows + window) * channels + share.channel;
      acc_t x[VECTOR][TAPS];
      load_windows(input + first, channels, width, x);
      const Pack<VECTOR> grads = load_pack<VECTOR>(grad_output + at);
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        if (LAM_PER_WINDOW) {
          lambda[v] = load(sample_lam + v * lam_c + row * lam_h + column * lam_w);
        }
        const acc_t found = send_back(widen_from(grads, v), lambda[v], added[v], x[v]);
        if (WRITE_GRAD_LAM && LAM_PER_WINDOW) store(grad_lam + at + v, found);
        if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) part[v] += found;
      }
      if (WRITE_GRAD_INPUT) {
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          acc_t values[VECTOR];
#pragma unroll
          for (int v = 0; v < VECTOR; ++v) values[v] = x[v][tap];
          store_pack(
              grad_input + first + tap_offset(tap, width, channels), narrow_pack(values));
        }
      }
    }
  }
  if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) store_sum(part, share, channels, grad_lam);
}

#endif
