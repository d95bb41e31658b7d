// Max-Ent pooling where the windows tile the plane: stride = kernel, no padding, height and width
// divisible by the kernel. Each window lives in the registers of one thread.
//
// A program holds one kernel: the backward pass's where a gradient is to be written. Threads share
// out planes as lanes.cu tells. Macros: those of lanes.cu; KERNEL_H, KERNEL_W;
// PACK, elements a load or store of input-sized tensors; LAM_PER_WINDOW, whether lam varies inside
// a plane; WRITE_SPREAD; WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD.
//
// "Spread" is the square root of a window's variance: it has the range of the input, so it fits
// into as many bits where the variance might not.

// The kernels' parameters, but for the numbers of channels and planes.
#define FORWARD_TENSORS                                                                           \
  const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,                              \
      scalar_t* __restrict__ output, scalar_t* __restrict__ spread
#define BACKWARD_TENSORS                                                                          \
  const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,                   \
      const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,                         \
      scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam
#define SIZES                                                                                     \
  long long out_h_, long long out_w_, long long lam_n, long long lam_c, long long lam_h,          \
      long long lam_w

// Replaces a window's elements by their gradients, plus `added` each, where `grad` is that of the
// window's output. Returns the window's part of lam's gradient.
__device__ __forceinline__ acc_t send_back(
    acc_t grad, acc_t lambda, acc_t added, acc_t (&x)[TAPS]) {
  const Softmax of = softmax(x, LOG2_E * lambda);
  const acc_t of_lam = WRITE_GRAD_LAM ? grad * variance(of) : 0;
  const acc_t most = grad * of.inverse_total;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const acc_t sent = most * of.weight[tap];
    x[tap] = slope(sent, lambda, of.deviation[tap] - of.shift) + added;
  }
  return of_lam;
}

#if CHANNELS_LAST

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

#else

// A thread takes VECTOR neighbouring windows of a row at a time.

__device__ __forceinline__ void load_windows(
    const scalar_t* first, index_t width, acc_t (&x)[VECTOR][TAPS]) {
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
#pragma unroll
    for (int start = 0; start < VECTOR * KERNEL_W; start += PACK) {
      const Pack<PACK> pack = load_pack<PACK>(first + i * width + start);
#pragma unroll
      for (int k = 0; k < PACK; ++k) {
        x[(start + k) / KERNEL_W][i * KERNEL_W + (start + k) % KERNEL_W] = widen_from(pack, k);
      }
    }
  }
}

__device__ __forceinline__ void store_windows(
    scalar_t* first, index_t width, const acc_t (&x)[VECTOR][TAPS]) {
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
#pragma unroll
    for (int start = 0; start < VECTOR * KERNEL_W; start += PACK) {
      acc_t values[PACK];
#pragma unroll
      for (int k = 0; k < PACK; ++k) {
        values[k] = x[(start + k) / KERNEL_W][i * KERNEL_W + (start + k) % KERNEL_W];
      }
      store_pack(first + i * width + start, narrow_pack(values));
    }
  }
}

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_disjoint_forward(
    FORWARD_TENSORS, long long planes, long long channels, SIZES) {
  const index_t plane = own_plane(), out_h = out_h_, out_w = out_w_, width = out_w * KERNEL_W;
  const index_t groups_w = out_w / VECTOR, groups = out_h * groups_w;
  const acc_t* lams = lam + plane / (index_t)channels * lam_n + plane % (index_t)channels * lam_c;
  acc_t scale = LOG2_E * load_for_plane(lams, plane < planes);
  if (plane >= planes) return;
  for (index_t group = threadIdx.x % LANES; group < groups; group += LANES) {
    const index_t row = group / groups_w, column = group % groups_w * VECTOR;
    acc_t x[VECTOR][TAPS];
    load_windows(
        input + (plane * out_h + row) * KERNEL_H * width + column * KERNEL_W, width, x);
    acc_t pooled[VECTOR];
    Pack<VECTOR> spread_pack;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (LAM_PER_WINDOW) scale = LOG2_E * load(lams + row * lam_h + (column + v) * lam_w);
      const Softmax of = softmax(x[v], scale);
      pooled[v] = mean(x[v], of);
      if (WRITE_SPREAD) spread_pack.element[v] = pack_spread(sqrt(variance(of)));
    }
    const index_t at = (plane * groups + group) * VECTOR;
    store_pack(output + at, narrow_pack(pooled));
    if (WRITE_SPREAD) store_pack(spread + at, spread_pack);
  }
}

#else

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the plane's part of lam's gradient, in
// grad_lam[n, c], or where lam varies inside a plane that of each window. ADD_MEAN_GRAD: adds
// mean_grad[n, c] to each element.
extern "C" __global__ void BOUNDS(BLOCK) max_ent_pool2d_disjoint_backward(
    BACKWARD_TENSORS, long long planes, long long channels, SIZES) {
  const index_t plane = own_plane(), out_h = out_h_, out_w = out_w_, width = out_w * KERNEL_W;
  const index_t groups_w = out_w / VECTOR, groups = out_h * groups_w;
  const acc_t* lams = lam + plane / (index_t)channels * lam_n + plane % (index_t)channels * lam_c;
  acc_t lambda = load_for_plane(lams, plane < planes);
  const acc_t added = ADD_MEAN_GRAD ? load_for_plane(mean_grad + plane, plane < planes) : 0;
  acc_t part = 0;
  if (plane < planes) {
    for (index_t group = threadIdx.x % LANES; group < groups; group += LANES) {
      const index_t row = group / groups_w, column = group % groups_w * VECTOR;
      const index_t first = (plane * out_h + row) * KERNEL_H * width + column * KERNEL_W;
      const index_t at = (plane * groups + group) * VECTOR;
      acc_t x[VECTOR][TAPS];
      load_windows(input + first, width, x);
      const Pack<VECTOR> grads = load_pack<VECTOR>(grad_output + at);
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        if (LAM_PER_WINDOW) lambda = load(lams + row * lam_h + (column + v) * lam_w);
        const acc_t found = send_back(widen_from(grads, v), lambda, added, x[v]);
        if (WRITE_GRAD_LAM && LAM_PER_WINDOW) store(grad_lam + at + v, found);
        if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) part += found;
      }
      if (WRITE_GRAD_INPUT) store_windows(grad_input + first, width, x);
    }
  }
  if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) store_sum(part, plane, planes, grad_lam);
}

#endif

#endif
