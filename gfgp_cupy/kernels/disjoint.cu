// Max-Ent pooling where the windows tile the plane: stride = kernel, no padding, height and width
// divisible by the kernel. Each window lives in the registers of one thread.
//
// Macros: CHANNELS_LAST; KERNEL_H, KERNEL_W; PACK, elements a load or store of input-sized tensors;
//         VECTOR, elements a thread reads and writes at once of output-sized tensors;
//         LANES, neighbouring threads that share a plane (contiguous) or stand side by side along
//         the channels (channels_last); LAM_PER_WINDOW, whether lam varies inside a plane;
//         WRITE_SPREAD; WRITE_GRAD_INPUT, WRITE_GRAD_LAM, ADD_MEAN_GRAD.
//
// "Spread" is the square root of a window's variance: it has the range of the input, so it fits
// the input's type where the variance might not.

#define BLOCK 256
#if defined(DTYPE_FLOAT64) || KERNEL_H * KERNEL_W * VECTOR > 32
#define BOUNDS __launch_bounds__(BLOCK, 1)  // or the compiler spills to fit more blocks
#else
#define BOUNDS __launch_bounds__(BLOCK)
#endif
#define ROWS_OF_LANES (BLOCK / LANES)


#if CHANNELS_LAST

// One thread owns VECTOR channels of WINDOWS_PER_THREAD windows of one sample; LANES threads stand
// side by side along the channels. Blocks are numbered by sample, channels, then windows.
#define WINDOWS_PER_BLOCK (ROWS_OF_LANES * WINDOWS_PER_THREAD)

struct Share {
  index_t n, channel, begin, end, chunk;  // sample, first channel, windows, number among chunks
  bool active;
};

__device__ __forceinline__ Share block_share(index_t channels, index_t windows) {
  const index_t chunks = (windows + WINDOWS_PER_BLOCK - 1) / WINDOWS_PER_BLOCK;
  const index_t vectors = channels / VECTOR;
  const index_t channel_blocks = (vectors + LANES - 1) / LANES;
  Share share;
  const index_t block = blockIdx.x;
  share.chunk = block % chunks;
  share.n = block / chunks / channel_blocks;
  const index_t vector = block / chunks % channel_blocks * LANES + threadIdx.x % LANES;
  share.active = vector < vectors;
  share.channel = vector * VECTOR;
  share.begin = share.chunk * WINDOWS_PER_BLOCK + threadIdx.x / LANES;
  share.end = min((share.chunk + 1) * WINDOWS_PER_BLOCK, windows);
  return share;
}

__device__ __forceinline__ void load_windows(
    const scalar_t* first, index_t channels, index_t width, acc_t (&x)[VECTOR][TAPS]) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const Pack<VECTOR> pack =
        load_pack<VECTOR>(first + (tap / KERNEL_W * width + tap % KERNEL_W) * channels);
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) x[v][tap] = widen(pack.element[v]);
  }
}

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS max_ent_pool2d_disjoint_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, long long channels_,
    long long out_h_, long long out_w_, long long lam_n, long long lam_c, long long lam_h,
    long long lam_w) {
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
    Pack<VECTOR> mean, deviation;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (LAM_PER_WINDOW) {
        scale[v] = LOG2_E * load(sample_lam + v * lam_c + row * lam_h + column * lam_w);
      }
      const Softmax of = softmax(x[v], scale[v]);
      mean.element[v] = narrow(of.mean);
      if (WRITE_SPREAD) deviation.element[v] = narrow(sqrt(variance(x[v], of)));
    }
    const index_t at = (share.n * windows + window) * channels + share.channel;
    store_pack(output + at, mean);
    if (WRITE_SPREAD) store_pack(spread + at, deviation);
  }
}

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the part of lam's gradient that one block finds,
// in grad_lam[n, chunk, channel], or where lam varies inside a plane that of each window.
// ADD_MEAN_GRAD: adds mean_grad[n, channel] to each element.
extern "C" __global__ void BOUNDS max_ent_pool2d_disjoint_backward(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, long long channels_,
    long long out_h_, long long out_w_, long long lam_n, long long lam_c, long long lam_h,
    long long lam_w) {
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
        const acc_t grad = widen(grads.element[v]);
        const Softmax of = softmax(x[v], LOG2_E * lambda[v]);
        if (WRITE_GRAD_LAM) {
          const acc_t found = grad * variance(x[v], of);
          if (LAM_PER_WINDOW) {
            store(grad_lam + at + v, found);
          } else {
            part[v] += found;
          }
        }
        const acc_t sent = grad * of.inverse_total;
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          x[v][tap] = sent * of.weight[tap] * (1 + lambda[v] * (x[v][tap] - of.mean)) + added[v];
        }
      }
      if (WRITE_GRAD_INPUT) {
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          Pack<VECTOR> pack;
#pragma unroll
          for (int v = 0; v < VECTOR; ++v) pack.element[v] = narrow(x[v][tap]);
          store_pack(
              grad_input + first + (tap / KERNEL_W * width + tap % KERNEL_W) * channels, pack);
        }
      }
    }
  }
  if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) {
    extern __shared__ __align__(16) unsigned char smem[];
    acc_t* partial = reinterpret_cast<acc_t*>(smem);  // [BLOCK][VECTOR]
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) partial[threadIdx.x * VECTOR + v] = part[v];
    __syncthreads();
    if (threadIdx.x < LANES && share.active) {
      const index_t chunks = (windows + WINDOWS_PER_BLOCK - 1) / WINDOWS_PER_BLOCK;
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        acc_t sum = 0;
        for (int row = 0; row < ROWS_OF_LANES; ++row) {
          sum += partial[(row * LANES + threadIdx.x) * VECTOR + v];
        }
        store(grad_lam + (share.n * chunks + share.chunk) * channels + share.channel + v, sum);
      }
    }
  }
}

#else

// LANES threads own one plane; each takes VECTOR neighbouring windows of a row at a time.

__device__ __forceinline__ void load_windows(
    const scalar_t* first, index_t width, acc_t (&x)[VECTOR][TAPS]) {
#pragma unroll
  for (int i = 0; i < KERNEL_H; ++i) {
#pragma unroll
    for (int start = 0; start < VECTOR * KERNEL_W; start += PACK) {
      const Pack<PACK> pack = load_pack<PACK>(first + i * width + start);
#pragma unroll
      for (int k = 0; k < PACK; ++k) {
        x[(start + k) / KERNEL_W][i * KERNEL_W + (start + k) % KERNEL_W] = widen(pack.element[k]);
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
      Pack<PACK> pack;
#pragma unroll
      for (int k = 0; k < PACK; ++k) {
        pack.element[k] = narrow(
            x[(start + k) / KERNEL_W][i * KERNEL_W + (start + k) % KERNEL_W]);
      }
      store_pack(first + i * width + start, pack);
    }
  }
}

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS max_ent_pool2d_disjoint_forward(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, long long planes,
    long long channels, long long out_h_, long long out_w_, long long lam_n, long long lam_c,
    long long lam_h, long long lam_w) {
  const index_t plane = (index_t)blockIdx.x * ROWS_OF_LANES + threadIdx.x / LANES;
  if (plane >= planes) return;
  const index_t out_h = out_h_, out_w = out_w_, groups_w = out_w / VECTOR;
  const index_t groups = out_h * groups_w;
  const index_t width = out_w * KERNEL_W;
  const acc_t* plane_lam =
      lam + plane / (index_t)channels * lam_n + plane % (index_t)channels * lam_c;
  acc_t scale = LOG2_E * load(plane_lam);
  for (index_t group = threadIdx.x % LANES; group < groups; group += LANES) {
    const index_t row = group / groups_w, column = group % groups_w * VECTOR;
    acc_t x[VECTOR][TAPS];
    load_windows(
        input + (plane * out_h + row) * KERNEL_H * width + column * KERNEL_W, width, x);
    Pack<VECTOR> mean, deviation;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
      if (LAM_PER_WINDOW) scale = LOG2_E * load(plane_lam + row * lam_h + (column + v) * lam_w);
      const Softmax of = softmax(x[v], scale);
      mean.element[v] = narrow(of.mean);
      if (WRITE_SPREAD) deviation.element[v] = narrow(sqrt(variance(x[v], of)));
    }
    const index_t at = (plane * groups + group) * VECTOR;
    store_pack(output + at, mean);
    if (WRITE_SPREAD) store_pack(spread + at, deviation);
  }
}

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: the plane's part of lam's gradient, in
// grad_lam[n, c], or where lam varies inside a plane that of each window. ADD_MEAN_GRAD: adds
// mean_grad[n, c] to each element.
extern "C" __global__ void BOUNDS max_ent_pool2d_disjoint_backward(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, long long planes,
    long long channels, long long out_h_, long long out_w_, long long lam_n, long long lam_c,
    long long lam_h, long long lam_w) {
  const index_t plane = (index_t)blockIdx.x * ROWS_OF_LANES + threadIdx.x / LANES;
  acc_t part = 0;
  if (plane < planes) {
    const index_t out_h = out_h_, out_w = out_w_, groups_w = out_w / VECTOR;
    const index_t groups = out_h * groups_w;
    const index_t width = out_w * KERNEL_W;
    const acc_t* plane_lam =
        lam + plane / (index_t)channels * lam_n + plane % (index_t)channels * lam_c;
    acc_t lambda = load(plane_lam);
    const acc_t added = ADD_MEAN_GRAD ? load(mean_grad + plane) : 0;
    for (index_t group = threadIdx.x % LANES; group < groups; group += LANES) {
      const index_t row = group / groups_w, column = group % groups_w * VECTOR;
      const index_t first = (plane * out_h + row) * KERNEL_H * width + column * KERNEL_W;
      const index_t at = (plane * groups + group) * VECTOR;
      acc_t x[VECTOR][TAPS];
      load_windows(input + first, width, x);
      const Pack<VECTOR> grads = load_pack<VECTOR>(grad_output + at);
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        if (LAM_PER_WINDOW) lambda = load(plane_lam + row * lam_h + (column + v) * lam_w);
        const acc_t grad = widen(grads.element[v]);
        const Softmax of = softmax(x[v], LOG2_E * lambda);
        if (WRITE_GRAD_LAM) {
          const acc_t found = grad * variance(x[v], of);
          if (LAM_PER_WINDOW) {
            store(grad_lam + at + v, found);
          } else {
            part += found;
          }
        }
        const acc_t sent = grad * of.inverse_total;
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
          x[v][tap] = sent * of.weight[tap] * (1 + lambda * (x[v][tap] - of.mean)) + added;
        }
      }
      if (WRITE_GRAD_INPUT) store_windows(grad_input + first, width, x);
    }
  }
  if (WRITE_GRAD_LAM && !LAM_PER_WINDOW) {
#pragma unroll
    for (int step = min(LANES, 32) / 2; step > 0; step /= 2) {
      part += __shfl_xor_sync(0xffffffffu, part, step);
    }
    if (LANES > 32) {
      extern __shared__ __align__(16) unsigned char smem[];
      acc_t* partial = reinterpret_cast<acc_t*>(smem);  // one a warp
      if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = part;
      __syncthreads();
      part = 0;
#pragma unroll
      for (int warp = 0; warp < LANES / 32; ++warp) {
        part += partial[threadIdx.x / LANES * (LANES / 32) + warp];
      }
    }
    if (plane < planes && threadIdx.x % LANES == 0) store(grad_lam + plane, part);
  }
}

#endif
