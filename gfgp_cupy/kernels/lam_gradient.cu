// The gradient of a lam that is constant over planes, from what the forward pass saved:
// the sum over a plane's windows of grad_output times sensitivity.
//
// Channels_last: threads share out planes as lanes.cu tells. Contiguous: a block owns `share`
// planes, one if they are large; it reads small planes (SMALL) across their ends, and keeps what it
// found of each window in shared memory. Reads 2 O; writes one acc_t a plane (contiguous:
// grad_lam[n, c]) or a chunk of a plane (channels_last: grad_lam[n, chunk, c]).
//
// Macros, beside those of spread.cu and lanes.cu: CHANNELS_LAST; contiguous: VECTOR, SMALL.

#if CHANNELS_LAST

extern "C" __global__ void BOUNDS(BLOCK) KERNEL(lam_gradient)(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ spread,
    acc_t* __restrict__ grad_lam, long long channels_, long long windows_, DEAL) {
  const index_t channels = channels_, windows = windows_;
  const Share share = block_share(
      channels, windows, most, chunks, by_chunks, channel_blocks, by_channel_blocks);
  acc_t part[VECTOR];
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) part[v] = 0;
  if (share.active) {
    for (index_t window = share.begin + threadIdx.x / LANES; window < share.end;
         window += ROWS_OF_LANES) {
      const index_t at = (share.n * windows + window) * channels + share.channel;
      const Pack<VECTOR> grads = load_pack<VECTOR>(grad_output + at);
      const Pack<VECTOR> spreads = load_pack<VECTOR>(spread + at);
#pragma unroll
      for (int v = 0; v < VECTOR; ++v) {
        part[v] += lam_part_of(spreads.element[v], grads.element[v]);
      }
    }
  }
  extern __shared__ __align__(16) unsigned char smem[];
  store_sum(part, share, channels, reinterpret_cast<acc_t*>(smem), grad_lam);
}

#else

// A thread's terms, as many as one access to shared memory takes.
#define SUMMANDS (VECTOR * sizeof(acc_t) > 16 ? 16 / (int)sizeof(acc_t) : VECTOR)
struct __align__(SUMMANDS * sizeof(acc_t)) Summands {
  acc_t term[SUMMANDS];
};

extern "C" __global__ void BOUNDS(BLOCK) KERNEL(lam_gradient)(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ spread,
    acc_t* __restrict__ grad_lam, long long planes, long long windows_, long long share_) {
  extern __shared__ __align__(16) unsigned char smem[];
  acc_t* partial = reinterpret_cast<acc_t*>(smem);
  const index_t windows = windows_, share = share_, first = blockIdx.x * share;
  const index_t count = min(share, (index_t)planes - first), end = count * windows;
  const scalar_t* grads_of = grad_output + first * windows;
  const scalar_t* spreads_of = spread + first * windows;
  acc_t part = 0;
  for (index_t window = threadIdx.x * VECTOR; window < end; window += BLOCK * VECTOR) {
    const Pack<VECTOR> grads = load_pack<VECTOR>(grads_of + window);
    const Pack<VECTOR> spreads = load_pack<VECTOR>(spreads_of + window);
#pragma unroll
    for (int v = 0; v < VECTOR; v += SUMMANDS) {
      Summands terms;
#pragma unroll
      for (int k = 0; k < SUMMANDS; ++k) {
        terms.term[k] = lam_part_of(spreads.element[v + k], grads.element[v + k]);
        part += terms.term[k];
      }
      if (SMALL) *reinterpret_cast<Summands*>(partial + window + v) = terms;
    }
  }
  if (SMALL) {
    __syncthreads();
    store_plane_sums(partial, windows, count, BLOCK, grad_lam + first);
  } else {
    const acc_t sum = block_sum(part, BLOCK, partial);
    if (threadIdx.x == 0) store(grad_lam + first, sum);
  }
}

#endif
